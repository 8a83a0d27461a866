"""All tests: over how many processes they are spread, and how."""

import pytest
from xdist.remote import Producer

from spread import LoadByCluster, workers


def pytest_xdist_auto_num_workers() -> int:
    return workers()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadByCluster | None:
    """In the place of `--dist=loadfile`."""
    return LoadByCluster(config, log) if config.getoption("dist") == "loadfile" else None
