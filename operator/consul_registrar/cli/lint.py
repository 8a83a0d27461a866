"""What is wrong with manifests, as far as it can be known without a cluster: `consul-registrar lint web.yaml`.

Decides which documents are looked at and how findings are shown. What is wrong is for the models and `objects.py` to
say, as in the operator; what is accepted but may not be meant, for `acceptance.py`. What only a cluster knows (names
that are taken, connections that aren't there, selectors that match nothing) isn't told.
"""

import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import click
import yaml

from consul_registrar import objects
from consul_registrar.acceptance import advice
from consul_registrar.api import GROUP, VERSION
from consul_registrar.model import Reason

_KINDS = ("ServiceRegistration", "ConsulConnection")
#: What the API server would add, without which no object is whole.
_STORED = {"uid": "", "resourceVersion": "0"}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about one document. `wrong`: it would be refused, or never registered; else it may not be meant."""

    about: str
    message: str
    wrong: bool = True

    def __str__(self) -> str:
        return f"{self.about}: {'error' if self.wrong else 'note'}: {self.message}"


@dataclass(frozen=True, slots=True)
class Document:
    """A custom resource of ours, and the file that it stands in."""

    file: str
    body: dict[str, Any]

    @property
    def name(self) -> str:
        metadata = self.body.get("metadata")
        return str(metadata.get("name") or "") if isinstance(metadata, dict) else ""

    def __str__(self) -> str:
        return f"{self.file}: {self.body.get('kind')} {self.name or '(without a name)'}"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("files", nargs=-1, required=True, type=click.File("r", encoding="utf-8"))
def lint(files: tuple[Any, ...]) -> None:
    """Look through manifests without a cluster, and say what is wrong; `-` is the standard input.

    Other kinds than ours are passed over. Ends with 1 where something would be refused.
    """
    documents: list[Document] = []
    findings: list[Finding] = []
    for file in files:
        try:
            documents += _documents(file.name, yaml.safe_load_all(file))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            findings.append(Finding(file.name, " ".join(f"must be YAML: {error}".split())))
    findings += looked_through(documents)
    for finding in findings:
        click.echo(str(finding))
    wrong = sum(finding.wrong for finding in findings)
    click.echo(f"{len(documents)} looked at, {wrong} wrong", err=True)
    sys.exit(1 if wrong else 0)


def _documents(file: str, bodies: Iterable[object]) -> Iterator[Document]:
    for body in bodies:
        if not isinstance(body, dict):
            continue
        if isinstance(body.get("items"), list):
            yield from _documents(file, body["items"])
        elif str(body.get("apiVersion")).partition("/")[0] == GROUP:
            yield Document(file, body)


def looked_through(documents: Collection[Document]) -> list[Finding]:
    """What is to be said of these documents; connections among them tell what registrations meet there."""
    catalogs = [each.name for each in documents if _mode(each) == "Catalog"]
    return [finding for each in documents for finding in _findings(each, catalogs)]


def _mode(document: Document) -> object:
    spec = document.body.get("spec")
    return spec.get("mode") if document.body.get("kind") == _KINDS[1] and isinstance(spec, dict) else None


def _findings(document: Document, catalogs: Collection[str]) -> Iterator[Finding]:
    kind, about = document.body.get("kind"), str(document)
    if document.body.get("apiVersion") != f"{GROUP}/{VERSION}":
        yield Finding(about, f"apiVersion must be {GROUP}/{VERSION}")
    elif kind not in _KINDS:
        yield Finding(about, f"kind must be {' or '.join(_KINDS)}")
    elif not document.name:
        yield Finding(about, "metadata.name must be set")
    elif kind == _KINDS[0]:
        yield from _of_registration(about, objects.registration(_stored(document)), catalogs)
    else:
        spec = objects.connection(_stored(document)).spec
        reason = spec if isinstance(spec, Reason) else objects.beyond(spec)
        if reason is not None:
            yield Finding(about, reason.message)


def _of_registration(about: str, found: objects.Registration, catalogs: Collection[str]) -> Iterator[Finding]:
    if isinstance(found.spec, Reason):
        yield Finding(about, found.spec.message)
        return
    note = advice(found, catalogs)
    if note:
        yield Finding(about, note, wrong=False)
    for check in found.spec.checks or ():
        if found.spec.pods is not None and check.deregister_critical_service_after:
            message = (
                f"checks[{check.name}].deregisterCriticalServiceAfter is rarely needed: Pods are removed when they go, "
                "and one that stays critical for long may well recover"
            )
            yield Finding(about, message, wrong=False)


def _stored(document: Document) -> dict[str, Any]:
    metadata = {"namespace": "default", **document.body["metadata"], **_STORED}
    return {**document.body, "metadata": metadata}
