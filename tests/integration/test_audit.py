"""The audit log against Consul's own account: every change of ours has one line, every line that says so one change."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from change_observer import Observer, observing
from operator_world import EXAMPLES, Operator, World, eventually, pod, registration

from devcluster import Cluster

CONNECTIONS = "/apis/consul-registrar.dev/v1alpha1/consulconnections"
CONFIRMED = {"vanished", "unselected", "registration-deleted"}


@pytest.fixture(scope="module")
def catalog(cluster: Cluster) -> Iterator[list[str]]:
    """The example connection in mode Catalog; its Consul nodes."""
    text = (EXAMPLES / "01-connection-catalog.yaml").read_text()
    cluster.kubectl("apply", "-f", "-", stdin=text.replace("http://127.0.0.1:8500", cluster.consul.http_addr))
    yield [f"test-catalog-0{number}" for number in range(4)]
    cluster.kubectl("delete", "cconn", "catalog", "--timeout=180s")


@pytest.fixture(params=["default", "catalog"])
def book(
    request: pytest.FixtureRequest, world: World, operator: Operator, cluster: Cluster, catalog: list[str]
) -> Iterator["Book"]:
    nodes = {"default": list(cluster.nodes), "catalog": catalog}[request.param]
    with observing(cluster, nodes) as observer:
        yield Book(world, operator, observer, request.param)


class Book:
    """The lines of one connection and namespace, beside what the observer sees."""

    def __init__(self, world: World, operator: Operator, observer: Observer, connection: str) -> None:
        self.world, self.operator, self.observer, self.connection = world, operator, observer, connection
        self.foreign: dict[str, set[int]] = {}
        self.undone: Counter[str] = Counter()
        self._read = len(self.lines())

    def lines(self) -> list[dict]:
        told = [json.loads(line) for line in self.operator.log.splitlines() if line.startswith('{"time"')]
        return [
            line
            for line in told
            if line.get("connection") == self.connection
            and line.get("registration", "").startswith(f"{self.world.namespace}/")
        ]

    def says(self, expected: dict[tuple[str, str], int]) -> list[dict]:
        """Wait for these new lines, by operation and cause; each says that it was applied, and by which evidence."""

        def look() -> list[dict]:
            new = self.lines()[self._read :]
            assert Counter((line["operation"], line["cause"]) for line in new) == expected, new
            return new

        new = eventually(look)
        self._read += len(new)
        for line in new:
            assert line["outcome"] == "applied"
            assert line["batch"] >= 1
            assert bool(line.get("confirmed")) is (line["cause"] in CONFIRMED)
        self.agrees()
        return new

    def agrees(self) -> None:
        """Wait until the lines are, instance by instance, what Consul has seen change."""

        def look() -> None:
            lines = self.lines()
            for instance in {line["instance"] for line in lines}:
                ours = Counter(line["operation"] for line in lines if line["instance"] == instance)
                changed = self.observer.changed(instance) - self.foreign.get(instance, set())
                written = self.observer.services.get(instance, set()) & changed
                removed = self.observer.removed[instance] - self.undone[instance]
                account = (instance, ours, changed, removed)
                assert ours["register"] + ours["feed"] == len(changed), account
                assert ours["register"] >= len(written), account
                assert ours["deregister"] == removed, account
                assert ours["drop-check"] == self.observer.dropped[instance], account

        eventually(look)

    def all_of_it(self) -> None:
        """Nothing else of this namespace has changed in Consul than what has a line."""
        named = {line["instance"] for line in self.lines()}
        seen = self.observer.services.keys() | self.observer.removed.keys()
        assert {instance for instance in seen if instance.startswith(f"{self.world.namespace}-")} <= named

    @contextmanager
    def behind_its_back(self, instance: str) -> Iterator[None]:
        """What others do to an instance while the operator is paused is theirs."""
        known = self.observer.changed(instance)
        removed = self.observer.removed[instance]
        self.operator.process.pause()
        try:
            yield
            eventually(lambda: self.observer.changed(instance) - known or self.observer.removed[instance] > removed)
            self.foreign.setdefault(instance, set()).update(self.observer.changed(instance) - known)
            self.undone[instance] += self.observer.removed[instance] - removed
        finally:
            self.operator.process.resume()

    # what others do in Consul

    def remove(self, row: dict) -> None:
        if self.connection == "default":
            agent = self.world.cluster.consul.agents[row["Node"]]
            agent.request("PUT", f"/v1/agent/service/deregister/{row['ServiceID']}")
            return
        what = {"Node": row["Node"], "ServiceID": row["ServiceID"]}
        self.world.cluster.consul.server.request("PUT", "/v1/catalog/deregister", what)

    def put(self, row: dict, **fields: object) -> None:
        """Write a service as the catalog shows it, with other fields."""
        service = {"ID": row["ServiceID"], "Port": row["ServicePort"], "Address": row["ServiceAddress"]}
        service |= {"Tags": row["ServiceTags"], "Meta": row["ServiceMeta"], **fields}
        name = row["ServiceName"]
        if self.connection == "default":
            agent = self.world.cluster.consul.agents[row["Node"]]
            agent.request("PUT", "/v1/agent/service/register", service | {"Name": name})
            return
        what = {"Node": row["Node"], "Address": row["Address"], "SkipNodeUpdate": True}
        body = what | {"Service": service | {"Service": name}}
        self.world.cluster.consul.server.request("PUT", "/v1/catalog/register", body)


def of_ready_pods(world: World, app: str, count: int) -> None:
    names = [f"{app}-{number}" for number in range(count)]
    world.apply(*(pod(name, app) for name in names))
    world.kubectl("wait", "--for=condition=Ready", "--timeout=180s", *(f"pod/{name}" for name in names))


def test_lines_and_changes_are_the_same_one_to_one(book: Book) -> None:
    world, refs = book.world, [{"name": book.connection}]
    app = f"audited-{book.connection}"
    of_ready_pods(world, app, 3)

    world.apply(registration(app, consulRefs=refs))
    for line in book.says({("register", "desired"): 3}):
        found = world.pods(app)[line["pod"]]["metadata"]
        assert (line["podUid"], line["resourceVersion"]) == (found["uid"], found["resourceVersion"])
        assert line["registration"] == f"{world.namespace}/{app}"

    world.apply(pod(f"{app}-late", app, ready="false"))
    book.says({("register", "desired"): 1})
    world.annotate(f"{app}-late", ready=None)
    book.says({("feed", "readiness"): 1})

    world.patch(app, {"service": {"tags": ["edited"]}})
    book.says({("register", "edited"): 4})

    row = world.catalog(app)[f"{app}-0"]
    with book.behind_its_back(row["ServiceID"]):
        book.remove(row)
    book.says({("register", "drift"): 1})

    row = world.catalog(app)[f"{app}-1"]
    with book.behind_its_back(row["ServiceID"]):
        book.put(row, Port=1)
    book.says({("register", "drift"): 1})

    ghost = "ghost-of-nobody"
    meta = row["ServiceMeta"] | {"k8s-pod": ghost, "k8s-pod-uid": ghost}
    with book.behind_its_back(ghost):
        book.put(row, ID=ghost, Meta=meta)
    [line] = book.says({("deregister", "vanished"): 1})
    assert line["instance"] == ghost
    assert line["confirmed"].startswith("Pod absent, registration at ")

    world.kubectl("label", "--overwrite", "pod", f"{app}-2", "app=other")
    [line] = book.says({("deregister", "unselected"): 1})
    assert line["confirmed"].startswith("Pod at ")

    world.kubectl("delete", "pod", f"{app}-late", "--wait=false")
    [line] = book.says({("deregister", "gone"): 1})
    assert line["pod"] == f"{app}-late"

    world.patch(app, {"service": {"name": f"{app}-renamed"}})
    book.says({("register", "desired"): 2, ("deregister", "replaced"): 2})

    world.kubectl("delete", "sreg", app)
    book.says({("deregister", "registration-deleted"): 2})
    book.all_of_it()


def test_what_is_orphaned_has_a_line_too(book: Book) -> None:
    world, app = book.world, f"left-{book.connection}"
    of_ready_pods(world, app, 1)
    world.apply(registration(app, consulRefs=[{"name": book.connection}], deletionPolicy="Orphan"))
    book.says({("register", "desired"): 1})
    world.kubectl("delete", "sreg", app)
    book.says({("register", "orphaned"): 1})
    book.all_of_it()
    book.remove(world.catalog(app)[f"{app}-0"])
