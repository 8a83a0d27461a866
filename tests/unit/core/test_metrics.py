"""What is told of registrations, and by which labels."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from consul_registrar.cli.reference import _metrics
from consul_registrar.metrics import REGISTRY, STATES, ConsulWatches, Registrations
from consul_registrar.model import Health
from consul_registrar.tally import Outcome, Tally
from unit.core.build import KEY, registration

EACH = "consul_registrar_registration_"
#: What may tell series apart: kinds of things, and connections, which are few. Pods, errors and addresses are not.
BOUNDED = {
    "cause", "connection", "controller", "name", "operation", "outcome", "ready", "resource", "result", "state",
}  # fmt: skip


def told(collector: Registrations | ConsulWatches) -> dict[str, float]:
    """The value of each series."""
    registry = CollectorRegistry()
    registry.register(collector)
    return {
        ",".join((sample.name, *(sample.labels[label] for label in sorted(sample.labels)))): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def registrations(*, each: bool) -> dict[str, float]:
    tally = Tally()
    tally.put("default", "u1", Outcome("web-1", True, True, Health.PASSING), 0)
    return told(Registrations(lambda: {KEY: tally}, lambda: [registration()], each=each))


def test_each_registration_is_told_of_by_seven_series_which_can_be_switched_off() -> None:
    every = registrations(each=True)
    mine = {name for name in every if name.startswith(EACH)}
    assert mine == {f"{EACH}ready,web,shop"} | {f"{EACH}instances,web,shop,{state}" for state in STATES}
    assert (every[f"{EACH}instances,web,shop,passing"], every[f"{EACH}ready,web,shop"]) == (1, 0)
    assert registrations(each=False) == {name: value for name, value in every.items() if name not in mine}
    assert every["consul_registrar_instances,registered"] == 1
    assert every["consul_registrar_registrations,False"] == 1


def test_nothing_but_a_registrations_own_series_has_labels_without_bound() -> None:
    for name, _, labels, _ in _metrics():
        assert set(labels) <= BOUNDED or (name.startswith(EACH) and set(labels) <= {*BOUNDED, "namespace"}), name


def test_a_consul_without_watches_has_no_staleness() -> None:
    assert told(ConsulWatches(lambda: {"default": 2.0})) == {"consul_registrar_consul_staleness_seconds,default": 2}
    assert told(ConsulWatches(dict)) == {}


def test_what_the_process_uses_is_told_in_the_names_that_dashboards_of_controllers_ask_for() -> None:
    for name in ("process_cpu_seconds_total", "process_resident_memory_bytes"):
        assert REGISTRY.get_sample_value(name)
