"""A TLS-terminating proxy: HTTPS in front, plain HTTP behind, one connection behind for each in front.

Decides nothing about what passes: bytes go through as they come, so streams and blocking queries pass too. `program`
is for `cluster.py`; run as a program it listens until it is ended.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path

import click

from devcluster.process import Program
from devcluster.tls import Certificate

CHUNK = 2**16


def program(
    name: str,
    listen: tuple[str, int],
    upstream: str,
    certificate: Certificate,
    clients: Path | None,
    path: Path,
    *,
    http2: bool,
) -> Program:
    """How the proxy is run: before `upstream` (host:port); `clients`: the authority whose certificates it demands.

    `http2`: it says in the handshake (ALPN) that HTTP/2 is spoken behind it, which clients of that want to hear.
    """
    command = [
        *(sys.executable, "-m", "devcluster.tlsproxy", *listen[:1], str(listen[1]), upstream),
        *(f"--certificate={certificate.file}", f"--key={certificate.key}"),
        *([f"--clients={clients}"] if clients else []),
        *(["--http2"] if http2 else []),
    ]
    return Program(name, tuple(command), ready=lambda: _listens(listen), environment={"PYTHONPATH": str(path)})


def _listens(where: tuple[str, int]) -> bool:
    try:
        socket.create_connection(where, timeout=1).close()
    except OSError:
        return False
    return True


@click.command(help=__doc__)
@click.argument("address")
@click.argument("port", type=int)
@click.argument("upstream")
@click.option("--certificate", required=True, help="The proxy's own, in PEM.")
@click.option("--key", required=True, help="Its key, in PEM.")
@click.option("--clients", help="Demand a certificate of this authority from clients.")
@click.option("--http2", is_flag=True, help="Say that HTTP/2 is spoken.")
def main(address: str, port: int, upstream: str, certificate: str, key: str, clients: str | None, http2: bool) -> None:
    """Listen until ended."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=clients)
    context.load_cert_chain(certificate, key)
    if http2:
        context.set_alpn_protocols(["h2"])
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
    asyncio.run(_serve(address, port, upstream, context))


async def _serve(address: str, port: int, upstream: str, context: ssl.SSLContext) -> None:
    host, _, behind = upstream.rpartition(":")

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection(host, int(behind))
        except OSError:
            writer.transport.abort()
            return
        await _until_either_ends(_copy(reader, there_writer), _copy(there_reader, writer))
        for end in (writer, there_writer):
            end.close()

    server = await asyncio.start_server(pass_on, address, port, ssl=context)
    await server.serve_forever()


async def _until_either_ends(*copies: Coroutine[None, None, None]) -> None:
    tasks = [asyncio.ensure_future(copy) for copy in copies]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await source.read(CHUNK):
            sink.write(chunk)
            await sink.drain()


if __name__ == "__main__":
    main()
