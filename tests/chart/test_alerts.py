"""Every alert fires when it should and is silent when it should be, by Prometheus' own engine."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from chart_world import Installation
from operator_world import World, deployment, eventually, registration
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from test_monitoring import alerts, dashboard

from devcluster.build import ensure_tools
from devcluster.tools import PROMQL

Found = list[dict[str, Any]]
Evaluate = Callable[[str, list[str]], Found]

LEADER = 'leader_election_master_status{name="consul-registrar",pod="a"}'
STANDBY = 'leader_election_master_status{name="consul-registrar",pod="b"}'
CONTAINER = 'kube_pod_container_status_ready{namespace="shop",pod="web-1",container="app"}'
POD = 'kube_pod_status_ready{namespace="shop",pod="web-1",condition="true"}'
CONNECTION = 'consul_registrar_connection_ready{connection="default",pod="%s"}'
INSTANCES = 'consul_registrar_registration_instances{namespace="shop",name="web",state="%s"}'
READY = 'consul_registrar_registration_ready{namespace="shop",name="web",pod="%s"}'
HELD = 'consul_registrar_removals_held{connection="default"}'
WRITES = 'consul_registrar_writes_total{connection="default",operation="register",cause="%s",outcome="%s"}'
STALE = 'consul_registrar_watch_staleness_seconds{resource="%s",pod="%s"}'
EVENT = 'consul_registrar_pod_event_to_consul_seconds_bucket{le="%s"}'
GATES = 'consul_registrar_readiness_gates_answered_total{outcome="%s"}'

#: What is told, a value each minute, with which an alert fires; and with which it doesn't.
FIRING: dict[str, list[list[str]]] = {
    "ConsulRegistrarNobodyLeads": [[], [f"{LEADER} 0x20", f"{STANDBY} 0x20"], [f"{LEADER} 1x9 _x11"]],
    "ConsulRegistrarDownWhilePodsWait": [
        [f"{CONTAINER} 1x20", f"{POD} 0x20"],
        [f"{CONTAINER} 1x20", f"{POD} 0x20", f"{LEADER} 0x20"],
    ],
    "ConsulRegistrarConnectionNotReady": [[f"{CONNECTION % 'a'} 0x20", f"{CONNECTION % 'b'} 0x20"]],
    "ConsulRegistrarNoPassingInstances": [[f"{INSTANCES % 'desired'} 3x20", f"{INSTANCES % 'passing'} 0x20"]],
    "ConsulRegistrarRegistrationNotReady": [[f"{READY % 'a'} 0x20", f"{READY % 'b'} 0x20"]],
    "ConsulRegistrarRemovalsHeld": [[f"{HELD} 4x20"]],
    "ConsulRegistrarWritesFail": [
        [f"{WRITES % ('desired', 'refused')} 0+1x20"],
        [f"{WRITES % ('desired', 'unknown')} 0+1x20", f"{WRITES % ('desired', 'applied')} 0+9x20"],
    ],
    "ConsulRegistrarDriftGoesOn": [[f"{WRITES % ('drift', 'applied')} 0+2x20"]],
    "ConsulRegistrarWatchStale": [[f"{STALE % ('pods', 'a')} 121x20", f"{STALE % ('pods', 'b')} 500x20"]],
    "ConsulRegistrarSlow": [[f"{EVENT % '5'} 0+1x20", f"{EVENT % '10'} 0+9x20", f"{EVENT % '+Inf'} 0+9x20"]],
    "ConsulRegistrarGatesNotAnswered": [[f"{GATES % 'forbidden'} 0+1x20"], [f"{GATES % 'failed'} 0+1x20"]],
}
SILENT: dict[str, list[list[str]]] = {
    "ConsulRegistrarNobodyLeads": [[f"{LEADER} 1x20"], [f"{LEADER} 0x20", f"{STANDBY} 1x20"]],
    "ConsulRegistrarDownWhilePodsWait": [
        [f"{CONTAINER} 1x20", f"{POD} 0x20", f"{LEADER} 1x20"],
        [f"{CONTAINER} 0x20", f"{POD} 0x20"],
        [f"{CONTAINER} 1x20", f"{POD} 1x20"],
        [],
    ],
    "ConsulRegistrarConnectionNotReady": [[f"{CONNECTION % 'a'} 0x20", f"{CONNECTION % 'b'} 1x20"], []],
    "ConsulRegistrarNoPassingInstances": [
        [f"{INSTANCES % 'desired'} 3x20", f"{INSTANCES % 'passing'} 1x20"],
        [f"{INSTANCES % 'desired'} 0x20", f"{INSTANCES % 'passing'} 0x20"],
        [],
    ],
    "ConsulRegistrarRegistrationNotReady": [[f"{READY % 'a'} 0x20", f"{READY % 'b'} 1x20"], []],
    "ConsulRegistrarRemovalsHeld": [[f"{HELD} 0x20"], []],
    "ConsulRegistrarWritesFail": [
        [f"{WRITES % ('desired', 'applied')} 0+9x20"],
        [f"{WRITES % ('desired', 'refused')} 7x20"],
        [],
    ],
    "ConsulRegistrarDriftGoesOn": [
        [f"{WRITES % ('drift', 'applied')} 0+1x20"],
        [f"{WRITES % ('edited', 'applied')} 0+9x20"],
        [],
    ],
    "ConsulRegistrarWatchStale": [
        [f"{STALE % ('pods', 'a')} 500x20", f"{STALE % ('pods', 'b')} 1x20"],
        [f"{STALE % ('customresources', 'a')} 500x20"],
        [],
    ],
    "ConsulRegistrarSlow": [
        [f"{EVENT % '5'} 0+9x20", f"{EVENT % '10'} 0+9x20", f"{EVENT % '+Inf'} 0+9x20"],
        [f"{EVENT % '5'} 1x20", f"{EVENT % '10'} 9x20", f"{EVENT % '+Inf'} 9x20"],
        [],
    ],
    "ConsulRegistrarGatesNotAnswered": [[f"{GATES % 'True'} 0+9x20"], [f"{GATES % 'forbidden'} 7x20"], []],
}


def of_each(table: dict[str, list[list[str]]]) -> list[Any]:
    return [pytest.param(name, told, id=f"{name}-{at}") for name, all_ in table.items() for at, told in enumerate(all_)]


@pytest.fixture(scope="session")
def evaluate() -> Evaluate:
    """What an expression finds after twenty minutes of these series."""
    ensure_tools(print, [PROMQL])

    def found(expression: str, series: list[str]) -> Found:
        question = {"query": expression, "series": series, "interval": 60, "at": 1200}
        ended = subprocess.run(
            [PROMQL.path()], input=json.dumps([question]), capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        (answer,) = json.loads(ended.stdout)
        return list(answer)

    return found


@pytest.fixture(scope="session")
def rules() -> dict[str, dict[str, Any]]:
    """The alerts that the chart makes, by name."""
    return {alert["alert"]: alert for alert in alerts()}


@pytest.mark.parametrize(("name", "told"), of_each(FIRING))
def test_it_fires(name: str, told: list[str], rules: dict[str, dict[str, Any]], evaluate: Evaluate) -> None:
    (firing,) = evaluate(rules[name]["expr"], told)
    said = " ".join(rules[name]["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", said)) <= firing["labels"].keys(), "it can name what it says it is about"


@pytest.mark.parametrize(("name", "told"), of_each(SILENT))
def test_it_is_silent(name: str, told: list[str], rules: dict[str, dict[str, Any]], evaluate: Evaluate) -> None:
    assert evaluate(rules[name]["expr"], told) == []


def test_every_alert_is_tried_both_ways(rules: dict[str, dict[str, Any]]) -> None:
    assert FIRING.keys() == SILENT.keys() == rules.keys()


def test_every_expression_of_the_dashboard_is_one(evaluate: Evaluate) -> None:
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            evaluate(target["expr"].replace("$__rate_interval", "5m"), [])


OURS = ("consul_registrar_", "controller_runtime_", "leader_election_", "workqueue_")


def scraped(installed: Installation, *, growing: bool = False) -> list[str]:
    """What the running operator tells, as if it had for twenty minutes; `growing`: and had counted as much in each."""
    families = text_string_to_metric_families(installed.operator.get("/metrics"))
    samples = [sample for family in families for sample in family.samples if sample.name.startswith(OURS)]
    return [f"{sample.name}{{{_labels(sample.labels)}}} {_values(sample, growing=growing)}" for sample in samples]


def _values(sample: Sample, *, growing: bool) -> str:
    counts = sample.name.endswith(("_total", "_bucket", "_sum", "_count"))
    return f"0+{sample.value:.6f}x20" if growing and counts else f"{sample.value:.6f}x20"


def _labels(labels: dict[str, str]) -> str:
    return ",".join(f"{name}={json.dumps(value)}" for name, value in labels.items())


def first_row(evaluate: Evaluate, told: list[str]) -> dict[str, float]:
    """What the dashboard's first row shows: whether discovery is right, now."""
    stats = [panel for panel in dashboard()["panels"] if panel["type"] == "stat"]
    found = {panel["title"]: evaluate(panel["targets"][0]["expr"], told) for panel in stats}
    return {title: vector[0]["value"] for title, vector in found.items()}


