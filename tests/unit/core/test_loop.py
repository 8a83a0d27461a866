"""The loop as a whole, from what arrives to what is written and said; the real Consul and API server are elsewhere."""

import asyncio
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from consul_registrar.arrivals import pods_beside
from consul_registrar.changes import Cause, Deregister, Register
from consul_registrar.consul.errors import Denied, NotSent, Throttled
from consul_registrar.kube import Forbidden
from consul_registrar.kube import Throttled as KubeThrottled
from consul_registrar.model import META_TAGS, Health, Hidden, Key, Namespace
from consul_registrar.objects import ADOPT, FINALIZER, RESYNC, SKIP_DEREGISTRATION
from consul_registrar.probes import HttpProbe
from unit.core.build import KEY, NOW, body, instance, node, of_endpoints, of_pods, pod, reason
from unit.core.instant import elapsed, instantly
from unit.core.shell import World

HELD = {"finalizers": [FINALIZER]}
TAGS = {"enableTagOverride": True}


async def passes(seconds: float = 0.1) -> None:
    await asyncio.sleep(seconds)


def causes(world: World) -> list[Cause]:
    return [change.cause for change in world.consul.written]


@instantly
async def test_a_running_pod_is_registered_and_that_is_said() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        await passes(3)
    assert [(i.service, i.address) for i in world.consul.held] == [("web", "10.0.0.1")]
    assert world.cluster.ready == ("True", "Registered")


@instantly
async def test_what_is_true_already_is_not_written_again() -> None:
    world = World()
    async with world.running():
        key = world.apply(body(**HELD))
        world.run_pod(pod())
        await passes(3)
        before = len(world.cluster.statuses)
        for version in range(2, 5):
            world.run_pod(pod(version=version))
            await passes(3)
        world.reports.touch(key)
        await passes(3)
    assert causes(world) == [Cause.DESIRED]
    assert len(world.cluster.statuses) == before


@instantly
async def test_when_an_agent_is_ready_what_does_not_stand_yet_goes_first() -> None:
    world = World()
    order: list[str | None] = []

    async def note(key: Key) -> None:
        order.append(key.subject)

    async with world.running():
        world.apply(body(**HELD))
        for number in range(8):
            world.run_pod(pod(f"old-{number}"))
        await passes(3)
    for number in range(8):
        world.run_pod(pod(f"new-{number}"))
    world.queue.clear()
    pods_beside(world.cache, world.queue, world.consuls, "node-1")
    async with world._at_work(world.queue.run(note, 1)):
        await passes()
    assert set(order[:8]) == {f"uid-new-{number}" for number in range(8)}
    assert len(order) == 16


@instantly
async def test_a_terminating_pod_is_removed_without_asking_anybody() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        await passes()
        world.cluster.answers = False
        world.pods.put(pod(version=2, deleting=True))
        await passes()
    assert (causes(world), world.consul.held) == ([Cause.DESIRED, Cause.GONE], [])
    assert world.cluster.reads == 0


@pytest.mark.parametrize(
    "spec",
    [
        {"pods": {}},
        of_pods(consulRefs=[{"name": "default"}, {"name": "missing"}]),
    ],
)
@instantly
async def test_a_refused_registration_changes_nothing_but_leaves_no_ghost(spec: Any) -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        await passes()
        world.apply(body(spec, generation=4, **HELD))
        world.run_pod(pod(version=2, ready=False))
        await passes()
        assert causes(world) == [Cause.DESIRED]
        world.pods.remove(pod().uid)
        await passes()
    assert causes(world) == [Cause.DESIRED, Cause.GONE]


def asks(value: str) -> Any:
    return {"annotations": {RESYNC: value}}


@instantly
async def test_each_new_value_of_the_annotation_has_all_read_anew_and_is_echoed() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        await passes(3)
        assert "resync" not in world.cluster.statuses[-1][1]
        world.apply(body(**HELD, **asks("one")))
        await passes(3)
        assert (world.consul.rereads, len(world.doubts)) == (1, 1)
        assert world.cluster.statuses[-1][1]["resync"] == "one"
        world.apply(body(**HELD, **asks("one"), generation=4))
        await passes(3)
        assert world.consul.rereads == 1
        world.apply(body(**HELD, **asks("two"), generation=4))
        await passes(3)
        world.apply(body(**HELD, generation=4))
        await passes(3)
    assert (world.consul.rereads, world.cluster.statuses[-1][1]["resync"]) == (2, "two")
    assert causes(world) == [Cause.DESIRED]


@instantly
async def test_what_could_not_be_read_anew_is_tried_again_before_it_is_echoed() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        await passes(3)
        world.consul.unanswered = NotSent(reason("ConsulUnreachable"))
        world.apply(body(**HELD, **asks("one")))
        await passes(3)
        assert "resync" not in world.cluster.statuses[-1][1]
        world.consul.unanswered = None
        await passes(60)
    assert world.cluster.statuses[-1][1]["resync"] == "one"


@instantly
async def test_a_resync_that_waits_for_a_consul_reads_nothing_of_the_cluster_meanwhile() -> None:
    world = World(default={}, far={"connecting": True})
    async with world.running():
        world.apply(body(of_pods(consulRefs=[{"name": "default"}, {"name": "far"}]), **HELD, **asks("one")))
        await passes(600)
    assert world.doubts == []


