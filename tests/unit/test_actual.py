"""Laws of what one Consul is held to contain: reads and acknowledged writes in any order."""

from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st

from consul_registrar.actual import Actual
from consul_registrar.model import (
    MANAGED_BY,
    META_CLUSTER,
    META_CONNECTION,
    META_MANAGED_BY,
    META_NAMESPACE,
    META_POD_UID,
    META_REGISTRATION,
    Instance,
    Key,
    RegistrationKey,
)

WEB = RegistrationKey("shop", "web")


def instance(instance_id: str, port: int = 1, *, node: str = "n", connection: str = "c", **meta: str) -> Instance:
    own = {
        META_MANAGED_BY: MANAGED_BY,
        META_CLUSTER: "tests",
        META_CONNECTION: connection,
        META_NAMESPACE: WEB.namespace,
        META_REGISTRATION: WEB.name,
        META_POD_UID: f"uid-{instance_id}",
    }
    return Instance(node, instance_id, "web", "10.0.0.1", port, meta=tuple(sorted((own | meta).items())))


def key(instance_id: str) -> Key:
    return Key(WEB, f"uid-{instance_id}")


def test_a_read_replaces_what_was_known_and_tells_what_changed():
    actual = Actual("tests", "c")
    assert actual.replace("n", [instance("a"), instance("b")], actual.begin()) == {key("a"), key("b"), Key(WEB)}
    assert actual.replace("n", [instance("b", 2)], actual.begin()) == {key("a"), key("b")}
    assert actual.instances(WEB, "uid-a") == ()
    assert actual.instances(WEB, "uid-b") == (instance("b", 2),)
    assert actual.replace("n", [instance("b", 2)], actual.begin()) == frozenset()


def test_a_read_says_nothing_of_other_nodes():
    actual = Actual("tests", "c")
    actual.put(instance("a", node="m"))
    actual.replace("n", [instance("b")], actual.begin())
    assert actual.subjects(WEB) == {"uid-a", "uid-b"}
    assert len(actual) == 2


def test_a_read_begun_before_an_acknowledgement_does_not_undo_it():
    actual = Actual("tests", "c")
    actual.put(instance("old"))
    began = actual.begin()
    actual.put(instance("new"))
    actual.remove("n", "old")
    assert actual.replace("n", [instance("old")], began) == frozenset()
    assert actual.subjects(WEB) == {"uid-new"}


def test_a_read_begun_after_an_acknowledgement_does():
    actual = Actual("tests", "c")
    actual.put(instance("a"))
    assert actual.replace("n", [], actual.begin()) == {key("a")}


def test_a_read_that_was_overtaken_changes_nothing():
    actual = Actual("tests", "c")
    early = actual.begin()
    actual.put(instance("a"))
    actual.replace("n", [instance("a", 2)], actual.begin())
    assert actual.replace("n", [], early) == frozenset()
    assert actual.instances(WEB, "uid-a") == (instance("a", 2),)


def test_what_is_foreign_is_never_kept():
    actual = Actual("tests", "c")
    foreign = [instance("a", connection="other"), replace(instance("b"), meta=())]
    assert actual.replace("n", foreign, actual.begin()) == frozenset()
    assert actual.put(foreign[0]) == frozenset()
    assert len(actual) == 0


def test_an_instance_written_without_owner_is_no_longer_ours():
    actual = Actual("tests", "c")
    actual.put(instance("a"))
    assert actual.put(replace(instance("a"), meta=())) == {key("a")}
    assert actual.registrations() == set()


def test_a_node_can_be_forgotten():
    actual = Actual("tests", "c")
    actual.put(instance("a"))
    actual.put(instance("b", node="m"))
    assert actual.forget("n") == {key("a")}
    assert actual.subjects(WEB) == {"uid-b"}


