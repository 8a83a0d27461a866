# Everything that a newcomer needs: `make demo` shows it, `make test` proves it. Needs Python >= 3.11 and make.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The first that runs and is new enough: a command of that name may be a shim that doesn't.
NEW_ENOUGH := import sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for each in python3 python3.14 python3.13 python3.12 python3.11; do \
  $$each -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && { echo $$each; break; }; done)
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
PY := $(BIN)/python
export PYTHONPATH := $(CURDIR)/operator:$(CURDIR)/dev

include dev/dev.mk
include tests/faults/faults.mk
include tests/e2e/e2e.mk

.PHONY: help
help: ## What there is to make
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

.PHONY: venv
venv: $(VENV)/.made ## The virtual environment, from locked dependencies

$(VENV)/.made: requirements/dev.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(PY) || "$(PYTHON)" -m venv $(VENV)
	@echo "installing the locked dependencies into $(VENV) (about a minute)" >&2
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/dev.lock >&2
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . >&2
	@touch $@

.PHONY: generate
generate: venv ## Everything that is made from the code: crds/, docs/reference/, parts of the chart
	@$(PY) -m consul_registrar.api.crd crds
	@$(PY) -m consul_registrar.cli.reference docs/reference
	@$(PY) -m fieldtable
	@$(PY) -m chartgen generate

.PHONY: kustomize
kustomize: venv tools ## The kustomize base, rendered from the chart
	@$(PY) -m chartgen kustomize

.PHONY: check
check: venv ## Formatting, lint, types, layers, generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	@$(MAKE) --no-print-directory generate
	@git diff --exit-code --stat -- crds docs/reference manifests || { echo "generated files differ: run 'make generate' and commit"; exit 1; }

# Several processes run the tests (tests/spread.py); WORKERS=1 for one after the other.
PYTEST := $(PY) -m pytest -q --numprocesses=$(or $(WORKERS),auto) --dist=loadfile

.PHONY: unit
unit: venv ## Tests without a cluster
	$(PYTEST) --timeout=300 tests/unit tests/laws tests/gitops

.PHONY: integration
integration: venv tools ## Tests against a real API server and a real Consul
	$(PYTEST) tests/integration tests/dev

.PHONY: chart
chart: venv tools ## The Helm chart: what it renders, and installed in a real API server under its own roles
	$(PYTEST) tests/chart

.PHONY: chart-helm4
chart-helm4: ## The same by Helm 4, which is built for it
	@HELM=4 $(MAKE) --no-print-directory chart

.PHONY: test-slow
test-slow: venv tools ## What takes minutes since Consul's own times can't be shortened: reaping by the agent
	$(PY) -m pytest tests/integration -q -m slow

.PHONY: test-laws
test-laws: venv ## The laws over many examples, others each time
	LAWS=deep $(PY) -m pytest tests/laws -q --hypothesis-show-statistics

.PHONY: test
test: check unit tools ## All of it
	$(PYTEST) tests/integration tests/dev tests/chart tests/faults

# PODS=1000 for a short run, ONLY=catalog-cold,agent for a part, STRICT=1 to fail where a budget is over.
BENCH := $(if $(PODS),--pods=$(PODS)) $(if $(ONLY),--only=$(ONLY)) $(if $(BEFORE),--before=$(BEFORE)) \
  $(if $(STRICT),--strict)

.PHONY: bench
bench: venv tools ## Measure every budget of the design; writes build/bench.json (PODS=, ONLY=, BEFORE=, STRICT=1)
	PYTHONPATH=$(PYTHONPATH):$(CURDIR)/tests $(PY) -m bench $(BENCH)

.PHONY: screens
screens: venv ## Pictures of the status page in build/screens, by headless Chromium (apt-get install chromium)
	@$(PY) -m screens build/screens

.PHONY: demo
demo: venv $(if $(filter kind,$(CLUSTER)),,tools) ## Three Pods into Consul, step by step; CLUSTER=kind: the README's quickstart on kind
	@$(PY) -m demo $(if $(filter kind,$(CLUSTER)),kind,up)

.PHONY: demo-down
demo-down: venv ## End what `make demo` started (CLUSTER=kind: that one)
	@$(PY) -m demo $(if $(filter kind,$(CLUSTER)),kind-down,down)

.PHONY: specs
specs: venv tools ## Specs made from the schema, edited and deleted by chance (ROUNDS=20 SEED=1)
	$(PY) -m pytest tests/integration/test_generated_specs.py -q -m '' --rounds=$(or $(ROUNDS),20) --seed=$(or $(SEED),1)

.PHONY: record
record: venv tools ## What this version leaves in Consul, as test data for the next ones: tests/recorded/<version>.json
	@PYTHONPATH=$(PYTHONPATH):tests:tests/integration $(PY) -m recorded.record

.PHONY: lock
lock: venv ## Choose the dependencies' versions anew
	@$(PY) -m pip install --quiet uv
	@for kind in run traces dev; do \
	  case $$kind in run) extra= ;; dev) extra=--all-extras ;; *) extra="--extra $$kind" ;; esac; \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	    --upgrade $$extra --output-file requirements/$$kind.lock pyproject.toml; done

# Both take what they are from the network, and aren't part of `make test`.
AUDIT := build/audit
.PHONY: audit
audit: ## Known vulnerabilities of the locked dependencies; asks PyPI's JSON API, which a mirror may lack
	@test -n "$(PYTHON)" && test -x $(AUDIT)/bin/pip-audit || { "$(PYTHON)" -m venv $(AUDIT) && \
	  $(AUDIT)/bin/pip install --quiet --disable-pip-version-check pip-audit==2.9.0; }
	@for kind in run traces dev; do $(AUDIT)/bin/pip-audit --strict --disable-pip --require-hashes \
	  --requirement requirements/$$kind.lock; done

.PHONY: actionlint
actionlint: ## The workflows of .github/ are looked at; takes Go
	@go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.7

# With Docker the image is built on its default base; without, by buildah on a base made by debootstrap (root; Debian).
.PHONY: image
image: ## The operator's image, looked at; IMAGE=name:tag names it, EXTRA=traces adds what --traces needs
	@if docker info >/dev/null 2>&1; then \
	  docker build --tag $(or $(IMAGE),consul-registrar:0.1.0) --build-arg EXTRA=$(or $(EXTRA),run) .; \
	  else NAME=$(or $(IMAGE),localhost/consul-registrar:dev) EXTRA=$(or $(EXTRA),run) dev/image/build.sh; fi

.PHONY: sbom
sbom: image ## The bill of materials of the image (CycloneDX): build/image/sbom.json
	@mkdir -p build/image
	@if docker info >/dev/null 2>&1; then docker run --rm --interactive --entrypoint python3 \
	  $(or $(IMAGE),consul-registrar:0.1.0) - <dev/image/sbom.py >build/image/sbom.json; fi
	@ls build/image/sbom.json