@instantly
async def test_where_something_is_to_be_adopted_what_is_gone_does_not_wait_for_an_answer() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD, annotations={ADOPT: "true"}))
        world.run_pod(pod())
        await passes()
        world.consul.unanswered = NotSent(reason("NoLeader"))
        world.pods.put(pod(version=2, deleting=True))
        await passes()
    assert world.consul.held == []


@instantly
async def test_of_a_deleted_registration_nothing_is_remembered() -> None:
    world = World()
    async with world.running():
        for number in range(20):
            key = world.apply(body(**HELD, name=f"r-{number}"))
            await passes(0.1)
            world.registrations.remove(world.cache.registrations[key].meta.uid)
            world.reports.touch(key)
        await passes(60)
        left = (world.reports._again, world.reports._late, world.reports._busy, world.reports._complete)
    assert not any(left)


@instantly
async def test_what_was_read_anew_before_a_restart_is_not_again() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD, **asks("one"), status={"resync": "one"}))
        world.run_pod(pod())
        await passes(3)
    assert world.consul.rereads == 0
    assert world.cluster.statuses[-1][1]["resync"] == "one"


SECRETLY = {"name": "Authorization", "valueFrom": {"secretKeyRef": {"name": "probe", "key": "token"}}}
WITH_SECRET = of_pods(checks=[{"name": "health", "http": {"headers": [SECRETLY]}}])


def header_of(world: World) -> str:
    (one,) = world.consul.held
    (check,) = one.checks
    assert isinstance(check.probe, HttpProbe)
    return check.probe.headers[0][1]


@instantly
async def test_a_header_out_of_a_secret_follows_it_and_is_seen_nowhere(caplog: Any) -> None:
    caplog.set_level("DEBUG")
    world = World()
    reads = ("shop", "probe", "token")
    world.cluster.secrets[reads] = Hidden("s3cret-one", "uid/1")
    async with world.running():
        world.apply(body(WITH_SECRET, **HELD))
        for number in range(5):
            world.run_pod(pod(f"web-{number}"))
        await passes(3)
        assert world.cluster.secret_reads == 1
        for name in ("web-1", "web-2", "web-3", "web-4"):
            world.pods.remove(f"uid-{name}")
        await passes(1)
        assert header_of(world) == "s3cret-one"
        before = world.consul.held[0].meta
        world.cluster.secrets[reads] = Hidden("s3cret-two", "uid/2")
        await passes(40)
        assert header_of(world) == "s3cret-two"
        assert world.consul.held[0].meta != before
        world.cluster.secrets[reads] = reason("SecretUnreadable")
        await passes(40)
        assert header_of(world) == "s3cret-two"
        del world.cluster.secrets[reads]
        await passes(40)
    assert world.cluster.ready == ("False", "SecretNotFound")
    assert header_of(world) == "s3cret-two"
    assert "s3cret" not in f"{caplog.text}{world.cluster.statuses}{world.cluster.events}{world.consul.written}"


@instantly
async def test_who_leads_again_reads_secrets_anew() -> None:
    """Another process has led meanwhile, and has told Consul what they hold now."""
    world = World()
    world.cluster.secrets["shop", "probe", "token"] = Hidden("s3cret-one", "uid/1")
    async with world.running():
        world.apply(body(WITH_SECRET, **HELD))
        world.run_pod(pod())
        await passes(3)
    world.cluster.secrets["shop", "probe", "token"] = Hidden("s3cret-two", "uid/2")
    async with world.standing_by():
        await passes(3)
    async with world.running():
        await passes(3)
        assert header_of(world) == "s3cret-two"


@pytest.mark.parametrize("waits", [True, False])
@instantly
async def test_what_is_gone_does_not_wait_for_a_secret(waits: bool) -> None:
    """Whether its Pod goes while somebody waits for the Secret already, or before."""
    world = World()
    world.cluster.secrets["shop", "probe", "token"] = Hidden("s3cret-one", "uid/1")
    async with world.running():
        world.apply(body(WITH_SECRET, **HELD))
        world.run_pod(pod())
        world.run_pod(pod("web-2"))
        await passes(3)
    async with world.standing_by():
        await passes(3)
    read, answers = world.secrets._read, asyncio.Event()

    async def answers_late(namespace: str, name: str, key: str) -> Any:
        await answers.wait()
        return await read(namespace, name, key)

    world.secrets._read = answers_late
    async with world.running():
        await passes(1 if waits else 0)
        world.pods.put(pod(version=2, deleting=True))
        world.run_pod(pod("web-2", version=2, ready=False))
        await passes(1)
        assert [i.subject for i in world.consul.held] == ["uid-web-2"]
        answers.set()
        await passes(3)
        assert header_of(world) == "s3cret-one"
        assert world.consul.held[0].health is Health.CRITICAL
    assert world.cluster.ready == ("True", "Registered")


@instantly
async def test_a_secret_that_can_not_be_read_keeps_the_pods_out_and_is_asked_for_again() -> None:
    world = World()
    async with world.running():
        world.apply(body(WITH_SECRET, **HELD))
        world.run_pod(pod())
        await passes(3)
        assert (world.consul.held, world.cluster.ready) == ([], ("False", "SecretNotFound"))
        world.cluster.secrets["shop", "probe", "token"] = Hidden("s3cret", "uid/1")
        await passes(40)
        assert header_of(world) == "s3cret"
        world.apply(body(generation=4, **HELD))
        await passes(40)
        reads = world.cluster.secret_reads
        await passes(100)
    assert world.cluster.secret_reads == reads


ADOPTS = {"annotations": {ADOPT: "true"}}


