"""Decides which process runs which test file, where several do; starting them and collecting results is xdist's.

A cluster takes both cores for seconds to start, and something of them as long as it runs. It is shared by the tests
under one `conftest.py`. So whole files are given out, and each process keeps to the clusters that it has.
"""

import os
from functools import cache
from pathlib import Path

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

ROOT = Path(__file__).parents[1]
WORKERS_PER_CORE = 2
"""For most of the time a test waits: for periods of Consul and Kubernetes, and to see that nothing happens."""
WORKERS_AT_MOST = 6
"""The processes of the clusters of each hold up to 2 GiB."""


def workers() -> int:
    """How many processes run tests, unless the caller says it."""
    return min(WORKERS_PER_CORE * (os.cpu_count() or 1), WORKERS_AT_MOST)


class LoadByCluster(LoadFileScheduling):
    """Gives a process the next file whose cluster it has; without one, a file whose cluster nobody has; else any.

    The files with most tests come first.
    """

    def _assign_work_unit(self, node: WorkerController) -> None:
        started = {worker: set(map(_cluster, files)) for worker, files in self.assigned_work.items()}
        mine, anybodys = started.get(node, set()), set().union(*started.values())
        file = min(self.workqueue, key=lambda file: (_cluster(file) not in mine, _cluster(file) in anybodys))
        self.workqueue.move_to_end(file, last=False)
        super()._assign_work_unit(node)


@cache
def _cluster(file: str) -> Path:
    """The folder of the `conftest.py` that is next to a file: the cluster is made there."""
    return next(folder for folder in Path(file).parents if (ROOT / folder / "conftest.py").exists())
