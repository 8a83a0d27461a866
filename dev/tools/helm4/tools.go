//go:build tools

// Package tools keeps the program that this module pins in its go.mod.
package tools

import _ "helm.sh/helm/v4/cmd/helm"
