"""The demo: a real cluster, a real Consul and the operator, step by step, each step proved before the next.

`make demo` runs `python -m demo up`, `make demo-down` runs `python -m demo down`. Start reading at `story.py`.
"""
