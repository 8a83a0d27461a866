"""What becomes of a Consul node that holds something of ours and is no agent's of the connection."""

import pytest

from consul_registrar.consul.fates import Agent, Fate, Leftover, Member, fate

ALIVE, LEAVING, LEFT, FAILED = (Member("10.0.0.9", status) for status in (1, 2, 3, 4))
MET = Agent("k8s-1", "10.0.0.1", "node-1")
UNMET = Agent("k8s-9", "10.0.0.9", "")


def leftover(**fields):
    known = {"addresses": frozenset({"10.0.0.9"}), "stood_on": frozenset({"k8s-9"}), "healthy": False}
    return Leftover("node-9", **(known | fields))


@pytest.mark.parametrize(
    ("member", "becomes"),
    [(ALIVE, Fate.MEET), (LEAVING, Fate.WAIT), (LEFT, Fate.GONE), (FAILED, Fate.GONE), (None, Fate.GONE)],
)
def test_who_lives_is_met_and_who_is_gone_is_cleaned(member, becomes):
    assert fate(leftover(), member, [MET], ()) is becomes


@pytest.mark.parametrize("member", [LEFT, FAILED, None])
def test_what_the_servers_take_for_healthy_is_not_cleaned(member):
    assert fate(leftover(healthy=True), member, [MET], ()) is Fate.WAIT


@pytest.mark.parametrize("member", [ALIVE, LEAVING, LEFT, FAILED, None])
@pytest.mark.parametrize(
    "unmet",
    [
        UNMET,
        Agent("k8s-9", "10.0.0.77", ""),
        Agent("another", "10.0.0.9", ""),
        Agent("node-9", "10.0.0.77", ""),
    ],
)
def test_what_may_be_an_agent_that_was_not_met_yet_waits(member, unmet):
    assert fate(leftover(), member, [MET, unmet], ()) is Fate.WAIT


def test_an_agent_that_is_another_node_now_leaves_its_former_one_behind():
    """Replaced or renamed: the Kubernetes node is the same, and its agent is known."""
    replaced = Agent("k8s-9", "10.0.0.9", "node-9-new")
    assert fate(leftover(), FAILED, [MET, replaced], ()) is Fate.GONE
    assert fate(leftover(), ALIVE, [MET, replaced], ()) is Fate.MEET


@pytest.mark.parametrize("member", [ALIVE, FAILED, None])
def test_a_kubernetes_node_without_an_address_keeps_what_stands_there(member):
    assert fate(leftover(), member, [MET], {"k8s-9"}) is Fate.WAIT


def test_the_address_of_the_gossip_counts_as_that_of_the_catalog():
    elsewhere = leftover(addresses=frozenset({"192.0.2.1"}), stood_on=frozenset())
    assert fate(elsewhere, FAILED, [UNMET], ()) is Fate.WAIT
    assert fate(elsewhere, None, [UNMET], ()) is Fate.GONE
