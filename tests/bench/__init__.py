"""What the operator costs and how fast it is: every budget of the design, measured on real parts.

Run by `make bench`, never by `make test`. Start reading at `__main__.py`; `catalog.py` and `agents.py` hold the
measurements, everything else is what they need. All is seen from outside: what the API server sends, what Consul
answers, what the kernel counts for the process. Nothing here imports the operator.
"""