@pytest.mark.parametrize(("metadata", "left"), [({}, 2), (ADOPTS, 1), ({"annotations": {ADOPT: "no"}}, 2)])
@instantly
async def test_what_is_nobodys_is_adopted_by_annotation_only(metadata: Any, left: int) -> None:
    world = World()
    async with world.running():
        world.apply(body(of_pods(deletionPolicy="Orphan"), **HELD))
        world.run_pod(pod())
        await passes()
        world.apply(body(of_pods(deletionPolicy="Orphan"), deletionTimestamp=NOW, **HELD))
        await passes(1)
        world.registrations.remove("uid-of-shop-web")
        await passes(1)
        assert [i.owner for i in world.consul.held] == [None]
        world.apply(body(uid="another", **HELD, **metadata))
        await passes(3)
    assert len(world.consul.held) == left
    assert sum(i.owner is not None for i in world.consul.held) == 1


@instantly
async def test_while_it_is_not_known_what_is_nobodys_nothing_is_registered_beside_it() -> None:
    world = World()
    async with world.running():
        world.consul.unanswered = NotSent(reason("ConsulUnreachable"))
        world.apply(body(**HELD, **ADOPTS))
        world.run_pod(pod())
        await passes(3)
        assert (causes(world), world.cluster.ready) == ([], ("False", "ConsulUnreachable"))
        world.consul.unanswered = None
        await passes(60)
    assert causes(world) == [Cause.DESIRED]


@instantly
async def test_a_suspended_registration_writes_nothing_at_all() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        await passes()
        world.apply(body(of_pods(suspend=True), generation=4, **HELD))
        world.pods.remove(pod().uid)
        await passes(3)
    assert (causes(world), len(world.consul.held)) == ([Cause.DESIRED], 1)
    assert world.cluster.ready == ("True", "Suspended")


@pytest.mark.parametrize(("exists", "removed"), [(True, False), (False, True)])
@instantly
async def test_a_pod_that_vanished_from_a_list_goes_only_if_a_fresh_read_confirms_it(
    exists: bool, removed: bool
) -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        await passes()
        if not exists:
            world.cluster.pods.clear()
        world.pods.vanished(pod().uid)
        await passes(1)
        assert (len(world.consul.held), world.cluster.reads) == (1, 0)
        await passes(1)
    assert (world.consul.held == []) is removed
    assert world.cluster.reads > 0
    assert bool(world.doubts) is exists
    assert world.consul.written[-1].evidence.confirmed == ("Pod absent, registration at 7" if removed else "")


@instantly
async def test_of_a_same_named_successor_the_old_instance_goes_and_the_new_one_stays() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        await passes()
        world.pods.vanished(pod().uid)
        world.run_pod(pod(uid="successor"))
        await passes(2)
    assert [i.subject for i in world.consul.held] == ["successor"]


@instantly
async def test_an_absence_that_cannot_be_confirmed_removes_nothing_until_it_can() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        await passes()
        world.cluster.answers = False
        world.cluster.pods.clear()
        world.pods.vanished(pod().uid)
        await passes(20)
        assert len(world.consul.held) == 1
        world.cluster.answers = True
        await passes(120)
    assert world.consul.held == []


@instantly
async def test_a_stale_cache_never_removes_a_pod_that_is_selected_in_truth() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        await passes()
        world.pods.put(pod(version=2, labels={"app": "db"}))
        await passes()
    assert causes(world) == [Cause.DESIRED]


@pytest.mark.parametrize(("policy", "held", "said"), [("Observe", 0, "Observed"), ("UpsertOnly", 1, "UpsertOnly")])
@instantly
async def test_a_policy_is_kept_and_said(policy: str, held: int, said: str) -> None:
    world = World(default={"policy": policy})
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        await passes()
        if held:
            world.pods.remove(pod().uid)
        await passes(3)
    assert len(world.consul.held) == held
    assert world.cluster.ready == ("False", said)


@instantly
async def test_one_consuls_trouble_is_its_own() -> None:
    world = World(default={}, far={})
    world.registries["far"].errors = [NotSent(reason("Refused"))] * 1000
    async with world.running():
        world.apply(body(of_pods(consulRefs=[{"name": "far"}, {"name": "default"}]), **HELD))
        world.run_pod(pod())
        await passes()
        assert len(world.consul.held) == 1
        await passes(3)
        assert world.cluster.ready == ("False", "Refused")
        world.registries["far"].errors.clear()
        await passes(120)
    assert len(world.registries["far"].held) == 1
    assert world.cluster.ready == ("True", "Registered")
    assert causes(world) == [Cause.DESIRED]


@pytest.mark.parametrize(
    ("error", "earliest"), [(Denied(reason("Denied")), 30.0), (Throttled(reason("Busy"), after=7.0), 7.0)]
)
@instantly
async def test_what_time_alone_does_not_mend_is_tried_later(error: Any, earliest: float) -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        await passes()
        world.consul.errors = [error]
        world.run_pod(pod())
        await passes(earliest - 1)
        assert world.consul.held == []
        await passes(3)
    assert len(world.consul.held) == 1


@instantly
async def test_a_bug_in_one_consul_is_said_and_retried() -> None:
    world = World(default={}, far={})
    world.registries["far"].place = None  # type: ignore[assignment, method-assign]
    async with world.running():
        world.apply(body(of_pods(consulRefs=[{"name": "far"}, {"name": "default"}]), **HELD))
        world.run_pod(pod())
        await passes(3)
    assert len(world.consul.held) == 1
    assert world.cluster.ready == ("False", "InternalError")


