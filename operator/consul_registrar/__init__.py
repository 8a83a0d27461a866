"""An operator that keeps Consul's catalog true to Kubernetes.

Read `reconcile.py` first: it tells the whole story. Data flows one way:
gather -> desired -> plan -> confirm -> write -> report.
"""

__version__ = "0.1.0"
