"""Imports aiohttp without the certificates of the system's authorities, where nobody has imported that yet.

aiohttp reads them while it is imported, twice, into contexts for those who bring none of their own. Here whoever speaks
TLS does (`kube/client.py`, `consul/tls.py`), so they are never used: 2 MiB of memory and a thirtieth of a second of
start (measured with aiohttp 3.14). Whoever used them all the same would trust nobody.
"""

import os
import sys

_NOTHING = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}

if "aiohttp" not in sys.modules:
    _before = {name: os.environ[name] for name in _NOTHING if name in os.environ}
    os.environ.update(_NOTHING)
    try:
        import aiohttp  # noqa: F401
    finally:
        for name in _NOTHING:
            del os.environ[name]
        os.environ.update(_before)
