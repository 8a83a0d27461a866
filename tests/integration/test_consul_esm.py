"""Mode Catalog beside a real consul-esm: it runs the probes and writes their statuses, we keep all else, and neither
undoes what the other does.

Nothing builds consul-esm here: these tests run where the program is on PATH.
"""

import json
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest
from operator_world import World, connection, eventually, pod, registration, statuses

from devcluster import Cluster
from devcluster.process import Home, Process, Program

ESM = shutil.which("consul-esm")
pytestmark = pytest.mark.skipif(
    ESM is None, reason="NO consul-esm ON PATH: whether it and catalog mode get on with each other is NOT tested"
)


@pytest.fixture(scope="module")
def esm(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """consul-esm beside Consul's server."""
    folder = tmp_path_factory.mktemp("esm")
    config = {
        "http_addr": cluster.consul.http_addr,
        "token": cluster.consul.token or "",
        "log_level": "DEBUG",
    }
    (folder / "esm.json").write_text(json.dumps(config))
    command = (str(ESM), f"-config-file={folder / 'esm.json'}")
    one = Process(Program("consul-esm", command, ready=lambda: _is_registered(cluster)), Home(folder, tethered=True))
    one.start()
    yield one
    one.stop()


def _is_registered(cluster: Cluster) -> bool:
    return bool(cluster.consul.server.request("GET", "/v1/catalog/service/consul-esm"))


@pytest.fixture(scope="module")
def catalog(cluster: Cluster, esm: Process) -> Iterator[str]:
    spec = {"mode": "Catalog", "addresses": [cluster.consul.http_addr], "virtualNodes": 2}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(connection("probed", **spec)))
    yield "probed"
    cluster.kubectl("delete", "cconn", "probed", "--timeout=180s")


def probed(name: str, catalog: str, **checks: Any) -> dict[str, Any]:
    """Checks of each kind that consul-esm runs, beside readiness."""
    quick = {"interval": "1s", "timeout": "500ms"}
    probes = [
        {"name": "ready", "readiness": {}},
        {"name": "port", "tcp": {}, **quick, **checks},
        {"name": "health", "http": {"path": "/health", "headers": [{"name": "X-Asked-By", "value": "esm"}]}, **quick},
    ]
    return registration(name, consulRefs=[{"name": catalog}], checks=probes)


@pytest.fixture
def web(world: World, catalog: str) -> World:
    world.apply(probed("web", catalog), pod("one", "web"), pod("two", "web"))
    world.passing("web", 2)
    return world


def test_probes_pass_fail_and_pass_again(web: World) -> None:
    web.annotate("one", health="503")
    eventually(
        lambda: statuses(web.health("web")["one"]) == {"ready": "passing", "port": "passing", "health": "critical"}
    )
    web.annotate("one", listen="false")
    eventually(lambda: statuses(web.health("web")["one"])["port"] == "critical")
    assert set(statuses(web.health("web")["two"]).values()) == {"passing"}
    web.annotate("one", listen=None, health=None)
    web.passing("web", 2)


def test_what_the_operator_writes_leaves_the_probes_statuses_alone(web: World) -> None:
    web.annotate("one", health="503")
    eventually(lambda: statuses(web.health("web")["one"])["health"] == "critical")
    web.annotate("one", ready="false")
    web.patch("web", {"service": {"tags": ["v2"]}})
    eventually(lambda: {tag for row in web.catalog("web").values() for tag in row["ServiceTags"]} == {"v2"})
    eventually(lambda: statuses(web.health("web")["one"])["ready"] == "critical")
    assert statuses(web.health("web")["one"]) == {"ready": "critical", "port": "passing", "health": "critical"}
    web.annotate("one", ready=None, health=None)
    web.passing("web", 2)


def test_at_rest_neither_writes(web: World, cluster: Cluster) -> None:
    """Ten probes of each check later nothing has been written: not by us, and not because of us."""
    time.sleep(2)
    before = {row["Service"]["ID"]: _indexes(row) for row in web.health("web").values()}
    time.sleep(10)
    assert {row["Service"]["ID"]: _indexes(row) for row in web.health("web").values()} == before


def _indexes(row: dict[str, Any]) -> list[int]:
    return [row["Service"]["ModifyIndex"], *(check["ModifyIndex"] for check in row["Checks"])]


def test_a_check_that_was_edited_is_probed_as_it_says_now(web: World, catalog: str) -> None:
    edited = probed("web", catalog)
    edited["spec"]["checks"][2]["http"]["path"] = "/"
    web.annotate("one", health="503")
    eventually(lambda: statuses(web.health("web")["one"])["health"] == "critical")
    web.apply(edited)
    web.passing("web", 2)


def test_what_consul_esm_reaps_as_it_was_asked_to_is_not_fought_over(world: World, catalog: str) -> None:
    doomed = probed("doomed", catalog, deregisterCriticalServiceAfter="1s")
    world.apply(doomed, pod("one", "doomed"))
    world.passing("doomed", 1)
    world.annotate("one", listen="false")
    eventually(lambda: world.health("doomed") == {})
    world.says("doomed", "Reaped")
    world.annotate("one", listen=None)
    world.kubectl("delete", "pod", "one")
    world.apply(pod("one", "doomed"))
    world.passing("doomed", 1)
