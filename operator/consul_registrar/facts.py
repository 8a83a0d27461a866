"""What is known of one subject of a registration, for one Consul: gathered by `gather.py`, judged by `desired.py`."""

from dataclasses import field

from consul_registrar.checks import Secrets
from consul_registrar.model import Instance, Node, Owner, Pod, Reason, RegistrationKey
from consul_registrar.objects import Registration
from consul_registrar.services import Exposed
from consul_registrar.terms import CheckTerms
from consul_registrar.values import record


@record(frozen=True, slots=True)
class Rival:
    """Another registration that has to do with the same subject in the same Consul (`rivals.py`).

    `since`: what orders registrations by age. `publishes`: it publishes what this one would, or is going to;
    `stands`: it does; `covers`: it does all that stands of this one.
    """

    key: RegistrationKey
    since: tuple[str, str]
    older: bool
    publishes: bool
    stands: bool
    covers: bool


@record(frozen=True, slots=True)
class Facts:
    """Everything that is known about one subject of a registration, for one Consul.

    `registration` is None where none exists (any more). `place` is the Consul node to stand on, or why there is none.
    `standing` is what this owner has in Consul for the subject now; `strangers`: what is nobody's and may be adopted.
    `name_taken`: why the name that field paths have made is not its own. `exposed`: the Service, for one address of it.
    `heartbeat`: the ID of what an instance hangs on (`dead_man.py`), "" for nothing.
    `unwritable`: Consul has refused for good just what it wants.
    """

    owner: Owner
    subject: str
    registration: Registration | None
    refused: Reason | None
    pod: Pod | None
    node: Node | None
    place: str | Reason
    standing: tuple[Instance, ...]
    rivals: tuple[Rival, ...] = ()
    strangers: tuple[Instance, ...] = ()
    name_taken: Reason | None = None
    secrets: Secrets = field(default_factory=dict)
    check_terms: CheckTerms | None = None
    exposed: Exposed | None = None
    heartbeat: str = ""
    unwritable: bool = False