@dataclass
class World:
    """A Consul node, and reads of it in flight: each saw it at some moment after it began."""

    truth: dict[str, Instance] = field(default_factory=dict)
    reads: list[tuple[int, list[Instance]]] = field(default_factory=list)


IDS = st.sampled_from("abc")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), IDS, st.integers(1, 3)),
        st.tuples(st.just("remove"), IDS, st.just(0)),
        st.tuples(st.just("edited"), IDS, st.integers(4, 6)),
        st.tuples(st.just("lost"), IDS, st.just(0)),
        st.tuples(st.just("read"), st.just(""), st.just(0)),
        st.tuples(st.just("answer"), st.just(""), st.integers(0, 3)),
    ),
    max_size=30,
)


def step(world: World, actual: Actual, what: str, instance_id: str, number: int) -> None:
    match what:
        case "put":
            world.truth[instance_id] = instance(instance_id, number)
            actual.put(world.truth[instance_id])
        case "remove":
            world.truth.pop(instance_id, None)
            actual.remove("n", instance_id)
        case "edited":
            world.truth[instance_id] = instance(instance_id, number)
        case "lost":
            world.truth.pop(instance_id, None)
        case "read":
            world.reads.append((actual.begin(), list(world.truth.values())))
        case "answer" if world.reads:
            began, seen = world.reads.pop(number % len(world.reads))
            actual.replace("n", seen, began)


@given(STEPS)
def test_after_a_quiet_read_it_is_the_truth(steps):
    """Whatever came before, and however late older reads are answered."""
    world, actual = World(), Actual("tests", "c")
    for each in steps:
        step(world, actual, *each)
    step(world, actual, "read", "", 0)
    for began, seen in reversed(world.reads):
        actual.replace("n", seen, began)
    assert {i.id: i for i in actual.on_node("n")} == world.truth


@given(STEPS)
def test_our_own_writes_are_never_contradicted_by_older_reads(steps):
    """What was acknowledged stands until a read that began afterwards is answered."""
    world, actual = World(), Actual("tests", "c")
    standing: dict[str, tuple[int, Instance | None]] = {}
    for what, instance_id, number in steps:
        before = {began for began, _ in world.reads}
        step(world, actual, what, instance_id, number)
        for began in before - {began for began, _ in world.reads}:
            standing = {i: (at, written) for i, (at, written) in standing.items() if at > began}
        if what in {"put", "remove"}:
            standing[instance_id] = (actual.begin(), world.truth.get(instance_id))
        for each, (_, written) in standing.items():
            assert actual.get("n", each) == written


@given(STEPS)
def test_the_indexes_agree(steps):
    world, actual = World(), Actual("tests", "c")
    for each in steps:
        step(world, actual, *each)
    everything = {i for s in actual.subjects(WEB) for i in actual.instances(WEB, s)}
    assert everything == set(actual.on_node("n"))
    assert len(actual) == len(everything)
    assert actual.registrations() == ({WEB} if everything else set())


@given(STEPS)
def test_every_difference_is_told(steps):
    """The keys that a step returns are exactly those whose instances differ."""
    world, actual = World(), Actual("tests", "c")
    for what, instance_id, number in steps:
        before = {s: actual.instances(WEB, s) for s in actual.subjects(WEB)}
        told: frozenset[Key] = frozenset()
        if what == "answer" and world.reads:
            began, seen = world.reads.pop(number % len(world.reads))
            told = actual.replace("n", seen, began)
        elif what == "put":
            world.truth[instance_id] = instance(instance_id, number)
            told = actual.put(world.truth[instance_id])
        elif what == "remove":
            world.truth.pop(instance_id, None)
            told = actual.remove("n", instance_id)
        else:
            step(world, actual, what, instance_id, number)
        after = {s: actual.instances(WEB, s) for s in actual.subjects(WEB)}
        differ = {Key(WEB, s) for s in before.keys() | after.keys() if before.get(s) != after.get(s)}
        assert {k for k in told if k.subject is not None} == differ
