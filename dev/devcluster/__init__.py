"""A local cluster of real parts: Kubernetes' control plane, kwok's nodes, Consul, and Pods that answer.

Start with `cluster.py`, which puts the parts together; `python -m devcluster --help` is the command line.
"""

from devcluster.cluster import Cluster, Options, TlsProxy, running, tls_proxy

__all__ = ["Cluster", "Options", "TlsProxy", "running", "tls_proxy"]
