"""Decides which Consul can be given named ports, and what it means when one can't; pure.

Consul knows them from 1.22 on. An older one refuses the field, unless only the servers behind an agent are older: those
drop it without a word.
"""

import re

from consul_registrar.consul.errors import Invalid
from consul_registrar.model import Instance, Reason

SINCE = (1, 22)


def refuse_unknown(instance: Instance, version: str) -> None:
    """Raises Invalid where a Consul of this version ("": unknown) can't be given the instance as it is."""
    told = re.match(r"(\d+)\.(\d+)", version)
    if instance.ports and told is not None and tuple(map(int, told.groups())) < SINCE:
        raise unsupported(f"this Consul is {version}")


def explained(error: Invalid) -> Invalid:
    """What the refusal of an instance with named ports says, in words that help."""
    return unsupported(error.reason.message) if "unknown field" in error.reason.message else error


def unsupported(why: str) -> Invalid:
    """Why an instance with named ports isn't written."""
    message = f"spec.service.ports: named ports are known to Consul {SINCE[0]}.{SINCE[1]} and later, and {why}"
    return Invalid(Reason("NamedPortsUnsupported", message))
