"""The status page of the real operator: what it says is what Consul and the API server hold."""

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from operator_world import Operator, World, connection, deployment, eventually, operating, pod, registration

from devcluster import Cluster
from devcluster.net import choose_port

PLANTED = "planted-5ecret-f00d"


class Page:
    """The page of one operator."""

    def __init__(self, address: str) -> None:
        self._url = f"http://{address}"

    def text(self, path: str = "/") -> str:
        with urllib.request.urlopen(f"{self._url}{path}", timeout=5) as answer:
            return answer.read().decode()

    def told(self, path: str = "overview") -> Any:
        return json.loads(self.text(f"/api/{path}"))

    def row(self, world: World, name: str) -> dict[str, Any]:
        rows = self.told(f"overview?q={world.namespace}/")["registrations"]
        found: dict[str, Any] = next(one for one in rows if one["name"] == name)
        return found

    def said(self, path: str = "/") -> str:
        """The page's words, one space between them."""
        return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", self.text(path)))


def _address(cluster: Cluster) -> str:
    return f"{cluster.block.control_plane}:{choose_port(cluster.block.control_plane, 8081)}"


@pytest.fixture(scope="module")
def address(cluster: Cluster) -> str:
    return _address(cluster)


@pytest.fixture(scope="module")
def operator(cluster: Cluster, address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    with operating(cluster, tmp_path_factory.mktemp("operator"), f"--status-page-address={address}") as one:
        yield one


@pytest.fixture
def page(operator: Operator, address: str) -> Page:
    return Page(address)


def test_it_says_what_stands_in_consul_and_what_status_says(world: World, page: Page) -> None:
    world.apply(deployment("web", 3), registration("web"))
    rows = world.passing("web", 3)

    def look() -> None:
        row = page.row(world, "web")
        condition = world.condition("web")
        assert (row["state"], row["reason"], row["message"]) == ("good", "Registered", condition["message"])
        assert row["since"] == condition["lastTransitionTime"]
        assert (row["counts"]["registered"], row["counts"]["passing"]) == (3, 3)

    eventually(look)
    detail = page.told(f"registrations/{world.namespace}/web")
    stands = {
        (name, row["Service"]["Address"], row["Service"]["Port"], row["Node"]["Node"]) for name, row in rows.items()
    }
    assert {(one["name"], one["address"], one["port"], one["node"]) for one in detail["instances"]} == stands
    assert {one["subject"] for one in detail["changes"] if one["operation"] == "register"} == rows.keys()
    text = page.said(f"/registrations/{world.namespace}/web")
    for name, address, port, node in stands:
        for word in (name, f"{address}:{port}", node):
            assert word in text
    assert "3 of 3 instances registered, 3 passing" in text


def test_it_says_why_a_pod_is_not_registered_and_which_is_unhealthy(world: World, page: Page) -> None:
    world.apply(deployment("web", 2), registration("web", service={"port": "admin"}))
    world.says("web", "PortNotFound")
    eventually(lambda: page.row(world, "web")["state"] == "bad")

    def named() -> set[str]:
        return {one["subject"] for one in page.told(f"registrations/{world.namespace}/web")["problems"]}

    eventually(lambda: len(named()) == 2 and named() == world.pods("web").keys())
    assert "container port 'admin' is not declared" in page.text(f"/registrations/{world.namespace}/web").replace(
        "&#x27;", "'"
    )
    world.apply(pod("weak", "lone"), registration("lone"))
    world.passing("lone", 1)
    world.annotate("weak", ready="false")
    eventually(lambda: page.row(world, "lone")["state"] == "unhealthy")
    assert [one["health"] for one in page.told(f"registrations/{world.namespace}/lone")["instances"]] == ["critical"]


def test_what_has_gone_is_not_told_of(world: World, page: Page) -> None:
    world.apply(deployment("web", 1), registration("web"))
    world.passing("web", 1)
    world.kubectl("delete", "sreg", "web", "--timeout=180s")
    eventually(lambda: not page.told(f"overview?q={world.namespace}/")["registrations"])
    with pytest.raises(urllib.error.HTTPError, match="404"):
        page.text(f"/registrations/{world.namespace}/web")


def test_it_says_how_each_consul_looks(cluster: Cluster, world: World, page: Page) -> None:
    dead, good = f"{world.namespace}-dead", f"{world.namespace}-good"
    free = choose_port(cluster.block.control_plane, 9)
    addresses = {dead: f"http://{cluster.block.control_plane}:{free}", good: cluster.consul.http_addr}
    for name, url in addresses.items():
        world.apply(connection(name, mode="Catalog", addresses=[url], virtualNodes=2))

    def look() -> None:
        told = {one["name"]: one for one in page.told()["connections"]}
        assert told[dead]["state"] == "bad"
        assert not told[dead]["looks"]["ready"]
        assert (told[good]["state"], told[good]["claim"]) == ("good", "held")
        assert told[good]["looks"]["leader"] == json.loads(json.dumps(world.consul("/v1/status/leader")))
        assert told[good]["looks"]["version"] == world.consul("/v1/agent/self")["Config"]["Version"]

    eventually(look)
    assert "can't be written to" in page.said().replace("&#x27;", "'")
    world.kubectl("delete", "cconn", dead, good, "--timeout=180s")
    eventually(lambda: not {dead, good} & {one["name"] for one in page.told()["connections"]})


def test_held_removals_are_told_with_the_command_that_approves_them(world: World, page: Page) -> None:
    name = f"{world.namespace}-held"
    spec = {"mode": "Catalog", "addresses": [world.cluster.consul.http_addr], "virtualNodes": 2}
    world.apply(connection(name, removalGuard={"release": "Manual"}, **spec))
    world.apply(deployment("web", 4), registration("web", consulRefs=[{"name": name}]))
    world.passing("web", 4)
    world.patch("web", {"pods": {"selector": {"matchLabels": {"app": "wbe"}}}})

    def held() -> dict[str, Any]:
        (one,) = (one for one in page.told()["connections"] if one["name"] == name)
        assert one["held"]["subjects"] == 4
        found: dict[str, Any] = one["held"]
        return found

    digest = eventually(held)["digest"]
    assert f"kubectl annotate consulconnection {name} consul-registrar.dev/approve-removals={digest}" in page.text()
    world.kubectl("annotate", "cconn", name, f"consul-registrar.dev/approve-removals={digest}")
    eventually(lambda: not world.health("web"))
    eventually(lambda: not [one for one in page.told()["connections"] if one["held"]])
    world.kubectl("delete", "sreg", "web", "--timeout=180s")
    world.kubectl("delete", "cconn", name, "--timeout=180s")


@pytest.fixture
def standby(cluster: Cluster, page: Page, tmp_path: Path) -> Iterator[Page]:
    """The page of another replica, which comes when the first one leads."""
    address = _address(cluster)
    second = Operator(cluster, tmp_path, arguments=(f"--status-page-address={address}",))
    eventually(lambda: page.told()["replica"]["leads"])
    with second.running():
        yield Page(address)


def test_a_standby_says_the_same_and_that_it_does_not_lead(world: World, page: Page, standby: Page) -> None:
    world.apply(deployment("web", 2), registration("web"))
    world.passing("web", 2)

    def look() -> None:
        assert page.told()["replica"]["leads"]
        assert not standby.told()["replica"]["leads"]
        one, two = page.row(world, "web"), standby.row(world, "web")
        assert one == two
        assert one["counts"]["passing"] == 2

    eventually(look)
    assert "Standby" in standby.said()
    path = f"registrations/{world.namespace}/web"
    # Rows are what status says; instances are what each replica reads in Consul itself.
    eventually(lambda: len(found := standby.told(path)["instances"]) == 2 and found == page.told(path)["instances"])


def test_no_secret_is_on_it(world: World, page: Page) -> None:
    """A token that can't be used, a header's value: planted where they may stand, looked for in all that is told."""
    name = f"{world.namespace}-secret"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "planted"}, "stringData": {"token": PLANTED}}
    ref = {"name": "planted", "namespace": world.namespace, "key": "token"}
    spec = {"mode": "Catalog", "addresses": [world.cluster.consul.http_addr.replace("127.0.0.1", "localhost")]}
    world.apply(secret, connection(name, auth={"token": {"secretKeyRef": ref}, "allowPlaintextToken": True}, **spec))
    header = {"name": "Authorization", "valueFrom": {"secretKeyRef": {"name": "planted", "key": "token"}}}
    checks = [{"name": "http", "http": {"path": "/", "headers": [header]}, "interval": "5s"}]
    tagged = {"tags": [PLANTED], "meta": {"password": PLANTED}}
    world.apply(deployment("web", 1), registration("web", checks=checks, service=tagged))
    eventually(lambda: world.health("web"))
    eventually(lambda: name in {one["name"] for one in page.told()["connections"]})
    path = f"registrations/{world.namespace}/web"
    for each in ("/", "/api/overview", f"/{path}", f"/api/{path}"):
        assert PLANTED not in page.text(each)
    world.kubectl("delete", "cconn", name, "--timeout=180s")
