"""Decides who an agent is: one agent, always the same one, of the right datacenter; else nothing may be written to it.

An address behind which several agents answer is a load balancer: a registration that goes to one of them and its
removal that goes to another would leave a ghost. What follows from an agent's identity is `session.py`'s decision.
"""

from consul_registrar.consul import wire
from consul_registrar.consul.errors import ConsulError, Misdirected
from consul_registrar.consul.transport import Endpoint, Transport
from consul_registrar.consul.wire import Identity
from consul_registrar.model import Reason
from consul_registrar.together import results

ASKED = 6
"""How often an address is asked who it is, each time over a connection of its own: two agents behind one address that
takes turns are always noticed, with one that chooses at random in 31 of 32 cases."""


async def identify(transport: Transport, datacenter: str) -> Identity:
    """Who answers at an address. Raises `Misdirected` where that is no single agent of the `datacenter` ("": any)."""
    identity = await ask(transport)
    told = await results(_ask_afresh(transport) for _ in range(ASKED - 1))
    for answer in told:
        if isinstance(answer, ConsulError):
            raise answer
    names = {answer.node for answer in told if isinstance(answer, Identity)} | {identity.node}
    if len(names) > 1:
        raise Misdirected(load_balanced(transport.endpoint, f"answers as {', '.join(sorted(names))}"))
    _refuse_datacenter(transport.endpoint, identity.datacenter, datacenter)
    return identity


async def ask(transport: Transport) -> Identity:
    """Who answers now. Raises the tree of `errors.py`."""
    return await transport.get(wire.decode_self, "/v1/agent/self")


async def still_the_same(transport: Transport, before: Identity) -> None:
    """Raises `Misdirected` for another agent. One that lost its data has lost its ID too."""
    now = await ask(transport)
    if (now.node, now.node_id) != (before.node, before.node_id):
        raise Misdirected(
            replaced(transport.endpoint, f"{before.node} ({before.node_id})", f"{now.node} ({now.node_id})")
        )


async def _ask_afresh(transport: Transport) -> Identity | ConsulError:
    fresh = transport.fresh()
    try:
        return await ask(fresh)
    except ConsulError as error:
        return error
    finally:
        await fresh.close()


def _refuse_datacenter(endpoint: Endpoint, found: str, wanted: str) -> None:
    if wanted and found != wanted:
        message = (
            f"the agent at {endpoint} is of datacenter {found!r}, the connection names {wanted!r}: nothing is written "
            "to it"
        )
        raise Misdirected(Reason("DatacenterMismatch", message))


def load_balanced(endpoint: Endpoint, what: str) -> Reason:
    """Why an address that isn't one agent's is refused."""
    message = f"{endpoint} {what}: behind it is a load balancer; name the address of one agent. Nothing is written"
    return Reason("AddressIsLoadBalanced", message)


def replaced(endpoint: Endpoint, before: str, now: str) -> Reason:
    """That another agent answers at an address than before."""
    return Reason("AgentReplaced", f"the agent at {endpoint} was {before} and is {now} now: it is read from the start")
