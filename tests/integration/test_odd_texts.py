"""Texts that would mean something to somebody on the way are text in Consul, in both modes, and written once."""

from typing import Any

from operator_world import World, eventually, registration

from bad_input import INJECTIONS

PUBLISHED = [text for text in INJECTIONS if text.isprintable()]


def odd(name: str, connection: str) -> dict[str, Any]:
    """Injections wherever a text may stand: as they are where nothing is filled in, else escaped."""
    meta = {f"m{number}": text for number, text in enumerate(PUBLISHED)}
    escaped = [text.replace("$(", "$$(") for text in PUBLISHED]
    check = {"name": "port", "tcp": {}, "interval": "1h", "notes": "\n".join(INJECTIONS)}
    web = {"path": '/"},"Token":"stolen","x":{"', "headers": [{"name": "X-A", "value": 'x" or Meta["a"] == "b'}]}
    return registration(
        name,
        consulRefs=[{"name": connection}],
        service={"name": f"{name}-{connection}", "tags": escaped, "meta": dict(zip(meta, escaped, strict=True))},
        endpoints=[
            {"name": "one", "address": "192.0.2.1", "port": 80},
            {"name": "two", "address": "192.0.2.2", "port": 80, "meta": meta, "tags": ["$(reboot)"]},
        ],
        checks=[check, {"name": "web", "http": web, "interval": "1h"}],
    )


def test_they_are_nothing_but_text_in_consul_and_written_once(world: World, connection: str) -> None:
    service = f"odd-{connection}"
    world.cluster.api.request("POST", world.registrations, odd("odd", connection))
    eventually(lambda: world.health(service).keys() == {"one", "two"})
    world.says("odd", "Registered")
    before = indexes(world, service)
    for row in world.health(service).values():
        found = row["Service"]
        assert set(found["Tags"]) == set(PUBLISHED)
        assert [found["Meta"][f"m{number}"] for number in range(len(PUBLISHED))] == PUBLISHED
        (check,) = (check for check in row["Checks"] if check["Name"] == "port")
        assert check["Notes"] == "\n".join(INJECTIONS)
        assert found["Meta"]["k8s-registration"] == "odd"
    assert not any("stolen" in name for name in world.consul("/v1/catalog/services"))
    world.kubectl("annotate", "sreg", "odd", "consul-registrar.dev/resync=again")
    eventually(lambda: world.registration("odd")["status"].get("resync") == "again")
    world.says("odd", "Registered")
    assert indexes(world, service) == before


def indexes(world: World, service: str) -> dict[str, list[int]]:
    """When each instance and its checks were written last."""
    return {
        name: [row["Service"]["ModifyIndex"], *(c["ModifyIndex"] for c in row["Checks"] if c["ServiceID"])]
        for name, row in world.health(service).items()
    }