@pytest.mark.parametrize("broken", [0, 3])
@instantly
async def test_tags_that_an_older_version_did_not_note_are_written_with_the_first_edit_that_is_seen(
    broken: int,
) -> None:
    """At the start nothing tells an edit from what others have made of them."""
    world = World()
    made = instance(of_pods(service=TAGS | {"tags": ["v1"]}))
    older = replace(made, node="agent-1", tags=("theirs",), meta=tuple(p for p in made.meta if p[0] != META_TAGS))
    world.consul.consul.held[older.node, older.id] = older
    async with world.running():
        world.apply(body(of_pods(service=TAGS | {"tags": ["v1"]}), **HELD))
        world.run_pod(pod())
        await passes(3)
        assert world.consul.written == []
        world.consul.errors = [NotSent(reason("Refused"))] * broken
        world.apply(body(of_pods(service=TAGS | {"tags": ["v2"]}), generation=4, **HELD))
        await passes(30)
    (stands,) = world.consul.held
    assert (stands.tags, len(world.consul.written)) == (("v2",), 1)


@instantly
async def test_such_tags_that_are_edited_during_a_suspension_are_written_after_it() -> None:
    world = World()
    made = instance(of_pods(service=TAGS | {"tags": ["v1"]}))
    older = replace(made, node="agent-1", meta=tuple(p for p in made.meta if p[0] != META_TAGS))
    world.consul.consul.held[older.node, older.id] = older
    async with world.running():
        world.run_pod(pod())
        for generation, (tag, suspend) in enumerate([("v1", False), ("v1", True), ("v2", True), ("v2", False)], 3):
            spec = of_pods(service=TAGS | {"tags": [tag]}, suspend=suspend)
            world.apply(body(spec, generation=generation, **HELD))
            await passes(3)
    (stands,) = world.consul.held
    assert (stands.tags, len(world.consul.written)) == (("v2",), 1)


@instantly
async def test_while_an_agent_is_being_connected_nothing_is_done_or_said() -> None:
    world = World()
    world.consul.here = reason("AgentConnecting")
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        await passes(0.5)
        assert (world.consul.written, world.cluster.statuses) == ([], [])
        await passes(3)
    assert world.cluster.ready == ("Unknown", "Reconciling")


@instantly
async def test_who_waits_for_an_agent_looks_again_by_himself_and_seldom() -> None:
    """Should nobody tell that it is connected, or will never be."""
    world, asked = World(), []
    world.consul.here = reason("AgentConnecting")
    place = world.consul.place
    world.consul.place = lambda *about: asked.append(elapsed()) or place(*about)  # type: ignore[method-assign,func-returns-value]
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        await passes(300)
        assert len(asked) < 20
        world.consul.here = "agent-1"
        await passes(31)
    assert len(world.consul.held) == 1


@instantly
async def test_moving_to_another_consul_makes_before_it_breaks() -> None:
    world = World(default={}, far={})
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        await passes()
        world.apply(body(of_pods(consulRefs=[{"name": "far"}]), generation=4, **HELD))
        await passes(3)
    assert (len(world.consul.held), len(world.registries["far"].held)) == (0, 1)
    assert causes(world) == [Cause.DESIRED, Cause.UNSELECTED]


@instantly
async def test_leaving_a_consul_that_never_connected_does_not_keep_status_waiting() -> None:
    world = World(default={}, far={"connecting": True})
    async with world.running():
        world.apply(body(of_pods(consulRefs=[{"name": "far"}]), **HELD))
        world.run_pod(pod())
        await passes(3)
        world.apply(body(of_pods(consulRefs=[{"name": "default"}]), generation=4, **HELD))
        await passes(3)
        assert len(world.consul.held) == 1
        await passes(60)
    assert world.cluster.ready == ("True", "Registered")


# --- reaping --------------------------------------------------------------------------------------------------------

REAPING = of_pods(checks=[{"name": "a", "tcp": {}, "deregisterCriticalServiceAfter": "1m"}])


@instantly
async def test_what_its_agent_reaped_is_said_and_registered_again_after_a_minute() -> None:
    world = World()
    async with world.running():
        key = world.apply(body(REAPING, **HELD))
        world.run_pod(pod())
        await passes(3)
        world.consul.reap(pod().uid)
        world.pods.put(pod(version=2))
        await passes(55)
        assert (world.consul.held, world.cluster.ready) == ([], ("False", "Reaped"))
        assert len(world.cluster.statuses[-1][1]["reaped"]) == 1
        await passes(10)
    assert len(world.consul.held) == 1
    assert causes(world) == [Cause.DESIRED, Cause.REAPED]
    assert world.reports.outcome(key, "default", pod().uid) is not None


@instantly
async def test_what_its_agent_reaped_is_registered_at_once_when_the_pod_changes() -> None:
    world = World()
    async with world.running():
        world.apply(body(REAPING, **HELD))
        world.run_pod(pod())
        await passes(3)
        world.consul.reap(pod().uid)
        world.pods.put(pod(version=2))
        await passes(3)
        world.pods.put(pod(version=3, restarts=1))
        await passes(3)
    assert len(world.consul.held) == 1


@instantly
async def test_a_failed_write_is_no_second_reaping() -> None:
    world = World()
    async with world.running():
        world.apply(body(REAPING, **HELD))
        world.run_pod(pod())
        await passes(3)
        world.consul.reap(pod().uid)
        world.pods.put(pod(version=2))
        await passes(3)
        world.consul.errors = [NotSent(reason("Refused"))]
        await passes(62)
    assert len(world.consul.held) == 1


