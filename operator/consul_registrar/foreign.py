"""What others hold in a Consul under the name that a registration publishes there, and what is said of it.

Whoever asks Consul for a name gets all that stands under it. So a registration says what it joins: instances that
nobody's operator has registered (VMs, what was made by hand, what consul-k8s has synchronised, orphans). That is no
fault, and changes nothing else. Nothing is said of what an operator of another cluster, or of another connection, has
registered: to publish one service from several clusters is what they share a Consul for, and each of them would say so
of the other for ever. When to look is decided in `outlook.py`, what counts as nobody's in `consul/strangers.py`.
"""

from collections.abc import Sequence

from consul_registrar.conditions import FOREIGN, Picture, says
from consul_registrar.model import Reason
from consul_registrar.objects import Json, Registration

Edition = tuple[object, ...]
_SHOWN = 3


def joins(connection: str, service: str, places: Sequence[tuple[str, str]]) -> Reason | None:
    """What is said of instances that are nobody's (names of their Consul nodes, with IDs); None: there are none."""
    if not places:
        return None
    nodes = sorted({node for node, _ in places})
    on = ", ".join(nodes[:_SHOWN]) + (f" and {len(nodes) - _SHOWN} more nodes" if len(nodes) > _SHOWN else "")
    what = "1 instance" if len(places) == 1 else f"{len(places)} instances"
    message = (
        f"Consul {connection!r} holds {what} of {service!r} that no operator has registered (on {on}): callers get "
        "them beside this registration's; where that isn't meant, choose another spec.service.name, or remove them"
    )
    return Reason("JoinsForeignInstances", message)


def published(picture: Picture) -> list[str]:
    """The Consuls in which a registration publishes its name, or would if nothing kept it from writing.

    A name that field paths make isn't looked up: that would cost a question for each Pod.
    """
    registration = picture.registration
    if registration.names_each or registration.deleting or picture.refused or picture.blocked or picture.awaited:
        return []
    counts = picture.summary.consuls
    there = (name for name in registration.connections if name not in picture.down)
    return [name for name in there if name in counts and counts[name].desired]


def told(status: Json, connection: str) -> tuple[str, str] | None:
    """Status and reason of the condition in a registration's status, None where nothing is said of this Consul."""
    entry = next((one for one in status.get("consuls") or () if one["name"] == connection), None)
    return says(entry, FOREIGN) if entry else None


def edition(registration: Registration) -> Edition:
    """What has to change for another look: what it publishes where, the object, or what somebody asks for."""
    asked = (registration.resync, registration.adopts)
    return registration.meta.uid, registration.service, registration.connections, asked
