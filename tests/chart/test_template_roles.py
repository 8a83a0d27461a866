"""What the roles allow that the chart renders: no more than its values ask for."""

import pytest
from rendering import NAME, NAMESPACE, WIDE, container, one, rendered, rules


def test_cluster_wide_the_operator_reads_pods_everywhere_by_one_role() -> None:
    objects = rendered("--no-hooks")
    assert ("watch", "pods", "") in rules(objects, "ClusterRole", WIDE)
    assert [each["metadata"]["name"] for each in objects if each["kind"] == "Role"] == [f"{NAME}-lease"]


def test_with_namespaces_the_operator_reads_pods_there_alone() -> None:
    objects = rendered("--no-hooks", watch__namespaces=["shop", "pay"])
    everywhere = rules(objects, "ClusterRole", WIDE)
    assert not {resource for _, resource, _ in everywhere} & {"pods", "serviceregistrations", "services", "events"}
    assert {(name, verb) for verb, resource, name in everywhere if resource == "namespaces"} == {
        ("kube-system", "get"), ("shop", "list"), ("shop", "watch"), ("pay", "list"), ("pay", "watch"),
    }  # fmt: skip
    places = {each["metadata"]["namespace"] for each in objects if each["kind"] == "Role"}
    assert places == {"shop", "pay", "default", NAMESPACE}


@pytest.mark.parametrize("namespaces", [[], ["shop"]])
def test_every_role_is_bound_to_the_operators_account(namespaces: list[str]) -> None:
    objects = rendered("--no-hooks", watch__namespaces=namespaces, rbac__secrets=[{"namespace": "x"}])
    roles = {(e["metadata"].get("namespace"), e["metadata"]["name"]) for e in objects if e["kind"].endswith("Role")}
    bindings = [each for each in objects if each["kind"].endswith("Binding")]
    bound = {(each["metadata"].get("namespace"), each["roleRef"]["name"]) for each in bindings}
    assert bound == roles - {(None, f"{WIDE}-view"), (None, f"{WIDE}-edit")}
    assert {tuple(subject.values()) for each in bindings for subject in each["subjects"]} == {
        ("ServiceAccount", NAME, NAMESPACE)
    }


def test_no_role_has_a_wildcard() -> None:
    for each in rendered(rbac__secrets=[{"namespace": "x"}]):
        assert "*" not in str(each.get("rules", ""))


def test_the_status_of_pods_may_be_patched_only_for_the_readiness_gate() -> None:
    right = ("patch", "pods/status", "")
    assert right in rules(rendered(), "ClusterRole", WIDE)
    without = rendered(readinessGate__enabled=False)
    assert right not in rules(without, "ClusterRole", WIDE)
    assert "--readiness-gate=false" in container(without)["args"]


def test_registrations_may_be_made_only_for_annotated_workloads() -> None:
    right = ("create", "serviceregistrations", "")
    assert right not in rules(rendered(), "ClusterRole", WIDE)
    objects = rendered(annotatedWorkloads__enabled=True)
    assert {right, ("watch", "deployments", "")} <= rules(objects, "ClusterRole", WIDE)
    assert "--annotated-workloads=true" in container(objects)["args"]


def test_only_secrets_that_are_named_may_be_read() -> None:
    spec = {
        "addresses": ["https://c:8501"],
        "auth": {"token": {"secretKeyRef": {"namespace": "consul", "name": "token", "key": "t"}}},
        "tls": {
            "ca": {"secretKeyRef": {"namespace": "pki", "name": "ca", "key": "c"}},
            "clientCertificate": {
                "certificate": {"secretKeyRef": {"namespace": "own", "name": "client", "key": "tls.crt"}},
                "key": {"secretKeyRef": {"namespace": "own", "name": "client", "key": "tls.key"}},
            },
        },
    }
    objects = rendered("--no-hooks", connection__spec=spec, rbac__secrets=[{"namespace": "more"}])
    found = {
        each["metadata"]["namespace"]: rule.get("resourceNames")
        for each in objects
        if each["kind"].endswith("Role")
        for rule in each["rules"]
        if "secrets" in rule["resources"]
    }
    assert found == {"consul": ["token"], "pki": ["ca"], "own": ["client"], "more": None}


def test_without_secrets_none_may_be_read() -> None:
    assert "secrets" not in str([each.get("rules") for each in rendered()])


def test_editors_of_a_namespace_may_edit_registrations_and_not_connections() -> None:
    objects = rendered()
    labels = one(objects, "ClusterRole", f"{WIDE}-edit")["metadata"]["labels"]
    assert labels["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    assert "rbac.authorization.k8s.io/aggregate-to-view" not in labels
    assert {resource for _, resource, _ in rules(objects, "ClusterRole", f"{WIDE}-edit")} == {"serviceregistrations"}
    assert {verb for verb, _, _ in rules(objects, "ClusterRole", f"{WIDE}-view")} == {"get", "list", "watch"}
