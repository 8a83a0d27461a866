"""What tests and demos may rely on in the local cluster."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster import Cluster, Options, running
from devcluster.cluster import DEV
from devcluster.consul import ConsulError
from devcluster.process import await_true

ANNOTATION = "dev.consul-registrar.dev/"
PATIENCE = 180.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running(Options(nodes=2)) as one:
        yield one


def pod(name: str, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """A Pod with one container and one port, and annotations of the local cluster."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "annotations": {ANNOTATION + key: value for key, value in (annotations or {}).items()},
        },
        "spec": {"containers": [{"name": "main", "image": "main", "ports": [{"containerPort": 8080}]}], **spec},
    }


def create(cluster: Cluster, manifest: dict[str, Any]) -> dict[str, Any]:
    """Create a Pod and return it when it runs."""
    name = manifest["metadata"]["name"]
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
    eventually(lambda: get(cluster, name)["status"]["phase"] == "Running")
    return get(cluster, name)


def get(cluster: Cluster, name: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster.api.request("GET", f"/api/v1/namespaces/default/pods/{name}")
    return found


def exists(cluster: Cluster, name: str) -> bool:
    return bool(cluster.kubectl("get", "pod", name, "--ignore-not-found", "-o", "name"))


def annotate(cluster: Cluster, name: str, annotation: str) -> None:
    cluster.kubectl("annotate", "--overwrite", "pod", name, ANNOTATION + annotation)


def is_ready(cluster: Cluster, name: str) -> bool:
    conditions = get(cluster, name)["status"]["conditions"]
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def eventually(condition: Callable[[], bool]) -> None:
    assert await_true(condition, PATIENCE)


def fetch(address: str, path: str = "/", port: int = 8080) -> tuple[int, str]:
    """The status code and text of an answer; 0 when the connection is refused or reset."""
    try:
        with urllib.request.urlopen(f"http://{address}:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def names(cluster: Cluster, pod_name: str, address: str) -> bool:
    """Whether that Pod, and no other, answers at the address."""
    return fetch(address)[1].startswith(f"default/{pod_name} ")


def ended(pids: list[int]) -> bool:
    """Whether the processes are gone; a zombie that nobody reaps counts as gone."""
    return not any(
        Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
        for pid in pids
    )


def test_a_running_pod_answers_on_every_port_that_it_declares(cluster: Cluster) -> None:
    ports = [{"containerPort": 8080}, {"containerPort": 9090}]
    status = create(cluster, pod("answers", containers=[{"name": "main", "image": "main", "ports": ports}]))["status"]
    eventually(lambda: names(cluster, "answers", status["podIP"]))
    eventually(lambda: fetch(status["podIP"], port=9090)[0] == 200)
    assert status["hostIP"] in cluster.nodes.values()


def test_the_health_of_a_pod_follows_its_annotation(cluster: Cluster) -> None:
    address = create(cluster, pod("healthy"))["status"]["podIP"]
    eventually(lambda: fetch(address, "/health")[0] == 200)
    annotate(cluster, "healthy", "health=503")
    eventually(lambda: fetch(address, "/health")[0] == 503)
    annotate(cluster, "healthy", "health-")
    eventually(lambda: fetch(address, "/health")[0] == 200)


def test_a_pod_that_does_not_listen_refuses_connections(cluster: Cluster) -> None:
    address = create(cluster, pod("silent"))["status"]["podIP"]
    eventually(lambda: fetch(address)[0] == 200)
    annotate(cluster, "silent", "listen=false")
    eventually(lambda: fetch(address)[0] == 0)
    annotate(cluster, "silent", "listen-")
    eventually(lambda: fetch(address)[0] == 200)


def test_the_readiness_of_a_pod_follows_its_annotation(cluster: Cluster) -> None:
    create(cluster, pod("unready", {"ready": "false"}))
    assert not is_ready(cluster, "unready")
    annotate(cluster, "unready", "ready=true")
    eventually(lambda: is_ready(cluster, "unready"))
    annotate(cluster, "unready", "ready=false")
    eventually(lambda: not is_ready(cluster, "unready"))


def test_a_readiness_gate_is_left_to_its_owner(cluster: Cluster) -> None:
    gate = "example.com/gate"
    conditions = create(cluster, pod("gated", readinessGates=[{"conditionType": gate}]))["status"]["conditions"]
    assert gate not in {condition["type"] for condition in conditions}
    assert not is_ready(cluster, "gated")
    opened = json.dumps({"status": {"conditions": [{"type": gate, "status": "True"}]}})
    cluster.kubectl("patch", "pod", "gated", "--subresource=status", "--type=strategic", "-p", opened)
    eventually(lambda: is_ready(cluster, "gated"))


def test_a_restart_of_its_containers_is_counted(cluster: Cluster) -> None:
    create(cluster, pod("restarts"))
    annotate(cluster, "restarts", "restarts=2")
    eventually(lambda: get(cluster, "restarts")["status"]["containerStatuses"][0]["restartCount"] == 2)
    assert "terminated" in get(cluster, "restarts")["status"]["containerStatuses"][0]["lastState"]


def test_a_deleted_pod_terminates_for_a_while_unready_and_still_answering(cluster: Cluster) -> None:
    address = create(cluster, pod("lingers", {"terminate-after": "5s"}))["status"]["podIP"]
    eventually(lambda: is_ready(cluster, "lingers") and names(cluster, "lingers", address))
    cluster.kubectl("delete", "pod", "lingers", "--wait=false")
    eventually(lambda: not is_ready(cluster, "lingers"))
    assert "deletionTimestamp" in get(cluster, "lingers")["metadata"]
    assert names(cluster, "lingers", address)
    eventually(lambda: not exists(cluster, "lingers"))
    eventually(lambda: not names(cluster, "lingers", address))


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_told_to_finish_has_finished_and_answers_no_more(cluster: Cluster, phase: str) -> None:
    name = f"finishes-{phase.lower()}"
    address = create(cluster, pod(name, restartPolicy="Never"))["status"]["podIP"]
    eventually(lambda: names(cluster, name, address))
    annotate(cluster, name, f"phase={phase}")
    eventually(lambda: get(cluster, name)["status"]["phase"] == phase)
    eventually(lambda: fetch(address)[0] == 0)
    cluster.kubectl("delete", "pod", name)


def test_every_address_answers_for_its_new_owner_after_a_replacement(cluster: Cluster) -> None:
    """kwok hands the addresses of the old Pods to the new ones at once."""
    cluster.kubectl("create", "deployment", "replaced", "--image=main", "--port=8080", "--replicas=30")
    cluster.kubectl("rollout", "status", "deployment", "replaced", f"--timeout={PATIENCE:.0f}s")
    cluster.kubectl("rollout", "restart", "deployment", "replaced")
    cluster.kubectl("rollout", "status", "deployment", "replaced", f"--timeout={PATIENCE:.0f}s")
    eventually(lambda: len(addresses_by_name(cluster, "app=replaced")) == 30)
    for name, address in addresses_by_name(cluster, "app=replaced").items():
        eventually(lambda name=name, address=address: names(cluster, name, address))  # type: ignore[misc]
    cluster.kubectl("delete", "deployment", "replaced")


def addresses_by_name(cluster: Cluster, selector: str) -> dict[str, str]:
    pods = json.loads(cluster.kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
    return {one["metadata"]["name"]: one["status"].get("podIP", "") for one in pods}


def test_the_api_server_comes_back_where_it_was_and_pods_run_on(cluster: Cluster) -> None:
    address = create(cluster, pod("before"))["status"]["podIP"]
    cluster.control_plane.apiserver.restart()
    assert names(cluster, "before", address)
    after = create(cluster, pod("after"))["status"]["podIP"]
    eventually(lambda: names(cluster, "after", after))


def test_a_paused_agent_answers_nothing_until_it_goes_on(cluster: Cluster) -> None:
    agent = cluster.consul.agents["node-1"]
    agent.process.pause()
    try:
        with pytest.raises(TimeoutError):
            agent.request("GET", "/v1/agent/self", within=0.5)
    finally:
        agent.process.resume()
    assert agent.request("GET", "/v1/agent/self")["Config"]["NodeName"] == "node-1"


def test_an_agent_is_found_at_the_address_of_its_node(cluster: Cluster) -> None:
    nodes = cluster.api.request("GET", "/api/v1/nodes")["items"]
    for node in nodes:
        agent = cluster.consul.agents[node["metadata"]["name"]]
        [internal] = [one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP"]
        assert agent.http_addr == f"http://{internal}:8500"


@pytest.mark.parametrize("keep_data", [True, False])
def test_a_restarted_agent_knows_its_services_as_long_as_it_has_its_data(cluster: Cluster, keep_data: bool) -> None:
    agent = cluster.consul.agents["node-2"]
    agent.request("PUT", "/v1/agent/service/register", {"Name": "kept", "Port": 1})
    agent.restart(keep_data=keep_data)
    assert ("kept" in agent.request("GET", "/v1/agent/services")) is keep_data


def test_an_agent_that_crashed_without_its_data_joins_again(cluster: Cluster) -> None:
    agent = cluster.consul.agents["node-1"]
    agent.process.kill()
    agent.lose_data()
    agent.process.start()
    eventually(lambda: bool(cluster.consul.server.request("GET", "/v1/catalog/node/node-1")))


def test_clusters_run_side_by_side_and_one_ends_without_the_other(cluster: Cluster) -> None:
    with running(Options(nodes=1, agents=0)) as other:
        assert other.api_url != cluster.api_url
        create(cluster, pod("same-name"))
        theirs = create(other, pod("same-name"))["status"]["podIP"]
        eventually(lambda: names(other, "same-name", theirs))
        assert theirs not in addresses_by_name(cluster, "").values()
        pids = [process.pid for process in other.processes if process.pid]
    assert ended(pids)
    assert not other.state.exists()
    assert all(process.is_alive() for process in cluster.processes)


def test_routable_pods_are_endpoints_of_their_service() -> None:
    with running(Options(nodes=1, agents=0, routable_pods=True)) as cluster:
        cluster.kubectl("create", "deployment", "web", "--image=main", "--port=8080")
        cluster.kubectl("expose", "deployment", "web")
        eventually(
            lambda: cluster.kubectl("get", "endpointslices", "-o", "jsonpath={..addresses[0]}").startswith("10.")
        )


def test_with_acls_only_a_token_opens_consul() -> None:
    with running(Options(nodes=1, acls=True)) as cluster:
        token, cluster.consul.server.token = cluster.consul.token, None
        assert token
        with pytest.raises(ConsulError):
            cluster.consul.server.request("PUT", "/v1/kv/key", "value")
        cluster.consul.server.token = token
        assert cluster.consul.server.request("PUT", "/v1/kv/key", "value") is True
        cluster.consul.agents["node-1"].restart()


def test_a_cluster_dies_with_a_process_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from devcluster import Options, running\n"
        "with running(Options(nodes=1, agents=0), state=Path(sys.argv[1])) as cluster:\n"
        "    print(*[process.pid for process in cluster.processes], flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(DEV)},
    ) as owner:
        assert owner.stdout is not None
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        owner.send_signal(signal.SIGKILL)
    assert pids
    eventually(lambda: ended(pids))


def test_the_command_line_brings_one_cluster_up_and_leaves_nothing_behind(tmp_path: Path) -> None:
    state = tmp_path / "cluster"
    assert "is up" in devcluster(state, "up", "--nodes", "1")
    pids = [json.loads(file.read_text())["pid"] for file in (state / "processes").iterdir()]
    try:
        assert "already up" in devcluster(state, "up")
        script = f"{devcluster(state, 'env')}\nkubectl get nodes -o name && consul members"
        assert (
            "node/node-1" in subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True).stdout
        )
    finally:
        devcluster(state, "down")
    assert ended(pids)
    assert not state.exists()


def devcluster(state: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "devcluster", f"--state={state}", *arguments],
        env={**os.environ, "PYTHONPATH": str(DEV)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
