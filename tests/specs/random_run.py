"""Registrations, Pods and a Service come, change and go by chance; once all is calm nothing is wrong, nothing is left.

What is asked in the end: each registration is as a copy of it that has never been anything else; an operator that
starts anew writes nothing; when all are deleted Consul has nothing of them. What the log must not say is for the
operator's fixture to ask.
"""

import time
from contextlib import suppress

from operator_world import MERGE, Operator, World, eventually

from devcluster.kube import ApiError, KubectlError
from specs.edits import told
from specs.shop import LANES, Shop
from specs.standing import in_catalog, leftovers

_APPS = ("web", "db")
_SERVICE = "/services/web/status"
_CALM = 3.0
"""Seconds after a restart in which nothing is written; what is late is found by the end."""


class Run:
    """One run in a namespace of its own, of which a seed decides all but the times."""

    def __init__(self, shop: Shop, registrations: int) -> None:
        self.shop, self.world, self.chance = shop, shop.world, shop.chance
        self._names = [f"r{number}" for number in range(registrations)]
        self._made = 2
        self._acts = (self._put, self._put, self._put, self._delete, self._pod, self._end, self._steer, self._service)

    def step(self) -> None:
        """One change of something."""
        with suppress(ApiError, KubectlError):  # it went meanwhile, or is there already
            self.chance.choice(self._acts)()
        time.sleep(self.chance.choice((0, 0.05, 0.3)))

    def _put(self) -> None:
        name = self.chance.choice(self._names)
        spec = self.shop.specs.get(name)
        lane = self.chance.choice(LANES)
        if spec is None or self.chance.random() < 0.3:
            self.shop.put(name, self.shop.spec(name, lane) | {"suspend": self.chance.random() < 0.1})
        else:
            self.shop.put(name, self.shop.chances(name, lane).edited(spec))

    def _delete(self) -> None:
        if self.shop.specs:
            self.shop.delete(self.chance.choice(sorted(self.shop.specs)))

    def _pod(self) -> None:
        self._made += 1
        app = self.chance.choice(_APPS)
        self.world.apply(self.shop.pod(f"{app}-{self._made}", app))

    def _end(self) -> None:
        name = self._some_pod()
        if self.chance.random() < 0.2:
            self.world.annotate(name, phase="Succeeded")
        grace = self.chance.choice(("--grace-period=0", "--grace-period=1"))
        self.world.kubectl("delete", "pod", name, "--wait=false", grace, *(["--force"] if grace[-1] == "0" else []))

    def _steer(self) -> None:
        name = self._some_pod()
        match self.chance.choice(("ready", "label", "restart")):
            case "ready":
                self.world.annotate(name, ready=self.chance.choice(("false", None)))
            case "label":
                self.world.kubectl(
                    "label", "--overwrite", "pod", name, f"track={self.chance.choice(('stable', 'canary'))}"
                )
            case _:
                self.world.annotate(name, restarts=str(self.chance.randint(1, 9)))

    def _some_pod(self) -> str:
        return self.chance.choice(sorted({**self.world.pods("web"), **self.world.pods("db")}) or ["none"])

    def _service(self) -> None:
        addresses = self.chance.sample(("203.0.113.7", "203.0.113.8", "203.0.113.9"), self.chance.randint(0, 2))
        status = {"status": {"loadBalancer": {"ingress": [{"ip": address} for address in addresses]}}}
        path = f"/api/v1/namespaces/{self.world.namespace}{_SERVICE}"
        self.world.cluster.api.request("PATCH", path, status, MERGE)

    def calm(self) -> None:
        """Nothing is suspended or unready any more."""
        for name, spec in sorted(self.shop.specs.items()):
            self.shop.put(name, spec | {"suspend": False})
        for name in sorted({**self.world.pods("web"), **self.world.pods("db")}):
            self.world.annotate(name, ready=None)
        self.shop.settled(self.shop.specs)


def play(shop: Shop, operator: Operator, steps: int) -> int:
    """So many changes, and then all that is asked; returns how many registrations stood as their copies do."""
    world = shop.world
    shop.furnish()
    run = Run(shop, registrations=6)
    for _ in range(steps):
        run.step()
    run.calm()
    whole = _is_as_copies(shop)
    _is_calm_over_a_restart(world, operator, whole)
    for name in sorted(shop.specs):
        shop.delete(name)
    eventually(lambda: not shop.found())
    eventually(lambda: leftovers(world.cluster, world.namespace) == [])
    return len(whole)


def _is_as_copies(shop: Shop) -> set[str]:
    """Returns the registrations of which something stands and nothing waits."""
    copies = {name: f"{name}copy" for name in sorted(shop.specs)}
    for name, copy in copies.items():
        shop.put(copy, shop.renamed(shop.specs[name], name, copy))

    def alike() -> list[set[str]]:
        says, now = shop.settled(shop.specs), told(shop)
        assert {name: says[name] for name in copies} == {name: says[copy] for name, copy in copies.items()}
        whole = [name for name in copies if says[name][0] == "True"]
        differing = {name: set(now[name]) ^ set(now[copies[name]]) for name in whole if now[name] != now[copies[name]]}
        assert not differing, (differing, {name: shop.specs[name] for name in differing})
        return [{name for name in whole if now[name]}]

    return eventually(alike)[0]


def _is_calm_over_a_restart(world: World, operator: Operator, whole: set[str]) -> None:
    """Of the others a removal may still wait for its confirmation."""

    def written() -> dict[tuple[str, str], int]:
        standing = in_catalog(world.cluster, world.namespace)
        mine = [each for each in standing if each.registration in whole]
        return {(each.where, each.service["ID"]): each.service["ModifyIndex"] for each in mine}

    before, said = written(), len(operator.log)
    operator.restart()
    eventually(lambda: 'leader_election_master_status{name="consul-registrar"} 1.0' in operator.get("/metrics"))
    time.sleep(_CALM)
    now = written()
    audit = [line for line in operator.log[said:].splitlines() if '"operation"' in line]
    assert now == before, (set(now.items()) ^ set(before.items()), audit)
