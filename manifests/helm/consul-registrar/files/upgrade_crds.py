"""Brings the custom resource definitions up to those of the image that this runs in, by server-side apply.

Run by the chart before an upgrade. Only the two definitions that Helm has installed are patched, none is created. They
are applied in Helm's name: Helm 4 applies those of crds/ itself at an install, and would be in conflict with another.
"""

import json
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from consul_registrar.api import crd

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def apply(server: str, token: str, trust: ssl.SSLContext, definition: dict[str, object], name: str) -> None:
    """Apply one definition; what other managers set in it is overruled. Raises HTTPError."""
    request = urllib.request.Request(
        f"{server}{DEFINITIONS}/{name}?fieldManager=helm&force=true",
        json.dumps(definition).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/apply-patch+yaml"},
        method="PATCH",
    )
    with urllib.request.urlopen(request, timeout=30, context=trust) as answer:
        print(f"{name}: {answer.status}", flush=True)


def main() -> None:
    """Apply both; the first refusal ends it, with the API server's reason."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    account = Path(os.environ.get("ACCOUNT", ACCOUNT))
    trust = ssl.create_default_context(cafile=str(account / "ca.crt"))
    for definition in (crd.service_registration(), crd.consul_connection()):
        try:
            apply(server, (account / "token").read_text(), trust, definition, definition["metadata"]["name"])
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{definition['metadata']['name']}: {error}: {error.read().decode()}") from error


if __name__ == "__main__":
    main()
