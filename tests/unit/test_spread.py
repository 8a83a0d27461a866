"""Which process runs which file: of the fewest clusters, and to the end."""

from types import SimpleNamespace

import pytest

from spread import LoadByCluster

FILES = {
    "tests/chart/test_values.py": 9,
    "tests/faults/test_slow.py": 7,
    "tests/integration/scenarios/test_article.py": 6,
    "tests/integration/test_fields.py": 5,
    "tests/integration/test_several.py": 4,
}
TESTS = [f"{file}::test_{number}" for file, tests in FILES.items() for number in range(tests)]


class Worker:
    """In the place of a process; `done` is how far it has come."""

    def __init__(self) -> None:
        self.gateway = SimpleNamespace(id="a process")
        self.shutting_down = False
        self.given: list[int] = []
        self.done = 0

    def send_runtest_some(self, indices: list[int]) -> None:
        self.given += indices

    def shutdown(self) -> None:
        self.shutting_down = True

    @property
    def files(self) -> list[str]:
        return list(dict.fromkeys(TESTS[index].partition("::")[0] for index in self.given))


@pytest.fixture
def spread(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> tuple[LoadByCluster, list[Worker]]:
    """Two processes have said which tests there are, and have been given the first."""
    monkeypatch.setattr(pytestconfig.option, "tx", ["2*popen"])
    monkeypatch.setattr(pytestconfig.option, "loadscopereorder", True)
    made, workers = LoadByCluster(pytestconfig), [Worker(), Worker()]
    for worker in workers:
        made.add_node(worker)
    for worker in workers:
        made.add_node_collection(worker, TESTS)
    made.schedule()
    return made, workers


def run_one(made: LoadByCluster, worker: Worker) -> None:
    made.mark_test_complete(worker, worker.given[worker.done])
    worker.done += 1


def run_all(made: LoadByCluster, worker: Worker) -> None:
    """What it was given, and what it is given meanwhile, until there is nothing more."""
    while worker.done < len(worker.given):
        run_one(made, worker)


def test_each_process_begins_with_a_cluster_of_its_own(spread) -> None:
    _, (one, other) = spread
    assert one.files == ["tests/chart/test_values.py"]
    assert other.files == ["tests/faults/test_slow.py"]


def test_what_nobody_has_begun_comes_next_and_then_what_shares_its_cluster(spread) -> None:
    made, (one, _) = spread
    run_all(made, one)
    assert one.files[1:] == [
        "tests/integration/scenarios/test_article.py",
        "tests/integration/test_fields.py",
        "tests/integration/test_several.py",
    ]


def test_who_has_nothing_left_of_its_own_takes_of_the_others(spread) -> None:
    made, (one, other) = spread
    while len(one.files) == 1:
        run_one(made, one)
    run_all(made, other)
    assert other.files[1:] == ["tests/integration/test_fields.py", "tests/integration/test_several.py"]


def test_every_test_is_given_once(spread) -> None:
    made, workers = spread
    for worker in workers:
        run_all(made, worker)
    assert sorted(index for worker in workers for index in worker.given) == list(range(len(TESTS)))
    assert made.tests_finished
