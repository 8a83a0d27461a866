"""Imports kopf without the `kubernetes` package, where nobody has imported that yet.

kopf imports it, if it is installed, for two type checks that never matter here: 19 MB of memory and a second of start
(measured with kubernetes 37). It is needed for the plugins of a kubeconfig alone, and imported there (`login.py`).
"""

import sys

_HIDDEN = "kubernetes"

if _HIDDEN not in sys.modules:
    sys.modules[_HIDDEN] = None  # type: ignore[assignment] # makes its import an ImportError, by Python's own rule
    try:
        import kopf  # noqa: F401
    finally:
        del sys.modules[_HIDDEN]
