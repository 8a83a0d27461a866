"""Puts the parts together: a cluster as one thing to start, to use and to stop.

    with running(Options(nodes=2)) as cluster:
        cluster.kubectl("get", "nodes")
        cluster.consul.agents["node-1"].restart(keep_data=False)

Several clusters run side by side, each with addresses of its own. A cluster started here dies with the process that
started it, however that ends; `Options.detached` is for the command line, whose cluster stays.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from devcluster import tlsproxy
from devcluster.build import ensure_tools
from devcluster.consul import Consul, datacenter
from devcluster.kube import Api, ControlPlane, control_plane
from devcluster.kwok import create_nodes, kwok
from devcluster.net import Block, choose_port, claim_block
from devcluster.process import Home, Process, Program
from devcluster.tls import Authority
from devcluster.tools import TOOLS

DEV = Path(__file__).resolve().parent.parent
TLS = "tls"


@dataclass(frozen=True, slots=True)
class Options:
    """What a cluster is like."""

    nodes: int = 3
    agents: int | None = None
    """How many of the nodes have a Consul client agent; None: all."""
    consul_servers: int = 1
    """With three one may fail; clients of one that is cut off from the others find "No cluster leader"."""
    acls: bool = False
    """Consul with ACLs: default deny, `Cluster.consul.token` may do everything."""
    consul_tls: bool = False
    """Consul's servers and agents answer HTTPS too (`Member.https_addr`), trusted by `Cluster.authority`."""
    client_certificates: bool = False
    """… and let nobody in who shows no certificate of that authority."""
    routable_pods: bool = False
    """Give Pods addresses of 10.0.0.0/8: EndpointSlices may hold those, but nothing answers there."""
    audited: bool = False
    """The API server notes every request in `Cluster.control_plane.audit_log`."""
    detached: bool = False
    """Outlive the process that starts it, and answer at 127.0.0.1:8500 too where that is free."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster and its parts; each process can be stopped, killed, paused and started again by itself."""

    state: Path
    block: Block
    home: Home
    nodes: dict[str, str]
    """The names of the nodes and their addresses."""
    control_plane: ControlPlane
    consul: Consul
    kwok: Process
    pods: Process
    """What answers for the Pods; with routable Pods it does not run."""
    options: Options

    @classmethod
    def lay_out(cls, options: Options, state: Path) -> Self:
        """Decide everything and write all files into the state folder; nothing is started."""
        state.mkdir(parents=True, exist_ok=True)
        block = claim_block()
        home = Home(state, tethered=not options.detached, inherited=(block.claim.fileno(),))
        nodes = {f"node-{number}": block.node(number) for number in range(1, options.nodes + 1)}
        with_agent = dict(list(nodes.items())[: options.agents])
        plane = control_plane(home, block, audited=options.audited)
        return cls(
            state=state,
            block=block,
            home=home,
            nodes=nodes,
            control_plane=plane,
            consul=datacenter(
                home,
                block,
                with_agent,
                servers=options.consul_servers,
                acls=options.acls,
                on_localhost=options.detached,
                tls=Authority.at(state / TLS) if options.consul_tls else None,
                verify_incoming=options.client_certificates,
            ),
            kwok=kwok(home, block.routable_pod_network if options.routable_pods else block.pod_network, plane.api),
            pods=Process(_pod_runtime(state, plane.api), home),
            options=options,
        )

    @property
    def api(self) -> Api:
        """The API server, as an administrator."""
        return self.control_plane.api

    @property
    def api_url(self) -> str:
        """The URL of the API server."""
        return self.api.url

    @property
    def token(self) -> str:
        """The administrator's bearer token."""
        return self.api.token

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig for the administrator."""
        return self.api.kubeconfig

    @property
    def authority(self) -> Authority:
        """The cluster's own certificate authority, made when it is first asked for."""
        return Authority.at(self.state / TLS)

    @property
    def processes(self) -> tuple[Process, ...]:
        """All processes of the cluster."""
        plane = self.control_plane
        kubernetes = (plane.etcd, plane.apiserver, plane.controller_manager, plane.scheduler)
        return (*kubernetes, self.kwok, self.pods, *self.consul.processes)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl as the administrator and return what it prints."""
        return self.api.kubectl(*arguments, stdin=stdin)

    def start(self) -> None:
        """Start everything, Kubernetes and Consul at the same time; what has started ends when a part fails."""
        try:
            _together(self._start_kubernetes, self.consul.start)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all processes at once: nothing of theirs is kept."""
        for process in self.processes:
            process.kill()
        self.block.release()

    def _start_kubernetes(self) -> None:
        self.control_plane.start()
        create_nodes(self.api, self.nodes)
        self.kwok.start(wait=False)
        if not self.options.routable_pods:
            self.pods.start()
        self.control_plane.controller_manager.wait_ready()
        self.kwok.wait_ready()


