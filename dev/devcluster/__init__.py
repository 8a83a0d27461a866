"""A local cluster of real parts: Kubernetes' control plane, kwok's nodes, Consul, and Pods that answer.

Start with `cluster.py`, which puts the parts together; `python -m devcluster --help` is the command line.
"""

from devcluster.cluster import Cluster, Options, running

__all__ = ["Cluster", "Options", "running"]
