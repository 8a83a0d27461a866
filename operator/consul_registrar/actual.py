"""Decides what one Consul is held to contain of ours: what was read last, with our acknowledged writes laid over it.

Pure and the same for every mode; who reads and writes is `consul/`'s concern. A read shows the state of some moment
after it began. So a complete read of a node replaces all that was known of it, save the instances whose write or
removal was acknowledged after the read began: of these our own knowledge is newer. Sequence numbers, not clocks, tell
what came first. One changed instance costs O(1), a read of a node O(instances of that node).
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

from consul_registrar.model import Instance, Key, RegistrationKey

Place = tuple[str, str]
"""The Consul node and the instance's ID: what names an instance in one Consul."""


class Actual:
    """Our instances in one Consul: those whose owner is `cluster` and `connection`. Foreign ones are never kept."""

    def __init__(self, cluster: str, connection: str) -> None:
        self._whose = (cluster, connection)
        self._clock = 0
        self._nodes: dict[str, dict[str, Instance]] = {}
        self._subjects: dict[RegistrationKey, dict[str, dict[Place, Instance]]] = {}
        self._acknowledged: dict[str, dict[str, int]] = {}
        self._taken: dict[str, int] = {}

    def __len__(self) -> int:
        return sum(len(instances) for instances in self._nodes.values())

    def begin(self) -> int:
        """The number that a read must carry which begins now; no two reads have the same."""
        self._clock += 1
        return self._clock

    def taken(self, node: str) -> int:
        """The number of the last read of a node that was taken in; 0: none was."""
        return self._taken.get(node, 0)

    def written_since(self, node: str, instance_id: str, began: int) -> bool:
        """Whether our own knowledge of the instance is newer than a read that began at `began`."""
        return self._acknowledged.get(node, {}).get(instance_id, 0) > began

    def get(self, node: str, instance_id: str) -> Instance | None:
        return self._nodes.get(node, {}).get(instance_id)

    def on_node(self, node: str) -> tuple[Instance, ...]:
        """Everything of ours on one Consul node."""
        return tuple(self._nodes.get(node, {}).values())

    def instances(self, registration: RegistrationKey, subject: str) -> tuple[Instance, ...]:
        """What the registration owns for one subject, on any node."""
        return tuple(self._subjects.get(registration, {}).get(subject, {}).values())

    def subjects(self, registration: RegistrationKey) -> AbstractSet[str]:
        """The subjects for which the registration owns something."""
        return self._subjects.get(registration, {}).keys()

    def registrations(self) -> AbstractSet[RegistrationKey]:
        """The registrations that own something."""
        return self._subjects.keys()

    def put(self, instance: Instance) -> frozenset[Key]:
        """Consul acknowledged that it holds the instance. One that is no longer ours counts as removed."""
        self._acknowledge(instance.node, instance.id)
        return self._place(instance.node, instance.id, instance if self._is_ours(instance) else None)

    def revise(self, instance: Instance) -> frozenset[Key]:
        """What is held is to be seen otherwise; nothing was acknowledged. Returns the keys whose state changed."""
        return self._place(instance.node, instance.id, instance)

    def remove(self, node: str, instance_id: str) -> frozenset[Key]:
        """Consul acknowledged that it no longer holds the instance."""
        self._acknowledge(node, instance_id)
        return self._place(node, instance_id, None)

    def replace(self, node: str, instances: Iterable[Instance], began: int) -> frozenset[Key]:
        """Take in a complete read of one node; returns the keys whose state changed.

        A read that began before one that was taken in already is stale as a whole, and changes nothing.
        """
        if began < self._taken.get(node, 0):
            return frozenset()
        self._taken[node] = began
        known = self._nodes.get(node, {})
        read = {i.id: i for i in instances if i.node == node and (i is known.get(i.id) or self._is_ours(i))}
        changed: set[Key] = set()
        for instance_id in read.keys() | known.keys():
            if not self.written_since(node, instance_id, began):
                changed |= self._place(node, instance_id, read.get(instance_id))
        self._settle(node, began)
        return frozenset(changed)

    def forget(self, node: str) -> frozenset[Key]:
        """The node is none of this Consul's any more: drop what was known of it."""
        changed: set[Key] = set()
        for instance_id in tuple(self._nodes.get(node, {})):
            changed |= self._place(node, instance_id, None)
        self._acknowledged.pop(node, None)
        self._taken.pop(node, None)
        return frozenset(changed)

    def _is_ours(self, instance: Instance) -> bool:
        owner = instance.owner
        return owner is not None and (owner.cluster, owner.connection) == self._whose

    def _acknowledge(self, node: str, instance_id: str) -> None:
        self._clock += 1
        self._acknowledged.setdefault(node, {})[instance_id] = self._clock

    def _settle(self, node: str, began: int) -> None:
        """Every later read of the node begins no earlier: acknowledgements before it have done their work."""
        kept = {i: at for i, at in self._acknowledged.get(node, {}).items() if at > began}
        if kept:
            self._acknowledged[node] = kept
        else:
            self._acknowledged.pop(node, None)

    def _place(self, node: str, instance_id: str, new: Instance | None) -> frozenset[Key]:
        """Exchange one instance in every index; returns the keys that see a difference."""
        old = self.get(node, instance_id)
        if old == new:
            return frozenset()
        known = old.owner.key if old is not None and old.owner is not None else None
        changed: set[Key] = set()
        if old is not None:
            changed.add(self._unlink(old))
        if new is not None:
            changed |= self._link(new)
        return frozenset(changed - {Key(known)} if known is not None else changed)

    def _link(self, new: Instance) -> set[Key]:
        """Returns its key, and that of its registration where it is the first of it."""
        owner = new.owner
        assert owner is not None
        found = set() if owner.key in self._subjects else {Key(owner.key)}
        self._nodes.setdefault(new.node, {})[new.id] = new
        self._subjects.setdefault(owner.key, {}).setdefault(new.subject, {})[new.node, new.id] = new
        return found | {Key(owner.key, new.subject)}

    def _unlink(self, old: Instance) -> Key:
        """Empty folders go too: what is left is what owns something."""
        owner = old.owner
        assert owner is not None
        instances = self._nodes[old.node]
        del instances[old.id]
        if not instances:
            del self._nodes[old.node]
        subjects = self._subjects[owner.key]
        del subjects[old.subject][old.node, old.id]
        if not subjects[old.subject]:
            del subjects[old.subject]
        if not subjects:
            del self._subjects[owner.key]
        return Key(owner.key, old.subject)
