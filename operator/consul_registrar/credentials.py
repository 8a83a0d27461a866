"""From a connection's spec to a running registry: addresses, certificates, the token.

Decides when credentials are read again: every ten seconds; where a token is got by logging in, whether it is time for
the next is asked as often. A changed token is used once Consul accepts it, a changed
client certificate is shown by new connections, changed authorities need a new registry. Values are never logged. What
is done with them is `consul/`'s matter.
"""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from consul_registrar import metrics
from consul_registrar.api import access as api
from consul_registrar.api.access import SecretKeyRef, Source
from consul_registrar.api.base import milliseconds
from consul_registrar.api.connection import ConsulConnectionSpec
from consul_registrar.changes import Change
from consul_registrar.consul import (
    VIRTUAL_NODES,
    Access,
    AgentRegistry,
    AgentSettings,
    CatalogRegistry,
    CatalogSettings,
    ClaimedRegistry,
    ConsulError,
    Endpoint,
    Login,
    Method,
    Name,
    OnChange,
    Recorded,
    Tls,
    Token,
    show_instead,
    tls_context,
)
from consul_registrar.consuls import NodeRegistry, Unusable
from consul_registrar.model import Reason

logger = logging.getLogger(__name__)

_READ_AGAIN = 10.0

#: Reads one key of a Secret. Raises Unusable where it can't be had.
ReadSecret = Callable[[SecretKeyRef], Awaitable[str]]
#: Reads the UID by which this cluster claims its name. Raises Unusable where it can't be had.
ReadUid = Callable[[], Awaitable[str]]
#: Told of each write that is about no instance: connection, operation, cause, error, node.
Wrote = Callable[[str, str, str, ConsulError | None, str], None]
#: Gives the token to show from now on, and takes the one that still is. Raises Unusable.
_ReadToken = Callable[[str], Awaitable[str]]

_LAST_WORDS = 2.0
"""Seconds that giving back tokens may take at the end."""


class _Shown:
    """What a registry's connections trust and show."""

    def __init__(self, context: ssl.SSLContext | None, tls: Tls) -> None:
        self._context = context
        self._tls = tls

    def renew(self, tls: Tls) -> bool:
        """Show another client certificate; False where the authorities are others. Raises Unusable."""
        if tls.ca != self._tls.ca:
            return False
        if tls != self._tls and self._context is not None:
            try:
                show_instead(self._context, tls)
            except ConsulError as error:
                raise Unusable(error.reason) from error
            self._tls = tls
            logger.info("another client certificate is shown to Consul from now on")
        return True


@dataclass(frozen=True, slots=True)
class _Kept:
    """The credentials of one registry, and where they are read again."""

    token: Token
    shown: _Shown
    read_token: _ReadToken
    read_tls: Callable[[], Awaitable[Tls]]

    async def renew(self) -> bool:
        """Read them again; False where the authorities are others. Raises Unusable, for one as for the other."""
        try:
            same = self.shown.renew(await self.read_tls())
        except Unusable:
            await self._renew_token()  # it ends meanwhile
            raise
        if same:
            await self._renew_token()
        return same

    async def _renew_token(self) -> None:
        try:
            self.token.offer(await self.read_token(self.token()))
        except Unusable as error:
            if error.reason.code == "LoginRefused":
                self.token.miss(error.reason)
            raise


