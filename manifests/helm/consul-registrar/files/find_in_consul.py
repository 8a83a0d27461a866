"""`helm test`: registers the Pod that this runs in, finds it in Consul, takes it back, and finds it gone.

It asks Kubernetes and Consul by itself, with nothing of the operator's code: what it sees is what everybody sees.
"""

import base64
import http.client
import json
import os
import socket
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ACCOUNT = Path(os.environ.get("ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))
RESOURCES = "/apis/consul-registrar.dev/v1alpha1"
NAME = "consul-registrar-test"


class Refused(Exception):
    """An answer that isn't success; the message is what the server said."""


@dataclass(frozen=True)
class Api:
    """An HTTP API that speaks JSON."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    trust: ssl.SSLContext | None = None
    server_name: str = ""

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The decoded answer; None where the server says that there is no such thing. Raises Refused, OSError."""
        connection = self._connect()
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json", **self.headers})
            answer = connection.getresponse()
            said = answer.read().decode()
        finally:
            connection.close()
        if answer.status == http.client.NOT_FOUND:
            return None
        if answer.status >= http.client.MULTIPLE_CHOICES:
            raise Refused(f"{method} {self.url}{path}: {answer.status}: {said}")
        return json.loads(said)

    def _connect(self) -> http.client.HTTPConnection:
        place = urlsplit(self.url)
        host, port = place.hostname or "", place.port
        if self.trust is None:
            return http.client.HTTPConnection(host, port or 80, timeout=10)
        connection = http.client.HTTPSConnection(host, port or 443, timeout=10, context=self.trust)
        plain = socket.create_connection((host, port or 443), timeout=10)
        connection.sock = self.trust.wrap_socket(plain, server_hostname=self.server_name or host)
        return connection


def kubernetes() -> Api:
    """The API server, as the Pod's service account."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    token = (ACCOUNT / "token").read_text()
    trust = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    return Api(server, {"Authorization": f"Bearer {token}"}, trust)


def consul(api: Api, spec: dict[str, Any]) -> Api:
    """The Consul of a ConsulConnection: its first address, or the agent of this node."""
    agents = spec.get("nodeAgents")
    url = spec["addresses"][0] if agents is None else _on_this_node(agents)
    secure = url.startswith("https://")
    tls, auth = spec.get("tls") or {}, spec.get("auth") or {}
    authorities = _value(api, tls["ca"]) if "ca" in tls else None
    may_show = "token" in auth and (secure or auth.get("allowPlaintextToken"))
    headers = {"X-Consul-Token": _value(api, auth["token"]).strip()} if may_show else {}
    trust = ssl.create_default_context(cadata=authorities) if secure else None
    if trust is not None and "clientCertificate" in tls:
        _show(trust, "".join(_value(api, tls["clientCertificate"][part]) for part in ("certificate", "key")))
    return Api(url, headers, trust, tls.get("serverName", ""))


def _show(trust: ssl.SSLContext, pem: str) -> None:
    """The library reads files alone, and there is nothing to write to here but memory."""
    with os.fdopen(os.memfd_create("pem"), "w") as file:
        file.write(pem)
        file.flush()
        trust.load_cert_chain(f"/proc/self/fd/{file.fileno()}")


def _on_this_node(agents: dict[str, Any]) -> str:
    address = os.environ["HOST_IP"]
    host = f"[{address}]" if ":" in address else address
    return f"{agents.get('scheme', 'http')}://{host}:{agents.get('port', 8500)}"


def _value(api: Api, source: dict[str, Any]) -> str:
    """What a field of the connection refers to. A file is one of the operator's container, and not to be had here."""
    if "secretKeyRef" not in source:
        sys.exit(f"this test can't read {source}: it is a file of the operator's container")
    ref = source["secretKeyRef"]
    secret = api.ask("GET", f"/api/v1/namespaces/{ref['namespace']}/secrets/{ref['name']}")
    return base64.b64decode(secret["data"][ref["key"]]).decode()


def wait(what: str, look: Callable[[], tuple[bool, object]]) -> None:
    """Look until it is so. Exits with what was seen last where that takes too long."""
    deadline = time.monotonic() + float(os.environ["TIMEOUT"])
    seen: object = None
    while time.monotonic() < deadline:
        try:
            so, seen = look()
        except (Refused, OSError) as error:
            so, seen = False, error
        if so:
            print(f"ok: {what}", flush=True)
            return
        time.sleep(0.2)
    sys.exit(f"not so: {what}; seen last: {seen}")


def registration() -> dict[str, Any]:
    """The registration of this Pod alone, which goes with it."""
    owner = {"apiVersion": "v1", "kind": "Pod", "name": os.environ["POD_NAME"], "uid": os.environ["POD_UID"]}
    return {
        "apiVersion": "consul-registrar.dev/v1alpha1",
        "kind": "ServiceRegistration",
        "metadata": {"name": NAME, "ownerReferences": [owner]},
        "spec": {
            "consulRefs": [{"name": os.environ["CONNECTION"]}],
            "pods": {"selector": {"matchLabels": {"consul-registrar.dev/test": os.environ["RELEASE"]}}},
        },
    }


def main() -> None:
    """Register, find, take back, find gone."""
    api = kubernetes()
    connection = api.ask("GET", f"{RESOURCES}/consulconnections/{os.environ['CONNECTION']}")
    if connection is None:
        sys.exit(f"there is no ConsulConnection {os.environ['CONNECTION']}")
    spec = connection["spec"]
    site = None if "kubernetes" in (spec.get("auth") or {}) else consul(api, spec)
    if site is None:
        print("Consul isn't asked: this Pod can't log in as the operator does; the registration's status must do")
    collection = f"{RESOURCES}/namespaces/{os.environ['POD_NAMESPACE']}/serviceregistrations"

    def is_ready() -> tuple[bool, object]:
        status = (api.ask("GET", f"{collection}/{NAME}") or {}).get("status") or {}
        ready = {one["type"]: one["status"] for one in status.get("conditions", ())}.get("Ready")
        return ready == "True" and status["instances"]["registered"] == 1, status

    def found(site: Api) -> list[dict[str, Any]]:
        rows = site.ask("GET", f"/v1/health/service/{NAME}") or ()
        return [row for row in rows if row["Service"]["Meta"].get("k8s-pod-uid") == os.environ["POD_UID"]]

    try:
        api.ask("POST", collection, registration())
        wait("the registration is Ready and has this Pod", is_ready)
        if site is not None:
            wait("this Pod is in Consul", lambda: (len(rows := found(site)) == 1, rows))
    finally:
        api.ask("DELETE", f"{collection}/{NAME}")
    if site is not None:
        wait("this Pod is gone from Consul", lambda: (not (rows := found(site)), rows))
    else:
        wait("the registration is gone", lambda: (api.ask("GET", f"{collection}/{NAME}") is None, None))


if __name__ == "__main__":
    main()
