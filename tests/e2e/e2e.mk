# The chart in a cluster with real Pods. KUBECONFIG=… takes any cluster (with the image loaded, IMAGE=name:tag),
# CLUSTER=kind makes one with kind; else the image is built and run on the project's own node, which needs root.

.PHONY: e2e
e2e: venv ## The chart in a cluster with real Pods: KUBECONFIG=…, CLUSTER=kind, or the project's own node (root)
	@test -n "$(KUBECONFIG)" || test "$(CLUSTER)" = kind || $(MAKE) --no-print-directory image
	$(PY) -m pytest tests/e2e -q
