"""Which instances hang on the heartbeat, and what that changes of them."""

from typing import Any

import pytest

from consul_registrar.changes import Cause, DropCheck, Register
from consul_registrar.dead_man import follows, heartbeat_id
from consul_registrar.desired import Orphaned, Present
from consul_registrar.model import META_HASH, Health
from consul_registrar.plan import plan
from consul_registrar.probes import AliasProbe
from unit.core.build import instance, of_endpoint, of_pods, present

HEARTBEAT = heartbeat_id("prod", "default")
TCP = {"name": "port", "tcp": {}}
READY = {"name": "ready", "readiness": {}}
DRAINS = {"pods": {"selector": {"matchLabels": {"app": "web"}}, "onTermination": "Critical"}}


@pytest.mark.parametrize(
    ("spec", "hangs"),
    [
        (of_pods(), True),
        (of_pods(checks=[READY, TCP]), True),
        (of_pods(checks=[TCP]), False),
        (of_pods(checks=[]), False),
        (DRAINS | {"checks": [TCP]}, True),
    ],
    ids=["by default", "among others", "probed", "no checks", "draining"],
)
def test_an_instance_hangs_on_it_where_the_operator_says_how_it_is(spec: Any, hangs: bool) -> None:
    plain, hanging = instance(spec), instance(spec, heartbeat=HEARTBEAT)
    assert hanging.checks[: len(plain.checks)] == plain.checks
    more = hanging.checks[len(plain.checks) :]
    assert [(check.probe, check.status) for check in more] == [(AliasProbe(HEARTBEAT, ""), Health.PASSING)] * hangs
    assert (hanging == plain) is not hangs


def test_an_endpoint_that_agents_probe_does_not() -> None:
    assert present(of_endpoint(heartbeat=HEARTBEAT)) == present(of_endpoint())


def test_what_hangs_on_it_is_told_apart_by_the_ids_of_its_checks() -> None:
    assert [follows(check.id) for check in instance(heartbeat=HEARTBEAT).checks] == [False, True]


def test_each_connection_of_each_cluster_has_one_of_its_own() -> None:
    assert len({heartbeat_id(*whose) for whose in (("a", "bc"), ("ab", "c"), ("a", "b"))}) == 3


def test_switching_it_off_drops_its_check_and_switching_it_on_is_an_edit() -> None:
    plain, hanging = instance(), instance(heartbeat=HEARTBEAT)
    assert plain.meta_value(META_HASH) != hanging.meta_value(META_HASH)
    off = plan(Present(plain), (hanging,))
    assert [type(change) for change in off] == [Register, DropCheck]
    (on,) = plan(Present(hanging), (plain,))
    assert isinstance(on, Register)
    assert plan(Present(hanging), (hanging,)) == ()


def test_what_is_orphaned_no_longer_hangs_on_it() -> None:
    hanging = instance(heartbeat=HEARTBEAT)
    dropped, orphaned = plan(Orphaned(), (hanging,))
    assert dropped == DropCheck(hanging, hanging.checks[-1].id, Cause.ORPHANED)
    assert isinstance(orphaned, Register)
    assert orphaned.instance.owner is None
