"""A Consul that lets nobody in without a client certificate: that of a Secret is shown, and renewed when it changes."""

import base64
import runpy
import ssl
from collections.abc import Iterator

import pytest
from operator_world import (
    MERGE,
    REPOSITORY,
    RESOURCES,
    Operator,
    World,
    connection,
    defined,
    deployment,
    eventually,
    operating,
    registration,
)

from devcluster import Cluster, Options
from devcluster.tls import Authority, Certificate

SECRETS = "/api/v1/namespaces/default/secrets"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    options = Options(nodes=1, consul_tls=True, client_certificates=True)
    with defined(options, tmp_path_factory.mktemp("guarded")) as one:
        authority = one.authority.certificate
        one.kubectl("create", "secret", "generic", "ca", f"--from-file=ca.crt={authority}")
        yield one


@pytest.fixture
def operator(guarded: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    with operating(guarded, tmp_path_factory.mktemp("operator")) as one:
        yield one
    assert "PRIVATE KEY" not in one.log


def keep(cluster: Cluster, name: str, shown: Certificate) -> None:
    """Put a certificate and its key into the Secret, as cert-manager would."""
    files = {"tls.crt": shown.file, "tls.key": shown.key}
    data = {key: base64.b64encode(file.read_bytes()).decode() for key, file in files.items()}
    if name in cluster.kubectl("get", "secrets", "-o", "name"):
        cluster.api.request("PATCH", f"{SECRETS}/{name}", {"data": data}, MERGE)
    else:
        body = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": name}}
        cluster.api.request("POST", SECRETS, body | {"data": data})


def connect(cluster: Cluster, mode: str, secret: str = "") -> str:
    """A connection that shows what is in a Secret, or nothing; its name."""
    name = f"{mode}-{secret or 'nothing'}".lower()
    server = cluster.consul.server.https_addr or ""
    port = int((cluster.consul.agents["node-1"].https_addr or "").rpartition(":")[2])
    where = {
        "Agent": {"nodeAgents": {"scheme": "https", "port": port}},
        "Catalog": {"addresses": [server], "virtualNodes": 2},
    }

    def of(name: str, key: str) -> dict[str, dict[str, str]]:
        return {"secretKeyRef": {"namespace": "default", "name": name, "key": key}}

    shown = (
        {"clientCertificate": {"certificate": of(secret, "tls.crt"), "key": of(secret, "tls.key")}} if secret else {}
    )
    made = connection(name, mode=mode, tls={"ca": of("ca", "ca.crt"), **shown}, **where[mode])
    cluster.api.request("POST", f"{RESOURCES}/consulconnections", made)
    return name


def ready(cluster: Cluster, name: str) -> dict[str, str]:
    found = cluster.api.request("GET", f"{RESOURCES}/consulconnections/{name}")
    condition: dict[str, str] = next(c for c in found["status"]["conditions"] if c["type"] == "Ready")
    return condition


@pytest.mark.parametrize("mode", ["Agent", "Catalog"])
@pytest.mark.shows(
    "cconn.spec.tls.clientCertificate.certificate.secretKeyRef",
    "cconn.spec.tls.clientCertificate.key.secretKeyRef",
    "cconn.spec.tls.ca.secretKeyRef",
)
def test_with_the_certificate_of_a_secret_pods_are_registered(guarded: Cluster, operator: Operator, mode: str) -> None:
    keep(guarded, "client", guarded.authority.client("first"))
    name, app = connect(guarded, mode, "client"), f"{mode.lower()}-web"
    world = World(guarded, "default")
    world.apply(deployment(app, 2), registration(app, consulRefs=[{"name": name}]))
    assert len(world.passing(app, 2)) == 2


@pytest.mark.parametrize("mode", ["Agent", "Catalog"])
def test_without_one_the_connection_says_that_the_handshake_failed(
    guarded: Cluster, operator: Operator, mode: str
) -> None:
    name = connect(guarded, mode)

    def look() -> str:
        condition = ready(guarded, name)
        assert condition["reason"] == "TlsFailed"
        return condition["message"]

    assert "client certificate" in eventually(look)


def test_a_renewed_certificate_is_shown_and_one_that_cannot_be_used_is_not(
    guarded: Cluster, operator: Operator, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Consul is started anew, so that every connection must be made, and let in, once more."""
    first = guarded.authority.client("first")
    stranger = Authority.at(tmp_path_factory.mktemp("stranger")).client("stranger")
    keep(guarded, "renewed", stranger)
    name = connect(guarded, "Catalog", "renewed")
    eventually(lambda: ready(guarded, name)["reason"] == "TlsFailed")
    keep(guarded, "renewed", first)
    eventually(lambda: ready(guarded, name)["status"] == "True")

    second = guarded.authority.client("second")
    keep(guarded, "renewed", Certificate(second.file, first.key))
    eventually(lambda: "goes on with the credentials read before" in operator.log)
    guarded.consul.server.restart()
    world = World(guarded, "default")
    world.apply(deployment("renewed", 1), registration("renewed", consulRefs=[{"name": name}]))
    world.passing("renewed", 1)

    keep(guarded, "renewed", second)
    eventually(lambda: "another client certificate is shown" in operator.log)
    guarded.consul.server.restart()
    world.kubectl("scale", "deployment", "renewed", "--replicas=2")
    world.passing("renewed", 2)


def test_the_script_of_helm_test_shows_it_too(guarded: Cluster, operator: Operator) -> None:
    keep(guarded, "scripted", guarded.authority.client("first"))
    name = connect(guarded, "Catalog", "scripted")
    script = runpy.run_path(str(REPOSITORY / "manifests/helm/consul-registrar/files/find_in_consul.py"))
    trust = ssl.create_default_context(cafile=str(guarded.api.certificate))
    api = script["Api"](guarded.api_url, {"Authorization": f"Bearer {guarded.token}"}, trust)
    spec = guarded.api.request("GET", f"{RESOURCES}/consulconnections/{name}")["spec"]
    assert script["consul"](api, spec).ask("GET", "/v1/status/leader")
