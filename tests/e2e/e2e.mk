# The chart in a cluster with real Pods. KUBECONFIG=… takes any cluster (with the image loaded, IMAGE=name:tag),
# CLUSTER=kind makes one with kind; else the image is built and run on the project's own node, which needs root.

.PHONY: e2e
e2e: venv ## The chart in a cluster with real Pods: KUBECONFIG=…, CLUSTER=kind, or the project's own node (root)
	@test -n "$(KUBECONFIG)" || test "$(CLUSTER)" = kind || $(MAKE) --no-print-directory image
	$(PY) -m pytest tests/e2e -q

.PHONY: browser browser-packages
browser-packages: ## Install headless Chromium from Debian (root)
	@DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends chromium fonts-dejavu-core >/dev/null

browser: venv ## The status page in headless Chromium, and pictures of it in build/screens
	$(PY) -m pytest tests/unit/status_page/test_browser.py -q
	@$(PY) -m screens build/screens