# --- a registration as a whole --------------------------------------------------------------------------------------


@instantly
async def test_the_finalizer_comes_before_it_is_needed_and_only_once() -> None:
    world = World()
    async with world.running():
        world.apply(body())
        await passes()
        world.apply(body(resourceVersion="8", **HELD))
        await passes()
    assert world.cluster.finalizers == ["added"]


@instantly
async def test_nothing_is_registered_before_the_finalizer_stands_and_all_is_at_once_when_it_does() -> None:
    world = World()
    async with world.running():
        world.cluster.takes_finalizers.clear()
        world.apply(body())
        world.run_pod(pod())
        await passes()
        world.run_pod(pod("web-2"))
        await passes(20)
        assert world.consul.written == []
        world.cluster.takes_finalizers.set()
        await passes(3)
    assert {i.subject for i in world.consul.held} == {"uid-web-1", "uid-web-2"}
    assert (world.cluster.finalizers, world.cluster.ready) == (["added"], ("True", "Registered"))


@instantly
async def test_a_registration_that_goes_before_its_finalizer_stands_leaves_nothing() -> None:
    world = World()
    async with world.running():
        world.cluster.takes_finalizers.clear()
        world.apply(body())
        world.run_pod(pod())
        await passes()
        world.cluster.registrations.clear()
        world.cluster.takes_finalizers.set()
        await passes(3)
        world.registrations.remove(body()["metadata"]["uid"])
        await passes(3)
    assert (world.consul.written, world.consul.held) == ([], [])


@instantly
async def test_a_finalizer_that_cannot_be_added_is_said_and_tried_again() -> None:
    world = World()
    async with world.running():
        world.cluster.finalizer_errors = [Forbidden("may not patch serviceregistrations")] * 8
        world.apply(body())
        world.run_pod(pod())
        await passes(4)
        assert (world.consul.written, world.cluster.ready) == ([], ("False", "FinalizerNotAdded"))
        await passes(60)
    assert (len(world.consul.held), world.cluster.ready) == (1, ("True", "Registered"))


@instantly
async def test_what_stands_is_kept_true_although_somebody_took_the_finalizer_away() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        for name in ("web-1", "web-2"):
            world.run_pod(pod(name))
        await passes()
        world.cluster.takes_finalizers.clear()
        world.apply(body(resourceVersion="9"))
        world.run_pod(pod("web-1", ready=False, version=9))
        world.pods.remove("uid-web-2")
        await passes()
        assert [(i.subject, i.health) for i in world.consul.held] == [("uid-web-1", Health.CRITICAL)]
        world.cluster.takes_finalizers.set()
        await passes(3)
    assert world.cluster.finalizers == ["added"]


@pytest.mark.parametrize("spec", [of_pods(suspend=True), of_pods()])
@instantly
async def test_who_may_write_nothing_is_counted_without_waiting_for_the_finalizer(spec: Any) -> None:
    world = World(default={} if spec.get("suspend") else {"policy": "Observe"})
    async with world.running():
        world.cluster.takes_finalizers.clear()
        world.apply(body(spec))
        world.run_pod(pod())
        await passes()
        assert [tally.summary().total.withheld for tally in world.reports.tallies().values()] == [1]


@instantly
async def test_a_deleted_registration_goes_when_nothing_of_it_stands() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        for name in ("web-1", "web-2"):
            world.run_pod(pod(name))
        await passes()
        world.apply(body(deletionTimestamp=NOW, **HELD))
        await passes(2)
    assert (world.consul.held, set(world.cluster.finalizers)) == ([], {"removed"})
    assert causes(world)[2:] == [Cause.REGISTRATION_DELETED] * 2


@pytest.mark.parametrize("spec", [of_pods(deletionPolicy="Orphan"), of_pods(suspend=True)])
@instantly
async def test_orphans_stay_owned_by_nobody(spec: Any) -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        await passes()
        world.apply(body(spec, generation=4, deletionTimestamp=NOW, **HELD))
        await passes(2)
    assert [i.owner for i in world.consul.held] == [None]
    assert "removed" in world.cluster.finalizers


@instantly
async def test_a_consul_that_cannot_be_cleaned_blocks_deletion_for_a_while_only() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        await passes()
        world.consul.ready, world.consul.errors = False, [NotSent(reason("Refused"))] * 10_000
        world.apply(body(deletionTimestamp=NOW, **HELD))
        await passes(5)
        assert world.cluster.finalizers == []
        assert world.cluster.ready == ("False", "DeregistrationBlocked")
        world.age = 601.0
        await passes(60)
    assert "removed" in world.cluster.finalizers


@pytest.mark.parametrize("refs", [["nowhere"], ["default", "nowhere"]])
@instantly
async def test_a_connection_that_does_not_exist_does_not_keep_what_names_it(refs: list[str]) -> None:
    world = World()
    spec = of_pods(consulRefs=[{"name": name} for name in refs])
    async with world.running():
        world.apply(body(of_pods(consulRefs=[{"name": refs[0]}]), **HELD))
        world.run_pod(pod())
        await passes()
        assert len(world.consul.held) == refs.count("default")
        world.apply(body(spec, generation=4, **HELD))
        await passes()
        world.apply(body(spec, generation=4, deletionTimestamp=NOW, **HELD))
        await passes(2)
    assert (world.consul.held, world.cluster.finalizers) == ([], ["removed"])


