"""By which names the status page may be asked for.

There is no login, so a foreign site must not read the page through the browser of somebody who reaches it. DNS
rebinding does that: the site's own name is made to lead to the page's address, and to the browser both are one site.
But then the request names that site in `Host`. Let in are names that nobody can rebind: addresses, what only a resolver
inside a cluster or a machine knows, and what the operator's flags name.
"""

from collections.abc import Set as AbstractSet
from ipaddress import ip_address
from urllib.parse import urlsplit

_INSIDE = (".localhost", ".svc", ".svc.cluster.local")


def is_ours(host: str, named: AbstractSet[str]) -> bool:
    """Whether a `Host` header is a name of the page's own. `named`: those that were given, in lower case."""
    name = _name(host)
    return bool(name) and ("." not in name or name.endswith(_INSIDE) or name in named or _is_address(name))


def _name(host: str) -> str:
    """Without port and trailing dot; "" where it is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
