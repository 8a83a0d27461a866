"""The chart's own life: installed, tested by its own test, and uninstalled in any order."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from e2e.e2e_world import NAMESPACE, RELEASE, World, app_manifests, eventually


@pytest.fixture
def installed(bare: World) -> Iterator[World]:
    """A release of its own for each test; what a test leaves of it is removed."""
    bare.install()
    yield bare
    bare.run("helm", "uninstall", RELEASE, "--namespace", NAMESPACE, "--ignore-not-found", "--wait")


def opened(installed: World, name: str, namespace: str = "default", **spec: Any) -> Mapping[str, Any]:
    """An app of three that Consul knows; its registration."""
    registration, deployment = app_manifests(name, gate=False)
    for each in (registration, deployment):
        each["metadata"]["namespace"] = namespace
    registration["spec"] |= spec
    installed.apply(registration, deployment)
    eventually(lambda: len(installed.found(name)) == 3)
    return registration


def test_the_charts_own_test_finds_a_pod_in_consul(installed: World) -> None:
    said = installed.run("helm", "test", RELEASE, "--namespace", NAMESPACE, "--timeout", "120s")
    assert "Succeeded" in said


def test_the_status_page_and_the_metrics_of_the_image_are_served_by_their_services(installed: World) -> None:
    """Through the API server, as `kubectl proxy` does; the page's style and script are files of the image."""
    installed.install("statusPage.enabled=true", f"statusPage.hosts={{{installed.api_host()}}}")
    assert ">consul-registrar</a>" in installed.served("status", "")
    assert '"cluster":"e2e"' in installed.served("status", "api/overview").replace(" ", "")
    assert all(installed.served("status", f"assets/page.{kind}") for kind in ("css", "js"))
    assert "leader_election_master_status" in installed.served("metrics", "metrics")


@pytest.mark.parametrize(("policy", "stay"), [("Deregister", 0), ("Orphan", 3)])
def test_registrations_first_then_the_chart(installed: World, policy: str, stay: int) -> None:
    name = f"first-{policy.lower()}"
    opened(installed, name, deletionPolicy=policy)
    installed.kubectl("delete", "sreg", name, "--timeout=180s")
    installed.run("helm", "uninstall", RELEASE, "--namespace", NAMESPACE, "--wait")
    assert len(installed.found(name, passing=False)) == stay
    installed.kubectl("delete", "deployment", name)


@pytest.mark.parametrize(("policy", "stay"), [("Deregister", 0), ("Orphan", 3)])
def test_the_chart_first_then_registrations_that_a_new_release_lets_go(
    installed: World, policy: str, stay: int
) -> None:
    """Without an operator nobody can clean up: the deletion waits for the next one."""
    name = f"last-{policy.lower()}"
    opened(installed, name, deletionPolicy=policy)
    installed.run("helm", "uninstall", RELEASE, "--namespace", NAMESPACE, "--wait")
    assert len(installed.found(name)) == 3
    installed.kubectl("delete", "sreg", name, "--wait=false")
    installed.install()
    installed.kubectl("wait", "--for=delete", f"sreg/{name}", "--timeout=180s")
    assert len(installed.found(name, passing=False)) == stay
    installed.kubectl("delete", "deployment", name)


def test_a_namespace_with_its_registrations_and_pods(installed: World) -> None:
    installed.kubectl("create", "namespace", "leaving")
    opened(installed, "leaving", namespace="leaving")
    installed.kubectl("delete", "namespace", "leaving", "--timeout=120s")
    eventually(lambda: not installed.found("leaving", passing=False))


@pytest.mark.parametrize(("policy", "stay"), [("Deregister", 0), ("Orphan", 3)])
def test_the_definitions_first_which_takes_nothing_until_a_new_release_lets_go(
    installed: World, policy: str, stay: int
) -> None:
    """A definition that is gone may be a mistake: what was registered by it is held, as anything that is absent."""
    name = f"defined-{policy.lower()}"
    registration = opened(installed, name, deletionPolicy=policy)
    for definition in ("serviceregistrations", "consulconnections"):
        installed.kubectl("delete", "crd", f"{definition}.consul-registrar.dev", "--timeout=120s")
    installed.run("helm", "uninstall", RELEASE, "--namespace", NAMESPACE, "--wait")
    assert len(installed.found(name)) == 3
    installed.install()
    installed.apply(registration)
    installed.kubectl("wait", "--for=condition=Ready", f"sreg/{name}", "--timeout=180s")
    installed.kubectl("delete", "sreg", name, "--timeout=180s")
    assert len(installed.found(name, passing=False)) == stay
    installed.kubectl("delete", "deployment", name)


def test_the_operators_namespace_first_then_registrations_that_a_new_release_lets_go(installed: World) -> None:
    opened(installed, "left")
    installed.kubectl("delete", "namespace", NAMESPACE, "--timeout=120s")
    assert len(installed.found("left")) == 3
    installed.kubectl("delete", "sreg", "left", "--wait=false")
    installed.install()
    installed.kubectl("wait", "--for=delete", "sreg/left", "--timeout=180s")
    assert not installed.found("left", passing=False)
    installed.kubectl("delete", "deployment", "left")