@contextmanager
def running(options: Options = Options(), state: Path | None = None) -> Iterator[Cluster]:
    """A running cluster for the length of a block.

    A state folder that is given stays, with the logs in it; otherwise it is a temporary one and goes.
    """
    ensure_tools(say=lambda text: print(text, file=sys.stderr))
    folder = state or Path(tempfile.mkdtemp(prefix="consul-registrar-cluster-"))
    try:
        cluster = Cluster.lay_out(options, folder)
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        if state is None:
            shutil.rmtree(folder)


@dataclass(frozen=True, slots=True)
class TlsProxy:
    """A part's HTTPS front: a process of its own, which can be killed and paused like the others."""

    process: Process
    url: str


@contextmanager
def tls_proxy(
    cluster: Cluster,
    upstream: str,
    hosts: Sequence[str] = (),
    *,
    demand_client_certificate: bool = False,
    http2: bool = False,
) -> Iterator[TlsProxy]:
    """HTTPS in front of a part that speaks plain HTTP (its URL), for the length of a block.

    Its certificate is the cluster's authority's, for its address and the `hosts`; the clients that it may demand one
    of are that authority's too. `http2`: what is behind it speaks HTTP/2, as gRPC does.
    """
    number = next(n for n in count(1) if not (cluster.state / TLS / f"proxy-{n}").exists())
    authority, address = cluster.authority, cluster.block.proxy(number)
    certificate = authority.server(f"proxy-{number}", (address, *hosts))
    listen = (address, choose_port(address, 8501))
    clients = authority.certificate if demand_client_certificate else None
    behind = urlsplit(upstream).netloc
    name = f"tls-proxy-{number}"
    program = tlsproxy.program(name, listen, behind, certificate, clients, DEV, http2=http2)
    process = Process(program, cluster.home)
    process.start()
    try:
        yield TlsProxy(process, f"https://{listen[0]}:{listen[1]}")
    finally:
        process.kill()


def link_programs(folder: Path) -> None:
    """Put the programs that people use into one folder for PATH."""
    folder.mkdir(parents=True)
    for tool in TOOLS:
        for program in tool.programs or (tool.name,):
            (folder / program).symlink_to(tool.path(program))


def _pod_runtime(state: Path, api: Api) -> Program:
    ready_file = state / "pods.ready"
    command = (sys.executable, "-m", "devcluster.pods", str(api.kubeconfig), str(ready_file))

    def is_ready() -> bool:
        """The file names the process that wrote it; after a restart that must be the new one."""
        return ready_file.exists() and Path("/proc", ready_file.read_text()).exists()

    return Program("pods", command, ready=is_ready, environment={"PYTHONPATH": str(DEV)})


def _together(*tasks: Callable[[], None]) -> None:
    with ThreadPoolExecutor(max_workers=len(tasks)) as pool:
        for future in [pool.submit(task) for task in tasks]:
            future.result()
