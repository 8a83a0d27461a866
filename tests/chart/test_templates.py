"""What the chart renders, by values; Helm renders it, and the objects are judged."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from rendering import ADDRESSES, NAME, NAMESPACE, RELEASE, WIDE, Objects, container, kinds, one, pod, rendered

from chartgen.render import CHART, RenderError, documents, template
from consul_registrar.otel import variables


def test_the_defaults_bring_what_an_operator_needs_and_no_kind_that_a_cluster_may_lack() -> None:
    assert kinds(rendered("--no-hooks")) == {
        "ClusterRole", "ClusterRoleBinding", "ConsulConnection", "Deployment", "PodDisruptionBudget", "Role",
        "RoleBinding", "Service", "ServiceAccount",
    }  # fmt: skip


def test_the_definitions_come_first_and_are_no_templates() -> None:
    objects = rendered("--include-crds")
    assert [each["kind"] for each in objects][:2] == ["CustomResourceDefinition"] * 2
    assert "CustomResourceDefinition" not in kinds(rendered())


ARGUMENTS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("the name of the cluster", {}, ["--cluster-name=east"]),
    ("a Lease of the release's own", {}, [f"--lease={NAMESPACE}/{NAME}"]),
    ("JSON logs", {}, ["--log-format=json", "--log-level=info"]),
    ("console logs", {"log__format": "console", "log__level": "debug"}, ["--log-format=console", "--log-level=debug"]),
    ("namespaces", {"watch__namespaces": ["shop", "pay"]}, ["--namespaces=shop,pay"]),
    ("a Pod selector", {"watch__podSelector": "team in (a, b)"}, ["--pod-selector=team in (a, b)"]),
    ("how often to list", {"watch__resync": 60}, ["--resync=60"]),
    ("more arguments", {"extraArgs": ["--mode=Agent"]}, ["--mode=Agent"]),
]


@pytest.mark.parametrize(("values", "wanted"), [row[1:] for row in ARGUMENTS], ids=[row[0] for row in ARGUMENTS])
def test_the_operator_is_told(values: dict[str, Any], wanted: list[str]) -> None:
    assert set(wanted) <= set(container(rendered(**values))["args"])


def test_without_namespaces_and_selector_the_operator_is_told_of_none() -> None:
    assert not [each for each in container(rendered())["args"] if each.startswith(("--namespaces", "--pod-selector"))]


IMAGES: list[tuple[str, dict[str, Any], str]] = [
    ("the chart's version", {}, "consul-registrar:0.1.0"),
    ("another", {"image__repository": "r.example/cr", "image__tag": "7"}, "r.example/cr:7"),
    ("pinned", {"image__tag": "7", "image__digest": f"sha256:{'a' * 64}"}, f"consul-registrar@sha256:{'a' * 64}"),
]


@pytest.mark.parametrize(("values", "image"), [row[1:] for row in IMAGES], ids=[row[0] for row in IMAGES])
def test_the_image_is_the_tag_or_the_digest_for_every_pod(values: dict[str, Any], image: str) -> None:
    objects = rendered(**values)
    assert container(objects)["image"] == image
    assert one(objects, "Pod", f"{NAME}-test")["spec"]["containers"][0]["image"] == image


POD: list[tuple[str, dict[str, Any], Callable[[dict[str, Any]], Any], Any]] = [
    ("labels", {"podLabels": {"team": "x"}}, lambda p: p["metadata"]["labels"]["team"], "x"),
    ("annotations", {"podAnnotations": {"a": "b"}}, lambda p: p["metadata"]["annotations"]["a"], "b"),
    ("nodes", {"nodeSelector": {"disk": "ssd"}}, lambda p: p["spec"]["nodeSelector"], {"disk": "ssd"}),
    ("taints", {"tolerations": [{"operator": "Exists"}]}, lambda p: p["spec"]["tolerations"], [{"operator": "Exists"}]),
    ("affinity", {"affinity": {"nodeAffinity": {}}}, lambda p: p["spec"]["affinity"], {"nodeAffinity": {}}),
    ("priority", {"priorityClassName": "high"}, lambda p: p["spec"]["priorityClassName"], "high"),
    ("a runtime", {"runtimeClassName": "kata"}, lambda p: p["spec"]["runtimeClassName"], "kata"),
    ("hosts", {"hostAliases": [{"ip": "192.0.2.7"}]}, lambda p: p["spec"]["hostAliases"], [{"ip": "192.0.2.7"}]),
    ("a sidecar", {"extraContainers": [{"name": "x"}]}, lambda p: p["spec"]["containers"][1:], [{"name": "x"}]),
    ("who goes first", {"initContainers": [{"name": "x"}]}, lambda p: p["spec"]["initContainers"], [{"name": "x"}]),
    ("DNS", {"dnsPolicy": "None"}, lambda p: p["spec"]["dnsPolicy"], "None"),
    ("name servers", {"dnsConfig": {"searches": ["x"]}}, lambda p: p["spec"]["dnsConfig"], {"searches": ["x"]}),
    ("pull secrets", {"imagePullSecrets": [{"name": "p"}]}, lambda p: p["spec"]["imagePullSecrets"], [{"name": "p"}]),
    ("time to end", {"terminationGracePeriodSeconds": 9}, lambda p: p["spec"]["terminationGracePeriodSeconds"], 9),
    ("an account", {"serviceAccount__name": "me"}, lambda p: p["spec"]["serviceAccountName"], "me"),
    ("volumes", {"extraVolumes": [{"name": "v"}]}, lambda p: p["spec"]["volumes"], [{"name": "v"}]),
    ("mounts", {"extraVolumeMounts": [{"name": "v"}]}, lambda p: _first(p)["volumeMounts"], [{"name": "v"}]),
    ("variables", {"extraEnv": [{"name": "A", "value": "b"}]}, lambda p: _first(p)["env"][0]["value"], "b"),
    ("resources", {"resources": {"limits": {"cpu": "1"}}}, lambda p: _first(p)["resources"]["limits"]["cpu"], "1"),
    ("a probe", {"livenessProbe__periodSeconds": 3}, lambda p: _first(p)["livenessProbe"]["periodSeconds"], 3),
]  # fmt: skip


def _first(template: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = template["spec"]["containers"][0]
    return found


@pytest.mark.parametrize(("values", "look", "wanted"), [row[1:] for row in POD], ids=[row[0] for row in POD])
def test_values_of_the_pod_arrive_in_it(
    values: dict[str, Any], look: Callable[[dict[str, Any]], Any], wanted: Any
) -> None:
    assert look(pod(rendered(**values))) == wanted


def test_no_environment_variable_stands_twice() -> None:
    for each in rendered(extraEnv=[{"name": "A", "value": "b"}]):
        spec = each["spec"] if each["kind"] == "Pod" else each.get("spec", {}).get("template", {}).get("spec", {})
        for part in spec.get("containers", ()):
            names = [variable["name"] for variable in part.get("env", ())]
            assert len(names) == len(set(names))


def test_a_spread_constraint_without_a_selector_gets_that_of_the_operators_pods() -> None:
    (found,) = pod(rendered())["spec"]["topologySpreadConstraints"]
    selector = one(rendered(), "Deployment")["spec"]["selector"]
    assert found["labelSelector"] == selector


def test_a_spread_constraint_keeps_a_selector_of_its_own() -> None:
    spread = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    own = [{**spread, "labelSelector": selector} for selector in ({}, {"matchLabels": {"app": "x"}})]
    assert pod(rendered(topologySpreadConstraints=own))["spec"]["topologySpreadConstraints"] == own


def test_the_selectors_find_the_operators_pods_and_no_hooks() -> None:
    objects = rendered()
    operator = pod(objects)["metadata"]["labels"].items()
    hook = one(objects, "Pod", f"{NAME}-test")["metadata"]["labels"].items()
    for wanted in (
        one(objects, "Deployment")["spec"]["selector"]["matchLabels"].items(),
        one(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items(),
        one(objects, "Service", f"{NAME}-metrics")["spec"]["selector"].items(),
    ):
        assert wanted <= operator
        assert not wanted <= hook


@pytest.mark.parametrize(("values", "there"), [({}, True), ({"replicas": 1}, False), ({"replicas": 3}, True)])
def test_a_disruption_budget_is_for_several_replicas(values: dict[str, Any], there: bool) -> None:
    assert ("PodDisruptionBudget" in kinds(rendered(**values))) is there


def test_common_labels_and_annotations_are_on_every_object() -> None:
    for each in rendered(commonLabels={"team": "x"}, commonAnnotations={"owner": "shop"}, networkPolicy__enabled=True):
        assert each["metadata"]["labels"]["team"] == "x"
        assert each["metadata"]["annotations"]["owner"] == "shop"


def test_every_namespaced_object_names_its_namespace() -> None:
    wide = {"ClusterRole", "ClusterRoleBinding", "ConsulConnection"}
    for each in rendered(networkPolicy__enabled=True, metrics__podMonitor__enabled=True):
        assert ("namespace" in each["metadata"]) is (each["kind"] not in wide), each["metadata"]["name"]


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({}, NAME),
        ({"nameOverride": "cr"}, "prod-cr"),
        ({"nameOverride": "prod"}, "prod"),
        ({"fullnameOverride": "mine"}, "mine"),
    ],
)
def test_names_can_be_replaced(values: dict[str, Any], name: str) -> None:
    assert one(rendered(**values), "Deployment", name)


def test_long_names_leave_room_for_every_suffix() -> None:
    for each in rendered(fullnameOverride="n" * 63):
        assert len(each["metadata"]["name"]) <= 63 or each["kind"].startswith("ClusterRole")


def test_two_releases_of_one_name_in_two_namespaces_have_roles_of_their_own() -> None:
    values = {"clusterName": "east", "connection": {"create": False}}
    here, there = (
        {
            each["metadata"]["name"]
            for each in documents(template(values, f"--namespace={namespace}", release=RELEASE))
            if each["kind"].startswith("Cluster")
        }
        for namespace in ("a", "b")
    )
    assert not here & there


# the connection


def test_the_connection_is_in_catalog_mode_unless_said_otherwise_and_stays_at_uninstall() -> None:
    found = one(rendered(), "ConsulConnection", "default")
    assert found["spec"] == {"mode": "Catalog", "addresses": ADDRESSES}
    assert found["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_every_field_of_the_connection_can_be_given() -> None:
    spec = {"mode": "Agent", "nodeAgents": {"port": 8501}, "policy": "Observe"}
    found = one(rendered(connection={"name": "other", "spec": spec}), "ConsulConnection", "other")
    assert found["spec"] == spec


def test_a_token_for_the_login_is_mounted_where_the_connection_looks_for_it() -> None:
    login = {"authMethod": "east"}
    token = {"enabled": True, "audience": "consul", "expirationSeconds": 900}
    objects = rendered(connection__spec__auth={"kubernetes": login}, connection__loginToken=token)
    found = one(objects, "ConsulConnection", "default")["spec"]["auth"]["kubernetes"]
    (mount,) = container(objects)["volumeMounts"]
    (volume,) = pod(objects)["spec"]["volumes"]
    assert found == login | {"tokenFile": f"{mount['mountPath']}/token"}
    assert mount["name"] == volume["name"]
    assert volume["projected"]["sources"] == [
        {"serviceAccountToken": {"path": "token", "audience": "consul", "expirationSeconds": 900}}
    ]


def test_without_a_connection_none_is_made() -> None:
    assert "ConsulConnection" not in kinds(rendered(connection={"create": False}))


@pytest.mark.parametrize(
    ("values", "kind", "name"),
    [
        ({"rbac__create": False}, "ClusterRole", WIDE),
        ({"rbac__create": False}, "ClusterRole", f"{WIDE}-edit"),
        ({"rbac__aggregate": False}, "ClusterRole", f"{WIDE}-edit"),
        ({"serviceAccount__create": False}, "ServiceAccount", NAME),
        ({"metrics__service__enabled": False}, "Service", f"{NAME}-metrics"),
        ({"podDisruptionBudget__enabled": False}, "PodDisruptionBudget", NAME),
        ({"crds__upgrade": False}, "Job", f"{NAME}-crds"),
    ],
)
def test_what_is_switched_off_is_not_there(values: dict[str, Any], kind: str, name: str) -> None:
    def names(objects: Objects) -> set[tuple[str, str]]:
        return {(each["kind"], each["metadata"]["name"]) for each in objects}

    assert (kind, name) in names(rendered())
    assert (kind, name) not in names(rendered(**values))


# what is watched, and what is let through


@pytest.mark.parametrize("monitor", ["serviceMonitor", "podMonitor"])
def test_a_monitor_finds_what_it_scrapes(monitor: str) -> None:
    given = {"enabled": True, "labels": {"release": "p"}, "annotations": {"a": "b"}, "interval": "5s"}
    relabelings = {name: [{"targetLabel": name}] for name in ("relabelings", "metricRelabelings")}
    values = {f"metrics__{monitor}": given | relabelings}
    objects = rendered(**values)
    found = one(objects, monitor[0].upper() + monitor[1:])
    target = one(objects, "Service", f"{NAME}-metrics") if monitor == "serviceMonitor" else pod(objects)
    assert found["spec"]["selector"]["matchLabels"].items() <= target["metadata"]["labels"].items()
    assert found["metadata"]["labels"]["release"] == "p"
    assert found["metadata"]["annotations"]["a"] == "b"
    (endpoint,) = found["spec"]["endpoints" if monitor == "serviceMonitor" else "podMetricsEndpoints"]
    assert endpoint["port"] == "http"
    assert endpoint["interval"] == "5s"
    assert endpoint.items() >= relabelings.items()
    assert {"name": "http", "containerPort": 8080} in container(objects)["ports"]


def test_a_network_policy_lets_out_to_consul_and_the_api_server_and_in_to_metrics() -> None:
    peers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "consul"}}}]
    objects = rendered(networkPolicy={"enabled": True, "consulPorts": [18500], "consulTo": peers})
    spec = one(objects, "NetworkPolicy")["spec"]
    assert [port["port"] for rule in spec["ingress"] for port in rule["ports"]] == [8080]
    assert [port["port"] for rule in spec["egress"] for port in rule["ports"]] == [53, 53, 443, 6443, 18500]
    assert spec["egress"][-1]["to"] == peers
    for each in (pod(objects), one(objects, "Pod", f"{NAME}-test")):
        assert spec["podSelector"]["matchLabels"].items() <= each["metadata"]["labels"].items()


def test_the_status_page_is_served_and_let_in_only_where_it_is_asked_for() -> None:
    readers = [{"podSelector": {"matchLabels": {"app": "proxy"}}}]
    policy = {"networkPolicy": {"enabled": True, "readersFrom": readers, "scrapersFrom": [{"podSelector": {}}]}}
    for objects in (rendered(**policy), rendered(statusPage={"enabled": False}, **policy)):
        assert not any("--status-page-address" in argument for argument in container(objects)["args"])
        assert f"{NAME}-status" not in {each["metadata"]["name"] for each in objects}
        assert len(one(objects, "NetworkPolicy")["spec"]["ingress"]) == 1
    page = {"enabled": True, "hosts": ["page.example"], "service": {"port": 80, "annotations": {"a": "b"}}}
    objects = rendered(statusPage=page, **policy)
    assert "--status-page-address=0.0.0.0:8081" in container(objects)["args"]
    assert f"--status-page-hosts={NAME}-status.{NAMESPACE},page.example" in container(objects)["args"]
    (port,) = [each for each in container(objects)["ports"] if each["containerPort"] == 8081]
    service = one(objects, "Service", f"{NAME}-status")
    assert service["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": port["name"]}]
    assert service["metadata"]["annotations"] == {"a": "b"}
    assert service["spec"]["selector"].items() <= pod(objects)["metadata"]["labels"].items()
    ingress = one(objects, "NetworkPolicy")["spec"]["ingress"]
    assert [(rule["ports"][0]["port"], rule["from"]) for rule in ingress] == [
        (8080, [{"podSelector": {}}]),
        (8081, readers),
    ]


def test_a_status_page_without_a_service_is_for_those_who_forward_a_port() -> None:
    objects = rendered(statusPage={"enabled": True, "service": {"enabled": False}})
    assert "--status-page-address=0.0.0.0:8081" in container(objects)["args"]
    assert f"{NAME}-status" not in {each["metadata"]["name"] for each in objects}


def test_extra_objects_are_rendered_as_templates() -> None:
    given = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-a"}}
    text = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: "{{ .Values.clusterName }}-b"}\n'
    objects = rendered(extraObjects=[given, text])
    assert one(objects, "ConfigMap", f"{RELEASE}-a")
    assert one(objects, "ConfigMap", "east-b")


def test_the_pod_of_helm_test_is_where_the_operator_looks() -> None:
    values = {"watch__namespaces": ["shop"], "watch__podSelector": "team=x", "test__podLabels": {"team": "x"}}
    found = one(rendered(**values), "Pod", f"{NAME}-test")
    assert found["metadata"]["namespace"] == "shop"
    assert found["metadata"]["labels"]["team"] == "x"


TRACES = {"enabled": True, "endpoint": "http://collector.observability:4318"}


def test_traces_are_sent_where_they_are_asked_for_and_let_out_there_alone() -> None:
    peers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "observability"}}}]
    policy = {"networkPolicy": {"enabled": True, "collectorPorts": [14318], "collectorTo": peers}}
    for objects in (rendered(**policy), rendered(traces=TRACES | {"enabled": False}, **policy)):
        assert not any("--traces" in argument for argument in container(objects)["args"])
        assert "env" not in container(objects)
        assert not [rule for rule in one(objects, "NetworkPolicy")["spec"]["egress"] if rule.get("to")]
    given = {"samplerArg": 0.1, "headersSecret": {"name": "collector"}, "resourceAttributes": {"service.name": "cr"}}
    objects = rendered(traces=TRACES | given, extraEnv=[{"name": "A", "value": "b"}], **policy)
    assert "--traces=true" in container(objects)["args"]
    assert container(objects)["env"] == [
        {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector.observability:4318"},
        {"name": "OTEL_TRACES_SAMPLER", "value": "parentbased_traceidratio"},
        {"name": "OTEL_TRACES_SAMPLER_ARG", "value": "0.1"},
        {"name": "OTEL_RESOURCE_ATTRIBUTES", "value": "service.name=cr"},
        {
            "name": "OTEL_EXPORTER_OTLP_HEADERS",
            "valueFrom": {"secretKeyRef": {"name": "collector", "key": "headers"}},
        },
        {"name": "A", "value": "b"},
    ]
    (rule,) = [rule for rule in one(objects, "NetworkPolicy")["spec"]["egress"] if rule.get("to")]
    assert rule == {"ports": [{"port": 14318, "protocol": "TCP"}], "to": peers}


SAMPLERS = json.loads((CHART / "values.schema.json").read_text())["properties"]["traces"]["properties"]["sampler"][
    "enum"
]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_said_of_traces_the_operator_takes(sampler: str) -> None:
    traces = TRACES | {"sampler": sampler, "samplerArg": 0.000001, "resourceAttributes": {"service.name": "a b"}}
    variables.check({each["name"]: each["value"] for each in container(rendered(traces=traces))["env"]})


def test_a_sampler_that_asks_for_no_ratio_is_given_none() -> None:
    names = {each["name"] for each in container(rendered(traces=TRACES | {"sampler": "always_on"}))["env"]}
    assert names == {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_SAMPLER"}


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("a typing mistake", {"tpyo": 1}, "'tpyo' not allowed"),
    ("one further down", {"metrics__serviceMonitor__interval_": "1s"}, "'interval_' not allowed"),
    ("one in the status page", {"statusPage__service__prot": 80}, "'prot' not allowed"),
    ("a host with a port", {"statusPage__hosts": ["page.example:80"]}, "/statusPage/hosts/0"),
    ("one in the connection", {"connection__spec__adresses": ["http://c:8500"]}, "'adresses' not allowed"),
    ("one deep in the connection", {"connection__spec__tls": {"caFile": "/x"}}, "'caFile' not allowed"),
    ("no name of the cluster", {"clusterName": ""}, "clusterName must be set"),
    ("a name that Consul's nodes can't have", {"clusterName": "East_1"}, "/clusterName"),
    ("no address", {"connection__spec__addresses": None}, "connection.spec.addresses must be set"),
    ("an address that is none", {"connection__spec__addresses": ["consul:8500"]}, "/connection/spec/addresses/0"),
    ("a mode that isn't there", {"connection__spec__mode": "Sidecar"}, "/connection/spec/mode"),
    ("a token in the values", {"connection__spec__auth": {"token": "s3cret"}}, "/connection/spec/auth/token"),
    ("a token for no login", {"connection__loginToken": {"enabled": True}}, "needs connection.spec.auth.kubernetes"),
    ("a number as text", {"replicas": "two"}, "/replicas"),
    ("traces that go nowhere", {"traces__enabled": True}, "traces.endpoint must be set"),
    ("a collector without a scheme", {"traces__endpoint": "collector:4318"}, "/traces/endpoint"),
    ("a sampler that isn't there", {"traces__sampler": "sometimes"}, "/traces/sampler"),
    ("more than all traces", {"traces__samplerArg": 2}, "/traces/samplerArg"),
    ("headers in the values", {"traces__headers": "authorization=s3cret"}, "'headers' not allowed"),
    ("a variable of traces that is set already",
     {"traces": TRACES, "extraEnv": [{"name": "OTEL_TRACES_SAMPLER", "value": "always_on"}]},
     "extraEnv must leave out OTEL_TRACES_SAMPLER"),
    ("a digest that is none", {"image__digest": "abc"}, "/image/digest"),
    ("a level that isn't there", {"log__level": "trace"}, "/log/level"),
    ("a namespace that is none", {"watch__namespaces": ["Shop"]}, "/watch/namespaces/0"),
    ("a Secret without a namespace", {"rbac__secrets": [{"names": ["x"]}]}, "/rbac/secrets/0"),
    ("a ServiceMonitor without a Service",
     {"metrics__serviceMonitor__enabled": True, "metrics__service__enabled": False}, "needs metrics.service.enabled"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "says"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(RenderError) as refusal:
        rendered(**values)
    assert says in str(refusal.value)
