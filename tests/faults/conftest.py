"""Fixtures of the fault tests: one cluster for the session, one operator between proxies for each module."""

import json
from collections import Counter
from collections.abc import Iterator

import pytest
from coverage_table import RUNS, known_runs, merged
from fault_world import Arena, Count, playing, shop
from hanging import Hang
from operator_world import truth

from devcluster import Cluster, Options, running
from killpoints import Oracle, explain, watching


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes, each with a Consul agent."""
    with running(Options(nodes=2), tmp_path_factory.mktemp("cluster") / "state") as one:
        yield one


@pytest.fixture(scope="module")
def seer(cluster: Cluster) -> Iterator[Oracle]:
    with watching(truth(cluster)) as oracle:
        yield oracle


@pytest.fixture(scope="module")
def all_of_it(cluster: Cluster, seer: Oracle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with playing(cluster, seer, tmp_path_factory.mktemp("operator")) as arena:
        yield arena


@pytest.fixture
def arena(all_of_it: Arena) -> Iterator[Arena]:
    """The operator runs and leads, and there is no fault; after the test nothing was removed wrongly."""
    arena = all_of_it
    arena.network.heal()
    arena.network.journal.clear()
    arena.oracle.left.clear()
    said = len(arena.operator.log)
    if not arena.operator.process.is_alive():
        arena.restart()
    yield arena
    arena.network.heal()
    assert not arena.oracle.wrong, explain(arena.oracle.wrong)
    assert "InternalError" not in arena.operator.log[said:]


@pytest.fixture
def hang(arena: Arena, request: pytest.FixtureRequest) -> Iterator[Hang]:
    """A service of three Pods that stand, and where its writes are to hang; the parameter is <mode>-<where>."""
    mode, where = request.param.split("-")
    with shop(arena, mode) as web:
        web.open("web", 3)
        web.settled()
        yield Hang(web, where)


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Count:
    """Counts the runs of a test that plays many, for COVERAGE.md."""
    return lambda runs: request.node.user_properties.append(("runs", runs))


def pytest_runtest_setup(item: pytest.Item) -> None:
    item.user_properties += [("goal", mark.args[0]) for mark in item.iter_markers("goal")]


_runs: Counter[str] = Counter()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count what passed: as many runs as the test says, else one."""
    properties = report.user_properties
    if report.when == "call" and report.passed and any(name == "goal" for name, _ in properties):
        test = report.nodeid.split("/")[-1].split("[")[0]
        _runs[test] += sum(int(str(value)) for name, value in properties if name == "runs") or 1


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Keep the numbers for COVERAGE.md. A selection never lowers what a session of all has counted.

    Where several processes run the tests, the reports of all come to the one that started them.
    """
    if hasattr(session.config, "workerinput"):
        return
    options = session.config.option
    selected = options.markexpr or options.keyword or any("::" in path for path in session.config.args)
    if _runs:
        RUNS.parent.mkdir(exist_ok=True)
        played = exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}
        whole = played and not (selected or session.shouldstop or session.shouldfail)
        RUNS.write_text(json.dumps(merged(known_runs(), _runs, whole=whole), indent=1))
