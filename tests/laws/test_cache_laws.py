"""The cache's indexes answer what a scan of everything would, after whatever changes; the same for names' holders."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from consul_registrar.acceptance import NameBook
from consul_registrar.cache import Cache
from consul_registrar.model import Pod, Reason, RegistrationKey
from consul_registrar.objects import Registration
from consul_registrar.selectors import selects
from unit.core.build import pod, registration

SELECTORS: Any = st.sampled_from(
    [
        {"matchLabels": {"app": "web"}},
        {"matchLabels": {"app": "web", "env": "x"}},
        {"matchLabels": {"env": "x"}, "matchExpressions": [{"key": "app", "operator": "Exists"}]},
        {"matchExpressions": [{"key": "env", "operator": "NotIn", "values": ["x"]}]},
        {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]},
    ]
)
SPECS = (
    SELECTORS.map(lambda selector: {"pods": {"selector": selector}})
    | st.just({"endpoints": [{"name": "a", "address": "b", "port": 1}]})
    | st.just({"pods": {}})
)
NAMESPACES, NAMES = st.sampled_from(["a", "b"]), st.sampled_from(["web", "db", "x"])
UIDS = st.sampled_from([f"uid-{i}" for i in range(6)])
LABELS = st.fixed_dictionaries({}, optional={"app": st.sampled_from(["web", "db"]), "env": st.sampled_from(["x", "y"])})


def takes(found: Registration, candidate: Pod) -> bool:
    if isinstance(found.spec, Reason) or found.spec.pods is None or found.key.namespace != candidate.namespace:
        return False
    return selects(found.spec.pods.selector, candidate.labels)


class Caches(RuleBasedStateMachine):
    """A cache beside plain dictionaries of the same objects."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = Cache()
        self.pods: dict[str, Pod] = {}
        self.registrations: dict[RegistrationKey, Registration] = {}  # malformed ones as they were before

    def taking(self, candidate: Pod | None) -> set[RegistrationKey]:
        return {k for k, found in self.registrations.items() if candidate is not None and takes(found, candidate)}

    @rule(uid=UIDS, labels=LABELS, node=st.sampled_from(["node-0", "node-1"]))
    def put_pod(self, uid: str, labels: dict[str, str], node: str) -> None:
        before = self.pods.get(uid)
        new = pod(uid, uid=uid, namespace="ab"[int(uid[-1]) % 2], labels=labels, node=node)
        self.pods[uid] = new
        assert self.cache.put_pod(new) == self.taking(before) | self.taking(new)

    @rule(uid=UIDS)
    def delete_pod(self, uid: str) -> None:
        before = self.pods.pop(uid, None)
        assert self.cache.delete_pod(uid) == self.taking(before)
        assert before is None or (seen := self.cache.pod(uid)) is None or seen.gone

    @rule(uid=UIDS)
    def forget_pod(self, uid: str) -> None:
        assert self.cache.forget_pod(uid) == self.taking(self.pods.pop(uid, None))

    @rule(namespace=NAMESPACES, name=NAMES, spec=SPECS)
    def put_registration(self, namespace: str, name: str, spec: Any) -> None:
        new = registration(spec, namespace=namespace, name=name)
        if not isinstance(new.spec, Reason):
            self.registrations[new.key] = new
        self.cache.put_registration(new)

    @rule(namespace=NAMESPACES, name=NAMES)
    def remove_registration(self, namespace: str, name: str) -> None:
        key = RegistrationKey(namespace, name)
        self.registrations.pop(key, None)
        self.cache.remove_registration(key)

    @invariant()
    def answers_like_a_scan(self) -> None:
        assert self.cache.pods() == self.pods
        for name in ("node-0", "node-1", "nowhere"):
            assert {each.uid for each in self.cache.pods_on(name)} == {
                u for u, p in self.pods.items() if p.node == name
            }
        for each in self.pods.values():
            assert self.cache.selecting(each) == self.taking(each)
        for key, found in self.registrations.items():
            assert self.cache.selected(key) == {uid for uid, each in self.pods.items() if takes(found, each)}


class Names(RuleBasedStateMachine):
    """A book of names beside a plain dictionary of registrations."""

    def __init__(self) -> None:
        super().__init__()
        self.book = NameBook()
        self.registrations: dict[RegistrationKey, Registration] = {}

    def holders(self) -> dict[tuple[str, str], RegistrationKey]:
        found: dict[tuple[str, str], RegistrationKey] = {}
        for key, each in sorted(self.registrations.items(), key=lambda item: (item[1].meta.created, item[0])):
            for connection in each.connections:
                found.setdefault((connection, each.service.lower()), key)
        return found

    def concerned(self, before: dict[tuple[str, str], RegistrationKey], touched: set[RegistrationKey]) -> None:
        """Whoever claims a name that has another holder now must be told; to be told in vain does no harm."""
        for claim in before.items() ^ self.holders().items():
            (connection, service), _ = claim
            for key, each in self.registrations.items():
                if connection in each.connections and each.service.lower() == service and key != self.changed:
                    assert key in touched

    @rule(
        namespace=NAMESPACES,
        name=NAMES,
        service=st.sampled_from(["s", "t", "S"]),
        refs=st.sets(st.sampled_from(["default", "far"]), min_size=1),
        created=st.sampled_from("123"),
    )
    def put(self, namespace: str, name: str, service: str, refs: set[str], created: str) -> None:
        spec = {"pods": {"selector": {"matchLabels": {"a": "b"}}}, "service": {"name": service}}
        wanted = spec | {"consulRefs": [{"name": ref} for ref in sorted(refs)]}
        new = registration(wanted, namespace=namespace, name=name, creationTimestamp=created)
        before, self.changed = self.holders(), new.key
        self.registrations[new.key] = new
        self.concerned(before, self.book.put(new))

    @rule(namespace=NAMESPACES, name=NAMES)
    def remove(self, namespace: str, name: str) -> None:
        before, self.changed = self.holders(), RegistrationKey(namespace, name)
        self.registrations.pop(self.changed, None)
        self.concerned(before, self.book.remove(self.changed))

    @invariant()
    def holds_like_a_scan(self) -> None:
        found = self.holders()
        for connection in ("default", "far"):
            for service in ("s", "t"):
                assert next(iter(self.book.holders(connection, service)), None) == found.get((connection, service))


TestCaches = Caches.TestCase
TestCaches.settings = settings(max_examples=50, stateful_step_count=25)
TestNames = Names.TestCase
TestNames.settings = settings(max_examples=50, stateful_step_count=25)
