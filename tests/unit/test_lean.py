"""What a start doesn't load, and that nothing misses it; in a process of its own, since modules are imported once."""

import json
import subprocess
import sys

import pytest

START = """
import json, os, ssl, sys
before = dict(os.environ)
import consul_registrar.app
from aiohttp import connector
from consul_registrar.consul.tls import Tls, tls_context
print(json.dumps({
    "environment": dict(os.environ) == before,
    "of aiohttp": len(connector._SSL_CONTEXT_VERIFIED.get_ca_certs()),
    "of the system": len(ssl.create_default_context().get_ca_certs()),
    "of ours": len(tls_context(Tls()).get_ca_certs()),
    "loaded": [name for name in ("kubernetes", "requests", "opentelemetry") if name in sys.modules],
}))
"""


@pytest.fixture(scope="module")
def started() -> dict[str, object]:
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_the_systems_authorities_are_read_where_somebody_trusts_them_and_not_at_each_start(
    started: dict[str, object],
) -> None:
    assert started["of aiohttp"] == 0
    assert started["of ours"] == started["of the system"]
    assert started["environment"], "variables are as they were"


def test_packages_that_are_seldom_needed_are_not_loaded(started: dict[str, object]) -> None:
    assert started["loaded"] == []
