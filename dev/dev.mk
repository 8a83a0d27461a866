# The local cluster: etcd, Kubernetes' control plane, kwok's nodes, Consul, and Pods that answer. See dev/README.md.

DEVCLUSTER = PYTHONPATH=dev $(PY) -m devcluster

.PHONY: tools cluster cluster-env cluster-status cluster-down

tools: | venv ## Build the programs of the local cluster (once)
	@$(DEVCLUSTER) build

cluster: | venv ## Start the local cluster; CLUSTER="--nodes 5 --acls" changes it
	@$(DEVCLUSTER) up $(CLUSTER)

cluster-env: | venv ## Print the exports for your shell: eval "$$(make -s cluster-env)"
	@$(DEVCLUSTER) env

cluster-status: | venv ## Show the processes of the local cluster
	@$(DEVCLUSTER) status

cluster-down: | venv ## End the local cluster and remove its files
	@$(DEVCLUSTER) down

REALNODE = PYTHONPATH=dev $(PY) -m realnode

.PHONY: node node-down node-packages

node-packages: ## Install the Debian packages that `make node` and `make image` need (root)
	@dev/realnode/packages.sh

node: | venv ## Start a Kubernetes of one node with real Pods (root, Debian's containerd); see dev/README.md
	@$(REALNODE) up

node-down: | venv ## End that node
	@$(REALNODE) down
