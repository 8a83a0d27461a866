"""Traces of the real operator, as a collector takes them: what is found there of a Pod that it registers, that no token
is, and that neither a collector that is down nor traces that are switched off change anything.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from collector import Collector, Span, collecting
from operator_world import Operator, World, connection, deployment, eventually, operating, pod, registration

from devcluster import Cluster
from devcluster.net import choose_port

PLANTED = "planted-5ecret-f00d"
OURS = "consul_registrar."
SAYS_WHAT_IS_LOADED = """
import atexit, sys
atexit.register(lambda: print("loaded:", *sys.modules))
from consul_registrar.cli import main
main()
"""


@pytest.fixture(scope="module")
def collector(cluster: Cluster) -> Iterator[Collector]:
    host = cluster.block.control_plane
    with collecting(host, choose_port(host, 4318)) as one:
        yield one


@pytest.fixture(scope="module")
def variables(collector: Collector) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{PLANTED}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }


@pytest.fixture(scope="module")
def operator(
    cluster: Cluster, variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operator]:
    with operating(cluster, tmp_path_factory.mktemp("operator"), "--traces", **variables) as one:
        yield one


def the_registering(collector: Collector, world: World, name: str) -> tuple[Span, Span]:
    """The reconciliation that registered a Pod, and the batch that is linked to it, once they have come."""
    uid = world.pods(name.rpartition("-")[0])[name]["metadata"]["uid"]

    def look() -> tuple[Span, Span]:
        (reconciled,) = collector.spans("reconcile", k8s__pod__uid=uid, consul_registrar__cause="desired")
        (batch,) = [span for span in collector.spans("consul.write") if reconciled.id in span.links]
        return reconciled, batch

    return eventually(look)


def test_a_pod_that_is_registered_is_found_from_its_reconciliation_to_the_request_to_consul(
    world: World, collector: Collector, connection: str
) -> None:
    world.apply(pod("web-1", "web"), registration("web", consulRefs=[{"name": connection}]))
    world.passing("web", 1)
    reconciled, batch = the_registering(collector, world, "web-1")
    assert reconciled.attributes["k8s.pod.name"] == "web-1"
    assert reconciled.attributes["k8s.namespace.name"] == world.namespace
    assert reconciled.attributes[f"{OURS}registration"] == "web"
    assert reconciled.attributes[f"{OURS}outcome"] in {"success", "requeue_after"}
    assert reconciled.attributes[f"{OURS}queue.wait"] >= 0
    assert reconciled.resource["service.name"] == "consul-registrar"
    assert reconciled.resource["k8s.cluster.name"] == "test"
    assert reconciled.resource["deployment.environment.name"] == "test"

    (row,) = world.health("web").values()
    assert batch.attributes[f"{OURS}connection"] == connection
    assert batch.attributes[f"{OURS}batch.size"] >= 1
    assert batch.attributes[f"{OURS}outcome"] == "applied"
    assert batch.links[reconciled.id] == {
        f"{OURS}operation": "register",
        f"{OURS}cause": "desired",
        f"{OURS}instance": row["Service"]["ID"],
    }

    path = "/v1/agent/service/register" if connection == "default" else "/v1/txn"

    def sent() -> Span:
        (request,) = [
            span
            for span in collector.spans("PUT", http__response__status_code=200)
            if span.parent == batch.id[1] and span.attributes["url.full"].endswith(path)
        ]
        return request

    request = eventually(sent)
    assert request.id[0] == batch.id[0]
    assert (
        f"{request.attributes['server.address']}:{request.attributes['server.port']}" in request.attributes["url.full"]
    )


def test_pods_that_come_together_share_batches_each_of_which_is_linked_to_all_that_it_carries(
    world: World, collector: Collector, connection: str
) -> None:
    count = 12
    world.apply(deployment("many", count), registration("many", consulRefs=[{"name": connection}]))
    world.passing("many", count)
    uids = {found["metadata"]["uid"] for found in world.pods("many").values()}

    def look() -> None:
        spans = collector.spans("reconcile", consul_registrar__cause="desired")
        of_pods = {
            span.id: span.attributes["k8s.pod.uid"] for span in spans if span.attributes.get("k8s.pod.uid") in uids
        }
        batches = [span for span in collector.spans("consul.write") if span.links.keys() & of_pods.keys()]
        linked = [of_pods[link] for span in batches for link in span.links if link in of_pods]
        assert set(linked) == uids, "each is in a batch"
        assert all(len(span.links) <= span.attributes[f"{OURS}batch.size"] for span in batches)

    eventually(look)


def test_no_token_is_in_what_is_sent(world: World, collector: Collector) -> None:
    """Consul's token, the value of a check's header and the collector's own header are each used, and never told of."""
    name = f"{world.namespace}-secret"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "planted"}, "stringData": {"token": PLANTED}}
    ref = {"name": "planted", "namespace": world.namespace, "key": "token"}
    auth = {"token": {"secretKeyRef": ref}, "allowPlaintextToken": True}
    world.apply(secret, connection_to_servers(world, name, auth))
    header = {"name": "Authorization", "valueFrom": {"secretKeyRef": {"name": "planted", "key": "token"}}}
    checks = [{"name": "http", "http": {"path": "/", "headers": [header]}, "interval": "5s"}]
    refs = [{"name": name}, {"name": "default"}]
    world.apply(pod("web-1", "web"), registration("web", consulRefs=refs, checks=checks))
    uid = eventually(lambda: world.pods("web")["web-1"]["metadata"]["uid"])

    def both() -> None:
        reconciled = {span.id for span in collector.spans("reconcile", k8s__pod__uid=uid)}
        batches = [span for span in collector.spans("consul.write") if reconciled & span.links.keys()]
        assert {span.attributes[f"{OURS}connection"] for span in batches} == {name, "default"}

    eventually(both)
    assert collector.headers[-1]["authorization"] == f"Bearer {PLANTED}"
    assert PLANTED.encode() not in collector.bytes
    world.kubectl("delete", "sreg", "web", "--timeout=180s")
    world.kubectl("delete", "cconn", name, "--timeout=180s")


