"""The story that the demo tells, one function a step; each shows what Consul and Kubernetes say, and asserts it."""

from __future__ import annotations

import shutil
from pathlib import Path

from demo.dns import ask
from demo.show import Show
from demo.stage import Stage, log
from demo.world import Absence, Consul, Instance, NotTrueError, Termination, eventually

EXAMPLES = Path("manifests/examples")
MANIFEST = Path("dev/demo/web.yaml")
HEALTH = "dev.consul-registrar.dev/health"

TO_TRY = """\
Everything keeps running. In a shell of your own:

    eval "$(make -s cluster-env)"
    kubectl get sreg,cconn -o wide
    kubectl describe sreg web
    kubectl scale deployment/web --replicas=10
    kubectl patch sreg web --type=merge -p '{{"spec": {{"service": {{"port": "htpp"}}}}}}'   # a mistake; see get sreg
    curl -s "$CONSUL_HTTP_ADDR/v1/health/service/web?passing" | python3 -m json.tool
    consul catalog services -tags
    kubectl apply -f manifests/examples/06-batch.yaml                         # more examples are beside it
    tail -f {log}

Consul's web UI:  {ui}
To end it all:    make demo-down"""


class Story:
    """Tells the steps in their order."""

    def __init__(self, stage: Stage, show: Show) -> None:
        self._stage = stage
        self._show = show
        self._consul = Consul(stage.consul)

    def tell(self) -> None:
        """All steps; raises NotTrueError at the first that isn't true."""
        self.connect()
        self.register()
        self.scale()
        self.turn_critical()
        self.delete_a_pod()
        self.resolve()
        self.register_the_outside()
        self.end()

    def connect(self) -> None:
        """Tell the operator where Consul is."""
        self._show.step("Tell the operator where Consul is: an agent on each node")
        self._kubectl("apply", "-f", str(EXAMPLES / "01-connection-agent-on-each-node.yaml"))
        self._kubectl("wait", "--for=condition=Ready", "cconn/default", "--timeout=60s")
        answer = self._kubectl("get", "cconn")
        _prove("True" in answer, "the connection is ready")

    def register(self) -> None:
        """Three Pods and a registration."""
        self._show.step("Three Pods and a registration")
        self._kubectl("apply", "-f", str(MANIFEST))
        self._kubectl("rollout", "status", "deployment/web", "--timeout=60s")
        instances = self._await_web("three instances of web are in Consul, all checks passing", passing=3)
        self._kubectl("wait", "--for=condition=Ready", "sreg/web", "--timeout=60s")
        self._registered(3)
        self._asked("web", instances)
        pods = self._pods()
        _prove({i.name for i in instances} == pods, "Consul's instances are the three Pods")
        self._show.proved("every Pod is in Consul on its node's agent; the agents ask /health themselves, and pass")

    def scale(self) -> None:
        """Three become five."""
        self._show.step("Scale to five")
        self._kubectl("scale", "deployment/web", "--replicas=5")
        instances = self._await_web("five instances of web are in Consul, all checks passing", passing=5)
        self._registered(5)
        self._asked("web", instances)
        self._show.proved("five instances, all passing")

    def turn_critical(self) -> None:
        """A Pod whose /health fails."""
        self._show.step("A Pod whose /health fails turns critical; callers that ask for healthy ones no longer see it")
        pod = self._consul.instances("web")[0].name
        self._kubectl("annotate", "--overwrite", "pod", pod, f"{HEALTH}=503")
        instances = self._await_web(f"{pod} is critical and four are passing", passing=4, critical=pod)
        self._asked("web", instances)
        healthy, _ = self._consul.get("/v1/health/service/web?passing")
        _prove(len(healthy) == 4, "?passing gives the four healthy instances")
        self._show.proved(f"{pod} is critical; /v1/health/service/web?passing gives {len(healthy)} instances")
        self._kubectl("annotate", "pod", pod, f"{HEALTH}-")
        self._await_web(f"{pod} is passing again", passing=5)
        self._show.proved("and well again")

    def delete_a_pod(self) -> None:
        """A Pod goes, with the time that it took."""
        self._show.step("Delete a Pod: it is gone from Consul the moment it starts to terminate")
        pod = self._consul.instances("web")[0].name
        kubeconfig = Path(self._stage.environment["KUBECONFIG"])
        with Termination(kubeconfig, "default", pod) as told, Absence(self._consul, "web", pod) as absent:
            self._kubectl("delete", "pod", pod, "--wait=false")
            begun = eventually(f"the API server tells that {pod} terminates", lambda: told.since)
            gone = eventually(f"{pod} is gone from Consul", lambda: absent.since)
        self._show.proved(
            f"gone {max(0.0, gone - begun) * 1000:.0f} ms after the API server told of its termination "
            "(both seen by watching: the API server's events, a blocking query at Consul)"
        )
        instances = self._await_web("a successor has taken its place", passing=5)
        _prove(pod not in {i.name for i in instances}, f"{pod} stays away")
        self._asked("web", instances)

    def resolve(self) -> None:
        """DNS."""
        self._show.step("Ask Consul's DNS")
        instances = self._await_web("five instances are passing", passing=5)
        addresses = {i.address for i in instances}
        host, port = self._stage.dns

        def resolved() -> bool | None:
            return {r.data for r in ask(host, port, "web.service.consul").answers} == addresses or None

        eventually("DNS gives the addresses of all five", resolved)
        self._dig("web.service.consul", "A")
        self._dig("web.service.consul", "SRV")
        found = ask(host, port, "web.service.consul", "SRV")
        _prove({r.data for r in found.additional if r.type == "A"} == addresses, "SRV gives all addresses")
        _prove(len(found.answers) == len(instances), "SRV gives each instance with its port")
        self._show.proved("five addresses, five ports")

    def register_the_outside(self) -> None:
        """An external service."""
        self._show.step("A service outside the cluster, by its addresses")
        self._kubectl("apply", "-f", str(EXAMPLES / "07-external-service.yaml"))

        def there() -> list[Instance] | None:
            found = self._consul.instances("orders-db")
            return found if [i.name for i in found] == ["primary", "replica"] else None

        self._asked("orders-db", eventually("both endpoints of orders-db are in Consul", there))
        self._dig("replica.orders-db.service.consul", "A")
        self._registered(5)
        self._show.proved("it is found like any other service")

    def end(self) -> None:
        """What to try next."""
        self._show.step("Yours to play with")
        self._show.text(TO_TRY.format(log=log(), ui=self._stage.ui))

    # how steps act and look

    def _kubectl(self, *arguments: str) -> str:
        answer = self._stage.run("kubectl", *arguments)
        self._show.command("kubectl", *arguments, answer=answer)
        return answer

    def _registered(self, count: int) -> None:
        """`kubectl get sreg` says so too: all registered, all passing. Status is written at most once a second."""

        def says() -> bool | None:
            line = self._stage.run("kubectl", "get", "sreg", "web", "--no-headers").split()
            return line[1:5] == ["True", "web", f"{count}/{count}", str(count)] or None

        eventually(f"kubectl get sreg says that {count} of {count} are registered and passing", says)
        self._kubectl("get", "sreg")

    def _asked(self, service: str, instances: list[Instance]) -> None:
        self._show.typed(f"curl {self._stage.consul}/v1/health/service/{service}     (as a table)")
        self._show.instances(instances)

    def _await_web(self, claim: str, *, passing: int, critical: str = "") -> list[Instance]:
        def there() -> list[Instance] | None:
            instances = self._consul.instances("web")
            sick = [i.name for i in instances if not i.passing]
            right = len(instances) - len(sick) == passing and sick == ([critical] if critical else [])
            return instances if right else None

        return eventually(claim, there)

    def _pods(self) -> set[str]:
        names = self._stage.run("kubectl", "get", "pods", "-l", "app=web", "-o", "name")
        return {name.removeprefix("pod/") for name in names.splitlines()}

    def _dig(self, name: str, kind: str) -> None:
        """By dig itself where it is installed, else by a client of our own that writes the same."""
        host, port = self._stage.dns
        if shutil.which("dig"):
            command = ("dig", f"@{host}", "-p", str(port), name, kind, "+noall", "+answer", "+additional")
            self._show.command(*command, answer=self._stage.run(*command))
            return
        answer = ask(host, port, name, kind)
        _prove(answer.code == "NOERROR" and bool(answer.answers), f"DNS answers for {name} {kind}, not {answer.code}")
        self._show.typed(
            f"dig @{host} -p {port} {name} {kind}     (dig is not installed: asked by a client of the demo)"
        )
        self._show.text("\n".join([";; ANSWER SECTION:", *map(str, answer.answers)]))
        addresses = [str(record) for record in answer.additional if record.type == "A"]
        if addresses:
            self._show.text("\n".join([";; ADDITIONAL SECTION:", *addresses]))


def _prove(fact: bool, claim: str) -> None:
    if not fact:
        raise NotTrueError(claim)
