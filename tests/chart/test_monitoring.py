"""Alerts and dashboard name nothing but what a running operator tells, and sections of the troubleshooting page."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from chart_world import Installation
from prometheus_client.parser import text_string_to_metric_families
from rendering import NAME, container, one, rendered

from chartgen.__main__ import REPOSITORY

#: Words of PromQL that stand where a metric's name could.
PROMQL = {
    "absent", "and", "avg", "by", "count", "for", "histogram_quantile", "increase", "le", "max", "min", "on", "or",
    "rate", "sum", "unless", "vector", "without",
}  # fmt: skip


#: Metrics of kube-state-metrics that alerts name, with the labels that theirs have.
OF_OTHERS = {
    "kube_pod_container_status_ready": {"namespace", "pod", "container", "uid"},
    "kube_pod_status_ready": {"namespace", "pod", "uid", "condition"},
}


def names(expression: str) -> set[str]:
    """The metrics that an expression names."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"|\b(by|without|on)\s*\([^)]*\)", " ", expression)
    return set(re.findall(r"\b[a-zA-Z_][a-zA-Z0-9_]*\b", bare)) - PROMQL


def matched(expression: str) -> Iterator[tuple[str, str]]:
    """Each metric with each label that the expression asks it for."""
    for metric, labels in re.findall(r"([a-z_]+)\{([^}]*)\}", expression):
        yield from ((metric, label) for label in re.findall(r"(\w+)\s*[=!]", labels))


def alerts(**values: Any) -> list[dict[str, Any]]:
    rule = one(rendered(metrics__prometheusRule={"enabled": True, **values}), "PrometheusRule")
    return list(rule["spec"]["groups"][0]["rules"])


def dashboard() -> dict[str, Any]:
    found = one(rendered(metrics__dashboard__enabled=True), "ConfigMap", f"{NAME}-dashboard")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    return dict(json.loads(found["data"]["consul-registrar.json"]))


def expressions() -> list[str]:
    of_panels = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())]
    return of_panels + [alert["expr"] for alert in alerts()]


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ('sum by (a) (rate(x_total{b="c"}[5m])) > 0', {"x_total"}),
        ('absent(y{name="z"} == 1)', {"y"}),
        ("a - b or vector(0)", {"a", "b"}),
    ],
)
def test_the_names_in_an_expression_are_found(expression: str, found: set[str]) -> None:
    assert names(expression) == found


def test_every_metric_that_is_named_is_told_by_a_running_operator(installed: Installation) -> None:
    told = {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(installed.operator.get("/metrics"))
        for sample in family.samples
    }
    told |= OF_OTHERS
    declared = installed.operator.get("/metrics")
    for expression in expressions():
        for name in names(expression):
            assert name in told or f"# TYPE {re.sub('_(bucket|sum|count)$', '', name)} " in declared, expression
        for name, label in matched(expression):
            assert name not in told or label in told[name], expression


def test_every_runbook_is_a_section_of_the_troubleshooting_page() -> None:
    page = (REPOSITORY / "docs" / "troubleshooting.md").read_text()
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for alert in alerts(runbookUrl="https://docs.example/page"):
        address, _, section = alert["annotations"]["runbook_url"].partition("#")
        assert address == "https://docs.example/page"
        assert section in anchors, alert["alert"]


def test_alerts_can_be_left_out_and_given_labels() -> None:
    every = [alert["alert"] for alert in alerts()]
    found = alerts(disabled=[every[0]], alertLabels={"team": "x", "severity": "page"})
    assert [alert["alert"] for alert in found] == every[1:]
    assert {alert["labels"]["team"] for alert in found} == {"x"}
    assert {alert["labels"]["severity"] for alert in found} <= {"critical", "warning"}


def test_no_panel_lies_over_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        columns, rows = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        cells = {(x, y) for x in columns for y in rows}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_the_series_of_single_registrations_can_be_switched_off() -> None:
    objects = rendered(metrics__perRegistration=False)
    assert "--registration-metrics=false" in container(objects)["args"]