@instantly
async def test_a_connection_that_is_not_set_up_yet_keeps_what_names_it() -> None:
    world = World(default={}, far={"connecting": True})
    async with world.running():
        spec = of_pods(consulRefs=[{"name": "far"}])
        world.apply(body(spec, **HELD))
        await passes()
        world.apply(body(spec, deletionTimestamp=NOW, **HELD))
        await passes(5)
        assert world.cluster.finalizers == []
    assert world.cluster.ready == ("False", "DeregistrationBlocked")


@pytest.mark.parametrize("policy", ["Orphan", "Deregister"])
@instantly
async def test_what_was_deleted_long_ago_while_no_operator_ran_is_cleaned_before_it_goes(policy: str) -> None:
    """Else its instances were absences that nobody asked for: held, and removed whatever the policy says."""
    world = World()
    left: list[Any] = []

    async def remove(_: Any) -> None:
        left.append([i.owner for i in world.consul.held])

    world.cluster.remove = remove  # type: ignore[method-assign]
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        await passes()
        world.age, world.consul.ready = 3600.0, False
        world.apply(body(of_pods(deletionPolicy=policy), generation=4, deletionTimestamp=NOW, **HELD))
        await passes(20)
        assert left == []
        world.consul.ready = True
        world.reconsider()
        await passes(5)
    assert left[0] == ([None] if policy == "Orphan" else [])


@instantly
async def test_a_time_in_which_another_led_is_none_in_which_this_process_tried_to_clean() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        await passes()
        world.consul.ready = False
        world.apply(body(generation=4, deletionTimestamp=NOW, **HELD))
        await passes(20)
    async with world.standing_by():
        await passes(120)
    world.age = 3600.0
    async with world.running():
        await passes(20)
        assert "removed" not in world.cluster.finalizers
        await passes(60)
    assert "removed" in world.cluster.finalizers


@instantly
async def test_a_person_may_let_it_go_at_once() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        await passes()
        world.consul.ready, world.consul.errors = False, [NotSent(reason("Refused"))] * 10_000
        world.apply(body(deletionTimestamp=NOW, annotations={SKIP_DEREGISTRATION: ""}, **HELD))
        await passes(1)
    assert "removed" in world.cluster.finalizers


@instantly
async def test_a_registration_that_went_unseen_leaves_nothing_and_is_forgotten() -> None:
    world = World()
    async with world.running():
        key = world.apply(body(**HELD))
        world.run_pod(pod())
        await passes()
        world.cluster.registrations.clear()
        world.registrations.vanished(body()["metadata"]["uid"])
        await passes(40)
    assert (world.consul.held, causes(world)[-1]) == ([], Cause.VANISHED)
    assert key not in world.reports.tallies()


@instantly
async def test_an_edited_endpoint_list_adds_and_removes() -> None:
    one, two = ({"name": name, "address": f"{name}.example.com", "port": 1} for name in ("one", "two"))
    world = World()
    async with world.running():
        world.apply(body(of_endpoints(one), **HELD))
        await passes()
        world.apply(body(of_endpoints(two), generation=4, **HELD))
        await passes(3)
    assert [i.subject for i in world.consul.held] == ["two"]


@instantly
async def test_a_name_that_becomes_free_is_taken_by_the_next() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        young = world.apply(body(namespace="other", creationTimestamp=NOW, **HELD))
        world.run_pod(pod(namespace="other"))
        await passes()
        assert world.consul.held == []
        world.cluster.registrations.pop(KEY)
        world.registrations.remove(body()["metadata"]["uid"])
        await passes()
    assert [i.owner.key for i in world.consul.held if i.owner] == [young]


# --- the quarantine -------------------------------------------------------------------------------------------------


async def of_ten(world: World) -> None:
    world.apply(body(**HELD))
    for number in range(10):
        world.run_pod(pod(f"web-{number}"))
    await passes(3)


@instantly
async def test_many_that_vanish_at_once_are_held_and_that_is_said() -> None:
    world = World()
    async with world.running():
        await of_ten(world)
        world.cluster.pods.clear()
        for number in range(5):
            world.pods.vanished(pod(f"web-{number}").uid)
        await passes(10)
        assert len(world.consul.held) == 10
        assert world.cluster.ready == ("False", "RemovalHeld")
        assert ("RemovalHeld", True) in world.cluster.events
        assert world.quarantine.held("default").subjects == 5
        reads = world.cluster.reads
        await passes(200)
        assert (len(world.consul.held), world.cluster.reads) == (10, reads)
        await passes(300)
    assert len(world.consul.held) == 5
    assert world.cluster.ready == ("True", "Registered")


@instantly
async def test_what_is_held_and_comes_back_is_let_go_without_a_write() -> None:
    world = World()
    async with world.running():
        await of_ten(world)
        kept = dict(world.cluster.pods)
        world.cluster.pods.clear()
        for number in range(5):
            world.pods.vanished(pod(f"web-{number}").uid)
        await passes(10)
        for each in kept.values():
            world.run_pod(each)
        await passes(600)
    assert len(world.consul.written) == 10
    assert world.quarantine.held("default").subjects == 0
    assert world.cluster.ready == ("True", "Registered")


@instantly
async def test_a_wrong_list_is_found_out_by_reading_a_few_afresh() -> None:
    world = World()
    async with world.running():
        await of_ten(world)
        for number in range(10):
            world.pods.vanished(pod(f"web-{number}").uid)
        await passes(5)
        assert len(world.doubts) > 0
        assert world.cluster.reads <= 6
        assert len(world.consul.held) == 10