def test_of_a_real_scrape_the_first_row_tells_whether_discovery_is_right(
    installed: Installation, world: World, evaluate: Evaluate
) -> None:
    world.apply(deployment("web", 2), registration("web"))
    world.passing("web", 2)
    right = {
        "Leading replicas": 1.0,
        "Instances missing in Consul": 0.0,
        "Registrations not ready": 0.0,
        "Services without a passing instance": 0.0,
        "Connections not ready": 0.0,
        "Removals held": 0.0,
    }
    eventually(lambda: first_row(evaluate, scraped(installed)) == right)
    for name in world.pods("web"):
        world.annotate(name, ready="false")
    selector = {"pods": {"selector": {"matchLabels": {"app": "web"}}}}
    world.apply(registration("broken", service={"port": "nosuch"}, **selector))
    wrong = {
        "Registrations not ready": 1.0,
        "Instances missing in Consul": 2.0,
        "Services without a passing instance": 2.0,
    }
    eventually(lambda: first_row(evaluate, scraped(installed)) == right | wrong)


def test_of_a_real_scrape_every_panel_shows_something_and_no_alert_fires(
    installed: Installation, world: World, rules: dict[str, dict[str, Any]], evaluate: Evaluate
) -> None:
    gated = deployment("gated", 1)
    gated["spec"]["template"]["spec"]["readinessGates"] = [{"conditionType": "consul-registrar.dev/registered"}]
    world.apply(gated, registration("gated"))
    world.kubectl("rollout", "status", "deployment/gated", "--timeout=180s")
    eventually(lambda: [name for name, rule in rules.items() if evaluate(rule["expr"], scraped(installed))] == [])
    eventually(lambda: shows_nothing(evaluate, scraped(installed, growing=True)) <= {"Writes that weren't applied"})


def shows_nothing(evaluate: Evaluate, told: list[str]) -> set[str]:
    """The dashboard's panels that have nothing to show of these series."""
    return {
        panel["title"]
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
        if not evaluate(target["expr"].replace("$__rate_interval", "5m"), told)
    }