def connection_to_servers(world: World, name: str, auth: dict) -> dict:
    return connection(name, mode="Catalog", addresses=[world.cluster.consul.http_addr], virtualNodes=2, auth=auth)


def test_a_collector_that_is_down_changes_nothing_but_that_spans_are_lost_which_is_said_once(
    world: World, collector: Collector, operator: Operator
) -> None:
    before = len(operator.log)
    collector.stop()
    world.apply(deployment("web", 3), registration("web"))
    world.passing("web", 3)
    eventually(lambda: operator.measured('consul_registrar_spans_total{outcome="failed"}') > 0)
    world.annotate(next(iter(world.pods("web"))), ready="false")
    eventually(lambda: len(world.health("web", passing=True)) == 2)
    operator.restart()
    world.kubectl("delete", "deployment", "web", "--timeout=180s")
    eventually(lambda: not world.health("web"))
    eventually(lambda: operator.log[before:].count("spans are lost") == 2)  # once by each process

    collector.start()
    world.apply(pod("back-1", "back"), registration("back"))
    world.passing("back", 1)
    the_registering(collector, world, "back-1")
    eventually(lambda: "spans arrive again" in operator.log[before:])
    assert operator.log[before:].count("spans are lost") == 2


def test_without_traces_nothing_is_loaded_and_nothing_is_sent(
    world: World, collector: Collector, operator: Operator, variables: dict[str, str], tmp_path: Path
) -> None:
    operator.stop()
    program = (sys.executable, "-c", SAYS_WHAT_IS_LOADED)
    without = Operator(world.cluster, tmp_path, program=program, variables=variables)
    without.start()
    sent = len(collector.headers)
    world.apply(pod("web-1", "web"), registration("web"))
    world.passing("web", 1)
    without.stop()
    (loaded,) = re.findall("^loaded: (.*)$", without.log, re.MULTILINE)
    assert "consul_registrar.writer" in loaded.split()
    assert not [name for name in loaded.split() if name.startswith(("opentelemetry", "consul_registrar.otel"))]
    assert len(collector.headers) == sent