@instantly
async def test_pods_that_are_gone_are_never_held() -> None:
    world = World()
    async with world.running():
        await of_ten(world)
        for number in range(10):
            world.pods.remove(pod(f"web-{number}").uid)
        await passes(0.1)
    assert world.consul.held == []


@instantly
async def test_a_selector_that_would_take_all_is_held_and_its_correction_undoes_it() -> None:
    world = World()
    async with world.running():
        await of_ten(world)
        typo = of_pods(pods={"selector": {"matchLabels": {"app": "wbe"}}})
        world.apply(body(typo, generation=4, **HELD))
        await passes(100)
        assert len(world.consul.held) == 10
        assert world.cluster.ready == ("False", "RemovalHeld")
        world.apply(body(generation=5, **HELD))
        await passes(600)
    assert len(world.consul.written) == 10
    assert world.cluster.ready == ("True", "Registered")


@instantly
async def test_a_namespace_that_is_not_allowed_any_more_keeps_what_stands_and_is_looked_at_when_its_labels_change() -> (
    None
):
    world = World(default={"allowedNamespaces": {"selector": {"matchLabels": {"team": "a"}}}})
    async with world.running():
        world.namespaces.put(Namespace("uid", "shop", 1, {"team": "a"}))
        await of_ten(world)
        world.namespaces.put(Namespace("uid", "shop", 2, {}))
        await passes(3)
        assert world.cluster.ready == ("False", "NamespaceNotAllowed")
        world.pods.remove(pod("web-0").uid)
        await passes(3)
        assert len(world.consul.held) == 9
        world.namespaces.put(Namespace("uid", "shop", 3, {"team": "a"}))
        await passes(3)
    assert world.cluster.ready == ("True", "Registered")
    assert len(world.consul.written) == 11


@instantly
async def test_a_deleted_registration_of_many_is_not_held() -> None:
    world = World()
    async with world.running():
        await of_ten(world)
        world.apply(body(deletionTimestamp=NOW, generation=4, **HELD))
        await passes(1)
    assert world.consul.held == []
    assert world.cluster.finalizers[-1] == "removed"


@instantly
async def test_registrations_that_go_with_their_definition_let_go_at_once_and_what_they_left_is_held() -> None:
    world = World()
    async with world.running():
        await of_ten(world)
        world.cluster.defined = False
        world.apply(body(deletionTimestamp=NOW, generation=4, **HELD))
        await passes(1)
        assert world.cluster.finalizers[-1] == "removed"
        world.cluster.registrations.clear()
        world.registrations.remove(body()["metadata"]["uid"])
        await passes(100)
        assert len(world.consul.held) == 10
        world.cluster.defined = True
        world.apply(body(uid="made-again", **HELD))
        await passes(600)
    assert len(world.consul.written) == 10
    assert world.cluster.ready == ("True", "Registered")


@instantly
async def test_a_connection_that_releases_by_hand_holds_for_ever() -> None:
    world = World(default={"removalGuard": {"release": "Manual"}})
    async with world.running():
        await of_ten(world)
        world.cluster.pods.clear()
        for number in range(5):
            world.pods.vanished(pod(f"web-{number}").uid)
        await passes(100_000)
        assert len(world.consul.held) == 10
        for key in world.quarantine.approve("default", world.quarantine.held("default").digest):
            world.queue.add(key)
        await passes(5)
    assert len(world.consul.held) == 5


@instantly
async def test_each_consul_holds_for_itself() -> None:
    world = World(default={}, other={"removalGuard": {"share": 100}})
    async with world.running():
        both = of_pods(consulRefs=[{"name": "default"}, {"name": "other"}])
        world.apply(body(both, **HELD))
        for number in range(10):
            world.run_pod(pod(f"web-{number}"))
        await passes(3)
        world.cluster.pods.clear()
        for number in range(5):
            world.pods.vanished(pod(f"web-{number}").uid)
        await passes(10)
    assert [len(world.registries[name].held) for name in ("default", "other")] == [10, 5]


# --- status and Events ----------------------------------------------------------------------------------------------


@instantly
async def test_status_is_written_at_most_once_a_second() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        for i in range(30):
            world.run_pod(pod(f"web-{i}", ip=f"10.0.0.{i}"))
            await passes(0.1)
        await passes(3)
    times = [at for at, _ in world.cluster.statuses]
    assert all(later - earlier > 0.999 for earlier, later in pairwise(times))
    assert world.cluster.statuses[-1][1]["instances"]["summary"] == "30/30"


@instantly
async def test_events_come_on_change_only() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        await passes(3)
        for version in (1, 2):
            world.run_pod(pod(version=version))
            await passes(3)
        world.pods.put(pod(version=3, ready=False))
        await passes(3)
    assert world.cluster.events == [("NoPodsMatched", True), ("Registered", False)]


@instantly
async def test_a_status_that_was_not_written_is_written_later() -> None:
    world = World()
    async with world.running():
        world.cluster.answers = False
        world.apply(body(**HELD))
        await passes(5)
        assert world.cluster.statuses == []
        world.cluster.answers = True
        await passes(3)
    assert world.cluster.ready == ("True", "NoPodsMatched")


