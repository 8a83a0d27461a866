"""Every value that the chart's schema names is tried, and changes the manifests as it says."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from rendering import ADDRESSES, NAMESPACE, RELEASE

from chartgen.render import CHART, template

#: All that can be switched on is, so that what is below it can be seen.
BASE: dict[str, Any] = {
    "clusterName": "east",
    "connection.spec": {"addresses": ADDRESSES, "auth": {"kubernetes": {"authMethod": "east"}}},
    "connection.loginToken.enabled": True,
    "watch.namespaces": ["shop"],
    "metrics.serviceMonitor.enabled": True,
    "metrics.podMonitor.enabled": True,
    "metrics.prometheusRule.enabled": True,
    "metrics.dashboard.enabled": True,
    "networkPolicy.enabled": True,
    "statusPage.enabled": True,
    "traces.enabled": True,
    "traces.endpoint": "http://collector:4318",
    "traces.headersSecret.name": "headers",
}
PEER = [{"podSelector": {"matchLabels": {"tried": "peer"}}}]
ENV = [{"name": "TRIED", "value": "env"}]

#: A value for each, and what only manifests with it, or only those without it, say.
TRIED: dict[str, tuple[Any, str]] = {
    "clusterName": ("tried", "--cluster-name=tried"),
    "nameOverride": ("tried", "name: prod-tried"),
    "fullnameOverride": ("tried", "name: tried"),
    "commonLabels": ({"tried": "label"}, "tried: label"),
    "commonAnnotations": ({"tried": "annotation"}, "tried: annotation"),
    "image.repository": ("tried.example/image", "tried.example/image:"),
    "image.tag": ("tried", "consul-registrar:tried"),
    "image.digest": (f"sha256:{'7' * 64}", f"@sha256:{'7' * 64}"),
    "image.pullPolicy": ("Never", "imagePullPolicy: Never"),
    "imagePullSecrets": ([{"name": "tried"}], "name: tried"),
    "connection.create": (False, "kind: ConsulConnection"),
    "connection.name": ("tried", "name: tried"),
    "connection.spec": ({"policy": "Observe"}, "policy: Observe"),
    "connection.loginToken.enabled": (False, "serviceAccountToken:"),
    "connection.loginToken.audience": ("tried", 'audience: "tried"'),
    "connection.loginToken.expirationSeconds": (777, "expirationSeconds: 777"),
    "watch.namespaces": (["tried"], "--namespaces=tried"),
    "watch.podSelector": ("tried=yes", "--pod-selector=tried=yes"),
    "watch.resync": (777, "--resync=777"),
    "readinessGate.enabled": (False, "--readiness-gate=false"),
    "annotatedWorkloads.enabled": (True, "--annotated-workloads=true"),
    "crds.upgrade": (False, "helm.sh/hook: pre-upgrade"),
    "rbac.create": (False, "resources: [nodes]"),
    "rbac.aggregate": (False, "aggregate-to-edit"),
    "rbac.secrets": ([{"namespace": "tried"}], "namespace: tried"),
    "serviceAccount.create": (False, "serviceAccountName: default"),
    "serviceAccount.name": ("tried", "serviceAccountName: tried"),
    "serviceAccount.annotations": ({"tried": "account"}, "tried: account"),
    "replicas": (7, "replicas: 7"),
    "strategy": ({"type": "Recreate", "rollingUpdate": None}, "type: Recreate"),
    "terminationGracePeriodSeconds": (77, "terminationGracePeriodSeconds: 77"),
    "revisionHistoryLimit": (7, "revisionHistoryLimit: 7"),
    "podDisruptionBudget.enabled": (False, "kind: PodDisruptionBudget"),
    "podDisruptionBudget.maxUnavailable": ("77%", "maxUnavailable: 77%"),
    "log.format": ("console", "--log-format=console"),
    "log.level": ("debug", "--log-level=debug"),
    "resources": ({"limits": {"memory": "777Mi"}}, "memory: 777Mi"),
    "podSecurityContext": ({"fsGroup": 777}, "fsGroup: 777"),
    "securityContext": ({"runAsUser": 777}, "runAsUser: 777"),
    "livenessProbe": ({"failureThreshold": 77}, "failureThreshold: 77"),
    "readinessProbe": ({"periodSeconds": 77}, "periodSeconds: 77"),
    "startupProbe": ({"failureThreshold": 777}, "failureThreshold: 777"),
    "podLabels": ({"tried": "pod"}, "tried: pod"),
    "podAnnotations": ({"tried": "pod"}, "tried: pod"),
    "nodeSelector": ({"tried": "node"}, "tried: node"),
    "tolerations": ([{"key": "tried"}], "key: tried"),
    "affinity": ({"nodeAffinity": {}}, "nodeAffinity: {}"),
    "topologySpreadConstraints": ([{"maxSkew": 7, "topologyKey": "tried"}], "topologyKey: tried"),
    "priorityClassName": ("tried", "priorityClassName: tried"),
    "runtimeClassName": ("tried", "runtimeClassName: tried"),
    "hostAliases": ([{"ip": "192.0.2.7", "hostnames": ["tried"]}], "ip: 192.0.2.7"),
    "dnsPolicy": ("Default", "dnsPolicy: Default"),
    "dnsConfig": ({"searches": ["tried.example"]}, "tried.example"),
    "extraEnv": (ENV, "name: TRIED"),
    "extraArgs": (["--tried"], "- --tried"),
    "extraContainers": ([{"name": "tried", "image": "tried.example/proxy"}], "image: tried.example/proxy"),
    "initContainers": ([{"name": "tried", "image": "tried.example/first"}], "image: tried.example/first"),
    "extraVolumes": ([{"name": "tried", "emptyDir": {}}], "name: tried"),
    "extraVolumeMounts": ([{"name": "x", "mountPath": "/tried"}], "mountPath: /tried"),
    "extraObjects": (["{apiVersion: v1, kind: ConfigMap, metadata: {name: tried}}"], "name: tried"),
    "metrics.perRegistration": (False, "--registration-metrics=false"),
    "metrics.service.port": (7777, "port: 7777"),
    "metrics.service.annotations": ({"tried": "service"}, "tried: service"),
    "metrics.serviceMonitor.enabled": (False, "kind: ServiceMonitor"),
    "metrics.podMonitor.enabled": (False, "kind: PodMonitor"),
    **{
        f"metrics.{monitor}.{name}": tried
        for monitor in ("serviceMonitor", "podMonitor")
        for name, tried in {
            "labels": ({"tried": "monitor"}, "tried: monitor"),
            "annotations": ({"tried": "note"}, "tried: note"),
            "relabelings": ([{"targetLabel": "tried"}], "targetLabel: tried"),
            "interval": ("77s", "interval: 77s"),
            "scrapeTimeout": ("7s", "scrapeTimeout: 7s"),
            "metricRelabelings": ([{"action": "drop", "regex": "tried"}], "regex: tried"),
        }.items()
    },
    "metrics.prometheusRule.enabled": (False, "kind: PrometheusRule"),
    "metrics.prometheusRule.labels": ({"tried": "rule"}, "tried: rule"),
    "metrics.prometheusRule.alertLabels": ({"tried": "alert"}, "tried: alert"),
    "metrics.prometheusRule.runbookUrl": ("https://tried.example", "https://tried.example#"),
    "metrics.prometheusRule.disabled": (["ConsulRegistrarSlow"], "ConsulRegistrarSlow"),
    "metrics.dashboard.enabled": (False, "name: prod-consul-registrar-dashboard"),
    "metrics.dashboard.labels": ({"tried": "dashboard"}, "tried: dashboard"),
    "metrics.dashboard.annotations": ({"tried": "folder"}, "tried: folder"),
    "traces.enabled": (False, "--traces=true"),
    "traces.endpoint": ("https://tried.example", "value: https://tried.example"),
    "traces.sampler": ("always_on", "value: always_on"),
    "traces.samplerArg": (0.07, 'value: "0.07"'),
    "traces.resourceAttributes": ({"tried": "a b,c+d"}, "value: tried=a%20b%2Cc%2Bd"),
    "traces.headersSecret.name": ("tried", "name: tried"),
    "traces.headersSecret.key": ("tried", "key: tried"),
    "statusPage.enabled": (False, "targetPort: status"),
    "statusPage.hosts": (["page.tried.example"], "page.tried.example"),
    "statusPage.service.enabled": (False, "targetPort: status"),
    "statusPage.service.port": (7777, "port: 7777"),
    "statusPage.service.annotations": ({"tried": "page"}, "tried: page"),
    "networkPolicy.enabled": (False, "kind: NetworkPolicy"),
    "networkPolicy.scrapersFrom": (PEER, "tried: peer"),
    "networkPolicy.readersFrom": (PEER, "tried: peer"),
    "networkPolicy.apiServerPorts": ([7777], "7777"),
    "networkPolicy.consulPorts": ([7777], "7777"),
    "networkPolicy.consulTo": (PEER, "tried: peer"),
    "networkPolicy.collectorPorts": ([7777], "7777"),
    "networkPolicy.collectorTo": (PEER, "tried: peer"),
    "networkPolicy.extraEgress": ([{"to": PEER}], "tried: peer"),
    "test.podLabels": ({"tried": "test"}, "tried: test"),
    "test.timeout": (777, 'value: "777"'),
}
ELSEWHERE = {
    "global": "no template reads it: Helm hands a parent chart's down",
    "metrics.service.enabled": "test_what_is_switched_off_is_not_there: a ServiceMonitor needs it",
}


def leaves(node: dict[str, Any], above: str = "") -> Iterator[str]:
    """The values of the schema that have no values of their own; a connection's spec is handed on as it is."""
    for name, child in node.get("properties", {}).items():
        path = f"{above}{name}"
        inner = list(leaves(child, f"{path}."))
        yield from inner or [path]


def given(values: dict[str, Any]) -> dict[str, Any]:
    """A tree of values, of their paths."""
    tree: dict[str, Any] = {}
    for path, value in values.items():
        *above, last = path.split(".")
        into = tree
        for step in above:
            into = into.setdefault(step, {})
        into[last] = value
    return tree


def lines(values: dict[str, Any]) -> set[str]:
    rendered = template(given(values), f"--namespace={NAMESPACE}", release=RELEASE)
    return {line.strip() for line in rendered.splitlines()}


@pytest.fixture(scope="module")
def base() -> set[str]:
    return lines(BASE)


def test_every_value_of_the_schema_is_tried() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(leaves(schema)) == TRIED.keys() | ELSEWHERE.keys()


@pytest.mark.parametrize("path", TRIED)
def test_a_value_changes_what_it_says(base: set[str], path: str) -> None:
    value, says = TRIED[path]
    over = {**BASE[path], **value} if isinstance(BASE.get(path), dict) else value
    found = lines(BASE | {path: over})
    assert [line for line in base ^ found if says in line]
