"""By which names the status page may be asked for: a foreign site's name is none of them."""

import aiohttp
import pytest

from consul_registrar.status_page.hosts import is_ours
from screens import samples
from screens.served import served

OURS = [
    "127.0.0.1:8081",
    "10.0.0.7",
    "[::1]:8081",
    "[fd00::7]",
    "localhost",
    "LocalHost:8081",
    "page.localhost",
    "consul-registrar-status",
    "consul-registrar-status:8081",
    "consul-registrar-status.consul.svc",
    "consul-registrar-status.consul.svc:80",
    "consul-registrar-status.consul.svc.cluster.local.",
    "Discovery.Example.COM",
    "discovery.example.com.:443",
]
FOREIGN = [
    "",
    ":8081",
    "evil.example",
    "evil.example:8081",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "a.svc.evil.example",
    "a.svc.cluster.local.evil.example",
    "evilsvc.example",
    "example.com",
    "sub.discovery.example.com",
    "user@evil.example",
    "localhost@evil.example",
    "[evil",
    "evil.example#.svc",
]
NAMED = frozenset({"discovery.example.com"})


@pytest.mark.parametrize("host", OURS)
def test_a_name_that_nobody_can_rebind_or_that_was_named_is_ours(host: str) -> None:
    assert is_ours(host, NAMED)


@pytest.mark.parametrize("host", FOREIGN)
def test_a_foreign_name_is_not_ours_however_it_is_written(host: str) -> None:
    assert not is_ours(host, NAMED)


@pytest.mark.parametrize("path", ["/", "/api/overview", "/registrations/shop/web", "/assets/page.js", "/else"])
async def test_a_site_that_leads_its_own_name_to_the_page_reads_nothing(path: str) -> None:
    async with served(samples.well, NAMED) as url, aiohttp.ClientSession(url) as session:
        async with session.get(path, headers={"Host": "evil.example"}) as answer:
            assert answer.status == 403
            assert "--status-page-hosts" in await answer.text()
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        for host in ("discovery.example.com", "localhost:8081"):
            async with session.get(path, headers={"Host": host}) as answer:
                assert answer.status == (404 if path == "/else" else 200)