@pytest.mark.parametrize(("error", "most"), [(Forbidden("no"), 30), (KubeThrottled("later", 40.0), 5)])
@instantly
async def test_a_status_that_is_refused_is_tried_ever_less_often_and_not_before_it_may(error: Any, most: int) -> None:
    world, tried = World(), list[float]()
    write = world.cluster.write

    async def refuse(*_: Any) -> None:
        tried.append(elapsed())
        raise error

    async with world.running():
        world.cluster.write = refuse  # type: ignore[method-assign]
        world.apply(body(**HELD))
        await passes(120)
        assert 2 <= len(tried) <= most
        world.cluster.write = write  # type: ignore[method-assign]
        await passes(41)
        assert world.cluster.ready == ("True", "NoPodsMatched")
        world.run_pod(pod())
        await passes(3)
    assert world.cluster.ready == ("True", "Registered")


@instantly
async def test_a_restart_says_nothing_that_was_said_before() -> None:
    world, after = World(), World()
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        await passes(3)
    after.consul.consul = world.consul.consul
    async with after.running():
        after.apply(body(status=world.cluster.statuses[-1][1], **HELD))
        after.run_pod(pod())
        await passes(3)
    assert (after.consul.written, after.cluster.statuses, after.cluster.events) == ([], [], [])


@pytest.mark.parametrize("seen", [True, False])
@instantly
async def test_of_one_that_was_made_again_under_its_name_nothing_is_said_that_was_true_of_the_other(seen: bool) -> None:
    """Whether or not its deletion was seen: it has the same generation as the other had."""
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        await passes(3)
        assert world.cluster.ready == ("True", "Registered")
        world.cluster.statuses.clear()
        world.consul.errors = [NotSent(reason("Refused"))] * 8
        if seen:
            world.registrations.remove(body()["metadata"]["uid"])
        world.apply(body(of_pods(service={"name": "another"}), uid="another", **HELD))
        await passes(0.5)
        assert [status for _, status in world.cluster.statuses if "Registered" in str(status["conditions"][0])] == []
        await passes(60)
    assert world.cluster.ready == ("True", "Registered")


@instantly
async def test_a_restart_says_nothing_before_all_outcomes_are_known() -> None:
    """What was asked for before the registration was looked at (a Consul that connects does) must not be said yet."""
    world, after = World(), World()
    pods = [pod(f"web-{number}") for number in range(3)]
    async with world.running():
        world.apply(body(**HELD))
        for one in pods:
            world.run_pod(one)
        await passes(3)
    after.consul.consul = world.consul.consul
    after.consul.here = reason("AgentConnecting")
    async with after.running():
        key = after.apply(body(status=world.cluster.statuses[-1][1], **HELD))
        for one in pods:
            after.run_pod(one)
        after.reports.touch(key)
        await passes(3)
        after.consul.here = "agent-1"
        for one in pods:
            after.queue.add(Key(key, one.uid))
            await passes(3)
    assert (after.consul.written, after.cluster.statuses, after.cluster.events) == ([], [], [])


# --- nodes ----------------------------------------------------------------------------------------------------------

ZONED = of_pods(service={"tags": ["$(node.metadata.labels['zone']:-nowhere)"]})


@instantly
async def test_a_nodes_new_label_reaches_its_pods() -> None:
    world = World()
    async with world.running():
        world.nodes.put(node())
        world.apply(body(ZONED, **HELD))
        world.run_pod(pod())
        await passes()
        world.nodes.put(node(labels={"zone": "z1"}, version=2))
        await passes()
    assert [i.tags for i in world.consul.held] == [("z1",)]


@instantly
async def test_a_node_that_is_seen_after_its_pods_reaches_them() -> None:
    world = World()
    async with world.running():
        world.apply(body(ZONED, **HELD))
        world.run_pod(pod())
        await passes()
        world.nodes.put(node(labels={"zone": "z1"}))
        await passes()
    assert [i.tags for i in world.consul.held] == [("z1",)]


@instantly
async def test_a_crash_between_two_writes_is_made_good() -> None:
    world = World()
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        await passes()
        (held,) = world.consul.held
    after = World()
    after.consul.consul = world.consul.consul
    async with after.running():
        after.apply(body(of_pods(service={"name": "renamed"}), generation=4, **HELD))
        after.run_pod(pod())
        await passes()
    assert [type(change) for change in after.consul.written] == [Register, Deregister]
    assert [i.service for i in after.consul.held] == ["renamed"]
    assert held.service == "web"


@instantly
async def test_statuses_are_written_a_few_at_a_time() -> None:
    world, open_, under_way, most = World(), asyncio.Event(), 0, 0

    async def write(_found: Any, _wanted: Any) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await open_.wait()
        under_way -= 1

    world.cluster.write = write  # type: ignore[method-assign]
    async with world.running():
        for number in range(30):
            world.apply(body(name=f"web-{number}", **HELD))
        await passes(1)
        assert 0 < most < 10
        open_.set()
        await passes(3)
        assert under_way == 0


@instantly
async def test_a_crowd_of_subjects_goes_before_statuses() -> None:
    world = World()
    world.crowded = True
    async with world.running():
        world.apply(body(**HELD))
        world.run_pod(pod())
        await passes(3)
        assert causes(world) == [Cause.DESIRED]
        assert world.cluster.statuses == []
        world.crowded = False
        await passes(1)
        assert world.cluster.ready == ("True", "Registered")
    assert len(world.cluster.statuses) == 1


@instantly
async def test_a_crowd_that_lasts_does_not_keep_everything_unsaid() -> None:
    world = World()
    world.crowded = True
    async with world.running():
        for name in ("one", "two"):
            world.apply(body(name=name, **HELD))
        world.run_pod(pod())
        await passes(7)
        said = [at for at, _ in world.cluster.statuses]
    assert len(said) == 2
    assert said[1] - said[0] < 1