class ConsulConnections:
    """Serves connections of either mode."""

    def __init__(
        self,
        cluster: str,
        read_secret: ReadSecret,
        read_uid: ReadUid,
        on_change: OnChange,
        on_agent: Callable[[str, str], None],
        direct_tokens: Mapping[str, str],
        may_write: Callable[[], bool],
        wrote: Wrote,
        audited: Callable[[str, Change, ConsulError | None], None],
        recorded: Callable[[str], Recorded | None],
    ) -> None:
        self._cluster = cluster
        self._read_secret = read_secret
        self._read_uid = read_uid
        self._on_change = on_change
        self._on_agent = on_agent
        self._direct_tokens = direct_tokens
        self._may_write = may_write
        self._wrote = wrote
        self._audited = audited
        self._recorded = recorded

    async def serve(self, name: str, spec: ConsulConnectionSpec, take: Callable[[NodeRegistry], None]) -> None:
        """Run a registry for a spec; returns when its authorities have changed. Raises Unusable."""
        tls = await self._tls(spec.tls)
        access = _access(spec, tls)
        async with self._tokens(name, spec, access) as read_token:
            token = Token(await read_token(""), lambda: self._recorded(name))
            uid = await self._read_uid()
            registry = self._registry(name, spec, uid, replace(access, token=token), token)
            take(registry)
            kept = _Kept(token, _Shown(access.tls, tls), read_token, lambda: self._tls(spec.tls))
            running = asyncio.ensure_future(registry.run())
            try:
                await self._keep_fresh(name, kept, running)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

    def _registry(
        self, name: str, spec: ConsulConnectionSpec, uid: str, access: Access, token: Token
    ) -> ClaimedRegistry:
        def wrote(operation: str, cause: str, node: str, error: ConsulError | None) -> None:
            self._wrote(name, operation, cause, error, node)

        def make(
            on_change: OnChange,
            on_agent: Callable[[str], None],
            may_write: Callable[[], bool],
            may_beat: Callable[[], bool],
        ) -> AgentRegistry | CatalogRegistry:
            if spec.mode == "Catalog":
                catalog = _catalog_settings(spec, access)
                return CatalogRegistry(
                    name, self._cluster, catalog, on_change, on_agent=on_agent, may_write=may_write, token=token,
                    on_visible=metrics.pod_visible, wrote=wrote, audited=partial(self._audited, name),
                )  # fmt: skip
            agents = _agent_settings(spec, access)
            return AgentRegistry(
                name, self._cluster, agents, on_change, on_agent=on_agent, may_write=may_write, may_beat=may_beat,
                token=token, on_visible=metrics.pod_visible, wrote=wrote,
            )  # fmt: skip

        claim = Name(self._cluster, uid, spec.take_over_from or "", observes=spec.policy == "Observe")
        return ClaimedRegistry(
            claim,
            make,
            self._on_change,
            lambda label: self._on_agent(name, label),
            self._may_write,
            lambda cause, error: self._wrote(name, "claim", cause, error, ""),
        )

    async def _keep_fresh(self, name: str, kept: _Kept, running: "asyncio.Future[None]") -> None:
        while True:
            done, _ = await asyncio.wait([running], timeout=_READ_AGAIN)
            if done:
                running.result()
                return
            try:
                if not await kept.renew():
                    return
            except Unusable as error:
                logger.warning("connection %r goes on with the credentials read before: %s", name, error.reason.message)

    @asynccontextmanager
    async def _tokens(self, name: str, spec: ConsulConnectionSpec, access: Access) -> AsyncIterator[_ReadToken]:
        if spec.auth is None or spec.auth.kubernetes is None:
            yield lambda _: self._given_token(name, spec.auth)
            return
        login = self._login(spec, spec.auth.kubernetes, access)

        async def read(shown: str) -> str:
            try:
                await login.give_back(shown)
                return await login.token()
            except ConsulError as error:
                raise Unusable(error.reason) from error

        try:
            yield read
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS):
                    await login.close()

    def _login(self, spec: ConsulConnectionSpec, how: api.KubernetesLogin, access: Access) -> Login:
        servers = [Endpoint(*_address(address)) for address in spec.addresses or ()]
        bearer = Source(file=how.token_file)
        method = Method(how.auth_method, how.meta)
        return Login(servers, access, method, lambda: self._read(bearer, "spec.auth.kubernetes.tokenFile"))

    async def _given_token(self, name: str, auth: api.Auth | None) -> str:
        if auth is None or auth.token is None:
            return self._direct_tokens.get(name, "").strip()
        return (await self._read(auth.token, "spec.auth.token")).strip()

    async def _tls(self, spec: api.Tls | None) -> Tls:
        if spec is None:
            return Tls()
        ca = await self._read(spec.ca, "spec.tls.ca") if spec.ca else ""
        shown = spec.client_certificate
        if shown is None:
            return Tls(ca)
        where = "spec.tls.clientCertificate"
        certificate = await self._read(shown.certificate, f"{where}.certificate")
        return Tls(ca, certificate, await self._read(shown.key, f"{where}.key"))

    async def _read(self, source: Source, where: str) -> str:
        try:
            if source.secret_key_ref is not None:
                return await self._read_secret(source.secret_key_ref)
            return await asyncio.to_thread(Path(source.file or "").read_text, encoding="utf-8")
        except Unusable as error:
            raise Unusable(Reason(error.reason.code, f"{where}: {error.reason.message}")) from error
        except (OSError, UnicodeDecodeError) as error:
            raise Unusable(Reason("FileNotReadable", f"{where}: {error}")) from error


def _access(spec: ConsulConnectionSpec, tls: Tls) -> Access:
    try:
        context = tls_context(tls) if _is_https(spec) else None
    except ConsulError as error:
        raise Unusable(error.reason) from error
    return Access(
        tls=context,
        server_name=spec.tls.server_name if spec.tls else "",
        allow_plaintext_token=spec.auth.allow_plaintext_token if spec.auth else False,
    )


def _agent_settings(spec: ConsulConnectionSpec, access: Access) -> AgentSettings:
    datacenter = spec.datacenter or ""
    dead_man = milliseconds(spec.dead_man.after) if spec.dead_man else 0
    if spec.node_agents is not None:
        agents = spec.node_agents
        return AgentSettings("", agents.address_type, agents.port, agents.scheme, datacenter, access, dead_man)
    host, port, scheme = _address((spec.addresses or [""])[0])
    return AgentSettings(host=host, port=port, scheme=scheme, datacenter=datacenter, access=access, dead_man=dead_man)


def _catalog_settings(spec: ConsulConnectionSpec, access: Access) -> CatalogSettings:
    addresses = tuple(map(_address, spec.addresses or ()))
    return CatalogSettings(addresses, spec.datacenter or "", spec.virtual_nodes or VIRTUAL_NODES, access)


def _address(text: str) -> tuple[str, int, str]:
    url = urlsplit(text)
    return url.hostname or "", url.port or (443 if url.scheme == "https" else 80), url.scheme


def _is_https(spec: ConsulConnectionSpec) -> bool:
    if spec.node_agents is not None:
        return spec.node_agents.scheme == "https"
    return any(address.startswith("https://") for address in spec.addresses or ())
