"""Imports py-consul without its synchronous transport, where nobody has imported that yet.

py-consul imports it for the name `consul.Consul` alone, which nobody uses here, and with it `requests`: 5 MiB of memory
and a twentieth of a second of start (measured with py-consul 1.8.0). Whoever imports `consul.std` later finds it whole.
"""

import sys
from types import ModuleType

_HIDDEN = "consul.std"

if "consul" not in sys.modules:
    sys.modules[_HIDDEN] = ModuleType(_HIDDEN)
    sys.modules[_HIDDEN].Consul = None  # type: ignore[attr-defined]
    try:
        import consul.base  # noqa: F401
    finally:
        del sys.modules[_HIDDEN]
