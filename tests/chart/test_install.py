"""The chart in a real API server with RBAC and Pod Security `restricted`: installed, tested, upgraded, uninstalled."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart_world import (
    NAMESPACE,
    RELEASE,
    Installation,
    as_deployed,
    consul_of,
    gone,
    helm,
    refused,
    requests,
    running_scripts,
    secret,
)
from operator_world import RESOURCES, Operator, World, deployment, eventually, registration

from chartgen.render import CHART, documents, template
from devcluster import Cluster
from devcluster.kube import ApiError

DEFINITION = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/serviceregistrations.consul-registrar.dev"

SPEC = "/spec/versions/0/schema/openAPIV3Schema/properties/spec"
OLDER = [
    {"op": "replace", "path": "/spec/names/shortNames", "value": ["older"]},
    {"op": "add", "path": f"{SPEC}/properties/older", "value": {"type": "string"}},
    {"op": "add", "path": f"{SPEC}/x-kubernetes-validations/-", "value": {"rule": "!has(self.older)", "message": "no"}},
]
"""What makes another definition of it, as a version before could have installed it."""

EVERYTHING: dict[str, Any] = {
    "clusterName": "all",
    "connection": {
        "name": "all",
        "spec": {
            "addresses": ["https://consul.example:8501"],
            "tls": {"ca": {"secretKeyRef": {"namespace": NAMESPACE, "name": "ca", "key": "ca"}}},
            "auth": {"token": {"secretKeyRef": {"namespace": NAMESPACE, "name": "token", "key": "token"}}},
        },
    },
    "watch": {"namespaces": ["default", NAMESPACE], "podSelector": "team=x"},
    "networkPolicy": {"enabled": True},
    "statusPage": {"enabled": True, "hosts": ["page.example"]},
    "annotatedWorkloads": {"enabled": True},
    "metrics": {"dashboard": {"enabled": True}},
    "rbac": {"secrets": [{"namespace": "default"}]},
    "traces": {"enabled": True, "endpoint": "http://collector:4318", "headersSecret": {"name": "collector"}},
    "extraEnv": [{"name": "A", "value": "b"}],
    "commonLabels": {"team": "x"},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}
    ],
}
"""Values under which all is rendered that the API server knows."""


def pod_of(manifest: dict[str, Any]) -> dict[str, Any] | None:
    """The Pod that a manifest is or makes: Pod Security refuses Pods, and of their makers it only warns."""
    if manifest["kind"] == "Pod":
        return manifest
    template = manifest.get("spec", {}).get("template")
    if template is None:
        return None
    meta = {"namespace": manifest["metadata"]["namespace"], "name": f"{manifest['kind'].lower()}-pod"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"] | meta, "spec": template["spec"]}


def conditions(found: dict[str, Any]) -> dict[str, str]:
    return {one["type"]: one["status"] for one in found.get("status", {}).get("conditions", ())}


def ready(cluster: Cluster, connection: str) -> None:
    eventually(
        lambda: conditions(cluster.api.request("GET", f"{RESOURCES}/consulconnections/{connection}"))["Ready"] == "True"
    )


@contextmanager
def paused(operator: Operator) -> Iterator[None]:
    """The operator does nothing: else it and another one would answer for the same objects."""
    operator.process.pause()
    try:
        yield
    finally:
        operator.process.resume()


def test_the_chart_passes_lint(cluster: Cluster) -> None:
    said = helm(cluster, "lint", str(CHART), "--strict", values=EVERYTHING)
    assert "0 chart(s) failed" in said


def test_the_api_server_takes_all_that_is_rendered(installed: Installation) -> None:
    cluster = installed.cluster
    objects = documents(template(EVERYTHING, f"--namespace={NAMESPACE}", release="all"))
    pods = [found for found in map(pod_of, objects) if found]
    assert len(pods) == 3
    rendered = yaml.safe_dump_all([*objects, *pods])
    said = cluster.kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", stdin=rendered)
    assert len(said.splitlines()) == len(objects) + len(pods)


def test_pod_security_would_refuse_a_pod_with_less(installed: Installation) -> None:
    """So that the test above can fail."""
    values = EVERYTHING | {"securityContext": {"allowPrivilegeEscalation": True}}
    manifest = next(one for one in documents(template(values, f"--namespace={NAMESPACE}")) if one["kind"] == "Pod")
    with pytest.raises(ApiError, match="violates PodSecurity"):
        installed.cluster.api.request("POST", f"/api/v1/namespaces/{NAMESPACE}/pods?dryRun=All", manifest)


def test_both_replicas_are_admitted(installed: Installation) -> None:
    installed.cluster.kubectl("-n", NAMESPACE, "rollout", "status", f"deployment/{RELEASE}", "--timeout=180s")


def test_under_the_charts_roles_nothing_is_refused_and_no_right_is_left_over(
    installed: Installation, world: World
) -> None:
    ready(installed.cluster, "default")
    world.apply(deployment("web", 3), registration("web"))
    world.passing("web", 3)
    name, *_ = world.pods("web")
    world.kubectl("label", "pod", name, "app=other", "--overwrite")  # absent: confirmed by fresh reads
    eventually(lambda: name not in world.health("web"))
    world.passing("web", 3)
    world.apply(registration("bad", service={"port": "nosuch"}, pods={"selector": {"matchLabels": {"app": "web"}}}))
    world.says("bad", "PortNotFound")
    eventually(lambda: "PortNotFound" in events(world))
    gated = deployment("gated", 1)
    gated["spec"]["template"]["spec"]["readinessGates"] = [{"conditionType": "consul-registrar.dev/registered"}]
    world.apply(gated, registration("gated"))
    world.kubectl("rollout", "status", "deployment/gated", "--timeout=180s")
    publish_a_service(world)
    world.kubectl("delete", "sreg", "web", "--timeout=180s")
    eventually(lambda: not world.health("web"))
    lease = installed.cluster.api.request(
        "GET", f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{RELEASE}"
    )
    assert lease["spec"]["holderIdentity"]
    assert not refused(installed.cluster, NAMESPACE, RELEASE)
    assert used(installed) == granted(installed.cluster)


def publish_a_service(world: World) -> None:
    """By one kind of address, then by another: that the first is absent is confirmed by fresh reads."""
    port = {"name": "http", "port": 80}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "ext"}}
    source = {"name": "ext", "publish": "ExternalIP"}
    world.apply(
        service | {"spec": {"ports": [port], "externalIPs": ["198.51.100.4"]}},
        registration("ext", kubernetesService=source),
    )
    eventually(lambda: world.health("ext").keys() == {"198.51.100.4"})
    world.patch("ext", {"kubernetesService": {"publish": "ClusterIP"}})
    eventually(lambda: world.health("ext").keys() == {"cluster-ip"})


def events(world: World) -> set[str]:
    """The reasons of the Events in a namespace."""
    found = world.cluster.api.request("GET", f"/apis/events.k8s.io/v1/namespaces/{world.namespace}/events")
    return {one["reason"] for one in found["items"]}


def granted(cluster: Cluster) -> set[tuple[str, str, str]]:
    """API group, resource and verb of what the chart's roles allow the operator."""
    roles = [
        cluster.api.request("GET", f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{RELEASE}"),
        cluster.api.request("GET", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/roles/{RELEASE}-lease"),
    ]
    return {
        (group, resource, verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def used(installed: Installation) -> set[tuple[str, str, str]]:
    """The same of what the operator has asked for."""
    found = set()
    for one in requests(installed.cluster, NAMESPACE, RELEASE):
        what = one.get("objectRef")
        if what and "resource" in what:
            resource = "/".join(filter(None, (what["resource"], what.get("subresource"))))
            found.add((what.get("apiGroup", ""), resource, one["verb"]))
    return found


def test_helm_test_registers_a_pod_and_finds_it_in_consul(installed: Installation, tmp_path: Path) -> None:
    ready(installed.cluster, "default")
    with running_scripts(installed.cluster, NAMESPACE, "test", tmp_path) as said:
        helm(installed.cluster, "test", RELEASE, f"--namespace={NAMESPACE}", "--timeout=120s")
    assert "".join(said).splitlines() == [
        "Succeeded: ok: the registration is Ready and has this Pod",
        "ok: this Pod is in Consul",
        "ok: this Pod is gone from Consul",
    ]


def test_helm_test_fails_where_nobody_registers(installed: Installation, tmp_path: Path) -> None:
    cluster = installed.cluster
    values = installed.values | {"test": {"timeout": 2}, "fullnameOverride": "failing"}
    hooks = template(values, f"--namespace={NAMESPACE}", "--show-only=templates/tests/find-in-consul.yaml")
    with paused(installed.operator), running_scripts(cluster, NAMESPACE, "test", tmp_path) as said:
        cluster.kubectl("apply", "-f", "-", stdin=hooks)
        eventually(lambda: said)
    cluster.kubectl("delete", "-f", "-", stdin=hooks)
    assert said[0].startswith(
        "Failed: not so: the registration is Ready and has this Pod; seen last: {'observedGeneration': -1}"
    )


def test_an_upgrade_brings_the_definitions_up_to_date_and_twice_changes_nothing(
    installed: Installation, tmp_path: Path
) -> None:
    """Also what the older one had and this one hasn't: a field, and a rule, which might refuse what is right now."""
    cluster = installed.cluster
    ours = cluster.api.request("GET", DEFINITION)["spec"]
    cluster.api.request("PATCH", DEFINITION, OLDER, "application/json-patch+json")
    arguments = ("upgrade", RELEASE, str(CHART), f"--namespace={NAMESPACE}")
    with running_scripts(cluster, NAMESPACE, "crds", tmp_path) as said:
        helm(cluster, *arguments, values=installed.values)
        once = _versions(cluster)
        helm(cluster, *arguments, values=installed.values)
    assert [one.split(":")[0] for one in said] == ["Succeeded", "Succeeded"]
    assert cluster.api.request("GET", DEFINITION)["spec"] == ours
    assert _versions(cluster) == once
    jobs = cluster.api.request("GET", f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs")
    assert not jobs["items"]


def _versions(cluster: Cluster) -> dict[str, int]:
    """How often the spec of each object of the release has changed."""
    manifest = helm(cluster, "get", "manifest", RELEASE, f"--namespace={NAMESPACE}")
    found = cluster.kubectl("get", "-f", "-", "-n", NAMESPACE, "-o", "json", stdin=manifest)
    return {
        f"{one['kind']}/{one['metadata']['name']}": one["metadata"].get("generation", 0)
        for one in json.loads(found)["items"]
    }


def test_with_a_list_of_namespaces_the_operator_works_there_and_may_see_no_other(
    installed: Installation, world: World, tmp_path: Path
) -> None:
    cluster = installed.cluster
    for namespace in ("narrow", "pki"):
        cluster.kubectl("create", "namespace", namespace)
    secret(cluster, "pki", "ca", pem="no authority is needed for http")
    ca = {"secretKeyRef": {"namespace": "pki", "name": "ca", "key": "pem"}}
    spec = {**consul_of(cluster), "tls": {"ca": ca}}
    values = {
        "clusterName": "narrow",
        "annotatedWorkloads": {"enabled": True},
        "fullnameOverride": "narrow",
        "connection": {"name": "narrow", "spec": spec},
        "watch": {"namespaces": [world.namespace]},
    }
    helm(cluster, "install", "narrow", str(CHART), "--namespace=narrow", values=values)
    with as_deployed(cluster, tmp_path, "narrow", "narrow").running() as operator:
        ready(cluster, "narrow")
        world.apply(deployment("db", 1), registration("db", consulRefs=[{"name": "narrow"}]))
        world.passing("db", 1)
        world.apply(deployment("annotated", 1))
        world.kubectl("annotate", "deployment", "annotated", "consul-registrar.dev/register=8080")
        eventually(lambda: world.registration("annotated"))
        world.kubectl("annotate", "deployment", "annotated", "consul-registrar.dev/register-")
        eventually(lambda: not world.exists("annotated"))
        world.kubectl("delete", "sreg", "db", "--timeout=180s")
        cluster.kubectl("delete", "cconn", "narrow", "--timeout=180s")
        operator.stop()
    assert requests(cluster, "narrow", "narrow")
    assert not refused(cluster, "narrow", "narrow")
    assert may_list_pods(cluster, "narrow", world.namespace)
    assert not may_list_pods(cluster, "narrow", "default")
    helm(cluster, "uninstall", "narrow", "--namespace=narrow")


def may_list_pods(cluster: Cluster, account: str, namespace: str) -> bool:
    """Whether the API server would let a ServiceAccount, named as its namespace, list the Pods of another one."""
    asked = {
        "user": f"system:serviceaccount:{account}:{account}",
        "resourceAttributes": {"namespace": namespace, "verb": "list", "resource": "pods"},
    }
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    return bool(cluster.api.request("POST", path, {"spec": asked})["status"]["allowed"])


def test_uninstalling_leaves_the_connection_and_all_that_stands_in_consul(
    installed: Installation, world: World, tmp_path: Path
) -> None:
    cluster = installed.cluster
    cluster.kubectl("create", "namespace", "other")
    connection = {"name": "other", "spec": consul_of(cluster)}
    values = {"clusterName": "other", "fullnameOverride": "other", "connection": connection}
    helm(cluster, "install", "other", str(CHART), "--namespace=other", values=values)
    with as_deployed(cluster, tmp_path, "other", "other").running() as operator:
        world.apply(deployment("kept", 2), registration("kept", consulRefs=[{"name": "other"}]))
        world.passing("kept", 2)
        operator.stop()
    helm(cluster, "uninstall", "other", "--namespace=other")
    assert len(world.health("kept", passing=True)) == 2
    assert cluster.api.request("GET", f"{RESOURCES}/consulconnections/other")
    gone(cluster, "/apis/apps/v1/namespaces/other/deployments/other")
    assert cluster.api.request("GET", DEFINITION)
    helm(cluster, "install", "other", str(CHART), "--namespace=other", values=values)
    with as_deployed(cluster, tmp_path, "other", "other").running() as operator:
        world.kubectl("delete", "sreg", "kept", "--timeout=180s")
        cluster.kubectl("delete", "cconn", "other", "--timeout=180s")
        operator.stop()


PLANTED = {"token": "t0ken-that-was-planted", "header": "header-that-was-planted"}


def test_no_secret_is_told_of_by_logs_events_objects_or_metrics(
    installed: Installation, world: World, tmp_path: Path
) -> None:
    """A token and a header are planted; everything is logged, and what fails says so: an agent goes, a Secret lacks."""
    cluster, agent = installed.cluster, installed.cluster.consul.agents["node-1"]
    cluster.kubectl("create", "namespace", "planted")
    for namespace in ("planted", world.namespace):
        secret(cluster, namespace, "planted", **PLANTED)
    helm(cluster, "install", "planted", str(CHART), "--namespace=planted", values=planted(world))
    with paused(installed.operator), as_deployed(cluster, tmp_path, "planted", "planted").running() as operator:
        world.apply(deployment("web", 3), checked("web", "planted"), checked("lost", "nosuch", app="web"))
        eventually(lambda: len(world.health("web")) == 3)
        world.says("lost", "SecretNotFound")
        agent.process.kill()
        eventually(lambda: "AgentDown" in operator.log)
        agent.process.start()
        world.says("web", "Registered")
        told = {
            "log": operator.log,
            "metrics": operator.get("/metrics"),
            "objects": cluster.kubectl("get", "sreg,cconn,events,pods,deployments,leases", "-A", "-o", "yaml"),
            "release": helm(cluster, "get", "all", "planted", "--namespace=planted"),
            "catalog": str(world.consul("/v1/health/service/web")),
        }
        assert "SecretNotFound" in told["objects"]
        assert [(where, what) for where, text in told.items() for what in PLANTED.values() if what in text] == []
        world.kubectl("delete", "sreg", "--all", "--timeout=180s")
        cluster.kubectl("delete", "cconn", "planted", "--timeout=180s")
        operator.stop()
    assert not refused(cluster, "planted", "planted")


def planted(world: World) -> dict[str, Any]:
    """Values of a release that has a token for the agents, may read the headers' Secret, and logs everything."""
    token = {"secretKeyRef": {"namespace": "planted", "name": "planted", "key": "token"}}
    spec = {"mode": "Agent", "nodeAgents": {}, "auth": {"token": token, "allowPlaintextToken": True}}
    return {
        "clusterName": "planted",
        "fullnameOverride": "planted",
        "connection": {"name": "planted", "spec": spec},
        "log": {"level": "debug"},
        "rbac": {"secrets": [{"namespace": world.namespace, "names": ["planted", "nosuch"]}]},
    }


def checked(name: str, secret_name: str, app: str = "") -> dict[str, Any]:
    """A registration with an HTTP check that shows a Secret."""
    header = {"name": "Authorization", "valueFrom": {"secretKeyRef": {"name": secret_name, "key": "header"}}}
    checks = [{"name": "shows", "http": {"headers": [header]}, "interval": "1s"}]
    pods = {"selector": {"matchLabels": {"app": app or name}}}
    return registration(name, consulRefs=[{"name": "planted"}], pods=pods, checks=checks)
