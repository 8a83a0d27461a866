"""The chart in a cluster with real Pods: what only images, kubelets and traffic can show.

Any cluster will do (`KUBECONFIG`, with the image loaded); `CLUSTER=kind` makes one with kind; else the project's own
node with real Pods is used (`dev/realnode`).
"""
