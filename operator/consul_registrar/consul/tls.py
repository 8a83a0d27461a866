"""Decides how TLS to Consul is set up: which authorities are trusted, and which client certificate is shown.

Names are always verified. A CA, a certificate or a key may be given as PEM text (from a Secret) or as a file's path.
"""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from consul_registrar.consul.errors import Denied
from consul_registrar.model import Reason

_PEM = "-----BEGIN"


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM text or paths; everything may be empty: then the system's authorities are trusted, and no one is shown."""

    ca: str = ""
    certificate: str = ""
    key: str = field(default="", repr=False)


def tls_context(tls: Tls) -> ssl.SSLContext:
    """The context for connections to Consul; raises `Denied` (TlsFailed) where a certificate or key can't be used."""
    try:
        context = ssl.create_default_context(cafile=_file(tls.ca), cadata=_text(tls.ca))
        if tls.certificate:
            _show(context, tls)
    except (OSError, ValueError) as error:
        raise Denied(Reason("TlsFailed", f"the TLS files for Consul can't be used: {_words(error)}")) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def show_instead(context: ssl.SSLContext, tls: Tls) -> None:
    """From now on new connections show this client certificate.

    Those that stand go on: Consul looks at it in the handshake alone. Raises `Denied` (TlsFailed) where it can't be
    used; then nothing is changed.
    """
    tls_context(tls)
    _show(context, tls)


def _file(given: str) -> str | None:
    return given if given and _PEM not in given else None


def _text(given: str) -> str | None:
    return given if _PEM in given else None


def _show(context: ssl.SSLContext, tls: Tls) -> None:
    with _readable(tls.certificate) as certificate, _readable(tls.key) as key:
        context.load_cert_chain(certificate, key or None)


@contextmanager
def _readable(given: str) -> Iterator[str]:
    """A path for what is given; the library reads files alone. Text is one in memory: a container may have no other."""
    if _PEM not in given:
        yield given
        return
    with os.fdopen(os.memfd_create("pem"), "w") as out:
        out.write(given)
        out.flush()
        yield f"/proc/self/fd/{out.fileno()}"


def _words(error: Exception) -> str:
    """What went wrong, never what the file holds."""
    if isinstance(error, ssl.SSLError):
        return error.reason or "not a valid certificate or key"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return "not valid PEM"
