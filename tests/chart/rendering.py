"""The chart as Helm renders it, by values, and how its objects are looked at."""

from typing import Any

from chartgen.render import documents, template

Objects = list[dict[str, Any]]
ADDRESSES = ["http://consul-server.consul:8500"]
RELEASE, NAMESPACE = "prod", "discovery"
NAME = "prod-consul-registrar"
WIDE = f"{NAME}-{NAMESPACE}"
"""The name of what no namespace has."""


def rendered(*arguments: str, **values: Any) -> Objects:
    """The objects for these values and what must be set; keys with `__` for dots, None takes a value out."""
    whole: dict[str, Any] = {"clusterName": "east", "connection": {"spec": {"addresses": ADDRESSES}}}
    for key, value in values.items():
        _put(whole, key.split("__"), value)
    return documents(template(whole, f"--namespace={NAMESPACE}", *arguments, release=RELEASE))


def _put(into: dict[str, Any], path: list[str], value: Any) -> None:
    *above, last = path
    for step in above:
        into = into.setdefault(step, {})
    if value is None:
        del into[last]
    else:
        into[last] = value


def one(objects: Objects, kind: str, name: str = NAME) -> dict[str, Any]:
    (found,) = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def kinds(objects: Objects) -> set[str]:
    return {each["kind"] for each in objects}


def pod(objects: Objects) -> dict[str, Any]:
    found: dict[str, Any] = one(objects, "Deployment")["spec"]["template"]
    return found


def container(objects: Objects) -> dict[str, Any]:
    (found,) = pod(objects)["spec"]["containers"]
    return dict(found)


def rules(objects: Objects, kind: str, name: str) -> set[tuple[str, str, str]]:
    """What a role allows: verb, resource, and the name where it is bound to one."""
    return {
        (verb, resource, name)
        for rule in one(objects, kind, name)["rules"]
        for verb in rule["verbs"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", ("",))
    }
