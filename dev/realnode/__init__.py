"""A Kubernetes of one node with real Pods: kubelet, containerd, kube-proxy, CoreDNS, RBAC and Pod Security.

For what simulated Pods can't show: images, probes, traffic, drains, the chart. The node is a set of namespaces
(network, mounts, processes) on this machine, so it needs root and Debian's containerd, and ends as a whole with its
first process. There is one at a time, since its addresses are fixed: 10.251.0.2 for the API, 10.250.0.0/24 for Pods,
10.97.0.0/16 for Services. It has no default route: nothing in it leaves the machine.
"""
