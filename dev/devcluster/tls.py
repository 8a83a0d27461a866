"""Decides who is trusted: a certificate authority of the cluster's own, and the certificates that it issues.

Consul's own commands make them (`consul tls`), so nothing more is needed. Who shows which is decided elsewhere.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from devcluster.tools import CONSUL

CA = "consul-agent-ca"
"""What `consul tls ca create` calls its files."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key, as PEM files."""

    file: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority, in a folder of its own."""

    folder: Path

    @classmethod
    def at(cls, folder: Path) -> Authority:
        """The authority in this folder, made when it is first asked for."""
        made = cls(folder)
        if not made.certificate.exists():
            folder.mkdir(parents=True, exist_ok=True)
            _consul_tls(folder, "ca", "create")
        return made

    @property
    def certificate(self) -> Path:
        """What those who trust it need, as a PEM file."""
        return self.folder / f"{CA}.pem"

    def server(self, name: str, hosts: Sequence[str]) -> Certificate:
        """A certificate for a server, valid for these names and addresses, and for 127.0.0.1 and localhost.

        `name` is that of its files; issued again under the same name, it is another one.
        """
        return self._issue(name, "-server", *map(_subject, hosts))

    def client(self, name: str) -> Certificate:
        """A certificate for a client; `name` is that of its files."""
        return self._issue(name, "-client")

    def _issue(self, name: str, *what: str) -> Certificate:
        issued = self.folder / name
        issued.mkdir(mode=0o700, exist_ok=True)
        for old in issued.iterdir():
            old.unlink()
        key = self.folder / f"{CA}-key.pem"
        _consul_tls(issued, "cert", "create", f"-ca={self.certificate}", f"-key={key}", *what)
        [key_file] = issued.glob("*-key.pem")
        return Certificate(key_file.with_name(key_file.name.replace("-key.pem", ".pem")), key_file)


def _subject(host: str) -> str:
    try:
        return f"-additional-ipaddress={ip_address(host)}"
    except ValueError:
        return f"-additional-dnsname={host}"


def _consul_tls(folder: Path, *arguments: str) -> None:
    command = [str(CONSUL.path()), "tls", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"consul tls {' '.join(arguments)}: {done.stderr.strip()}")
