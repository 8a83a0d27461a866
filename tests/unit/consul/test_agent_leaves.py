"""Who waits for an agent that was never asked is told when nobody will ask it any more."""

from collections.abc import Mapping

import pytest

from consul_registrar.consul import AgentRegistry, AgentSettings
from consul_registrar.model import CONNECTING, Node, Reason


def nodes(**addresses: str) -> Mapping[str, Node]:
    return {name: Node(f"uid-{name}", name, 1, {}, {"InternalIP": address}) for name, address in addresses.items()}


@pytest.mark.parametrize("after", [nodes(), nodes(one="127.0.0.3")], ids=["deleted", "moved"])
def test_an_agent_that_goes_before_its_first_answer_wakes_who_waited_for_it(after: Mapping[str, Node]) -> None:
    told: list[str] = []
    registry = AgentRegistry("default", "tests", AgentSettings(), lambda _: None, on_agent=told.append)
    registry.set_nodes(nodes(one="127.0.0.2"))
    waits = registry.place(None, "shop/web/endpoint", ())
    assert isinstance(waits, Reason)
    assert waits.code == CONNECTING
    registry.set_nodes(after)
    assert told == ["one"]
