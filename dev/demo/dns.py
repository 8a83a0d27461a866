"""Asks a DNS server one question over UDP and shows the answer as dig does; for machines without dig.

Knows the record types that Consul answers with, and nothing of caching, TCP or other servers.
"""

from __future__ import annotations

import secrets
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

TYPES = {"A": 1, "CNAME": 5, "TXT": 16, "AAAA": 28, "SRV": 33}
_NAMES = {number: name for name, number in TYPES.items()}
_INTERNET = 1
_OPT = 41
_RECURSION_DESIRED = 0x0100
_TRUNCATED = 0x0200
_MOST = 65535  # bytes that we take in one UDP answer
_CODES = {0: "NOERROR", 2: "SERVFAIL", 3: "NXDOMAIN", 5: "REFUSED"}


class DnsError(Exception):
    """There was no usable answer."""


@dataclass(frozen=True, slots=True)
class Record:
    """One line of an answer; `data` as dig writes it."""

    name: str
    ttl: int
    type: str
    data: str

    def __str__(self) -> str:
        return f"{self.name:<40} {self.ttl:<6} IN {self.type:<6} {self.data}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said: its code (NOERROR, NXDOMAIN, …), what was asked for, and what it added unasked."""

    code: str
    answers: tuple[Record, ...]
    additional: tuple[Record, ...]


def ask(server: str, port: int, name: str, kind: str = "A", within: float = 3.0) -> Answer:
    """Ask for the records of one name and type. Raises DnsError where no whole answer comes in time."""
    number = secrets.randbelow(65536)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.settimeout(within)
        channel.connect((server, port))
        try:
            channel.send(_question(number, name, TYPES[kind]))
            return _answer(channel.recv(_MOST), number)
        except OSError as error:
            raise DnsError(f"{server}:{port} did not answer for {name} {kind}: {error}") from error
        except (struct.error, IndexError) as error:
            raise DnsError(f"{server}:{port} answered for {name} {kind} with what is no DNS message") from error


def _question(number: int, name: str, kind: int) -> bytes:
    """One question, and (EDNS) the promise to take long answers, so that none is cut at 512 bytes."""
    header = struct.pack("!6H", number, _RECURSION_DESIRED, 1, 0, 0, 1)
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.strip(".").split("."))
    return header + labels + struct.pack("!B2H", 0, kind, _INTERNET) + struct.pack("!B2HIH", 0, _OPT, 4096, 0, 0)


def _answer(message: bytes, number: int) -> Answer:
    got, flags, questions, answers, authorities, additional = struct.unpack_from("!6H", message)
    if got != number or flags & _TRUNCATED:
        raise DnsError("the answer is cut short, or to another question")
    at = 12
    for _ in range(questions):
        _, at = _name(message, at)
        at += 4
    found: list[Record | None] = []
    for _ in range(answers + authorities + additional):
        record, at = _record(message, at)
        found.append(record)
    return Answer(
        code=_CODES.get(flags & 0xF, str(flags & 0xF)),
        answers=tuple(r for r in found[:answers] if r),
        additional=tuple(r for r in found[answers + authorities :] if r),
    )


def _record(message: bytes, at: int) -> tuple[Record | None, int]:
    """One record and where the next begins; None for a type that isn't shown."""
    name, at = _name(message, at)
    kind, _, ttl, length = struct.unpack_from("!2HIH", message, at)
    at += 10
    data = _DATA[kind](message, at, length) if kind in _DATA else ""
    return (Record(name, ttl, _NAMES[kind], data) if data else None), at + length


def _name(message: bytes, at: int) -> tuple[str, int]:
    """A name and where it ends; a pointer goes back to where its rest was written before, so it can't go in circles."""
    labels: list[str] = []
    while length := message[at]:
        if length >= 0xC0:
            back = struct.unpack_from("!H", message, at)[0] & 0x3FFF
            if back >= at:
                raise DnsError("the answer points forward")
            return ".".join([*labels, _name(message, back)[0]]), at + 2
        labels.append(message[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += 1 + length
    return ".".join(labels) + ".", at + 1


def _srv(message: bytes, at: int, _: int) -> str:
    priority, weight, port = struct.unpack_from("!3H", message, at)
    return f"{priority} {weight} {port} {_name(message, at + 6)[0]}"


def _text(message: bytes, at: int, _: int) -> str:
    return f'"{message[at + 1 : at + 1 + message[at]].decode("utf-8", "replace")}"'


_DATA: dict[int, Callable[[bytes, int, int], str]] = {
    TYPES["A"]: lambda message, at, length: str(IPv4Address(message[at : at + length])),
    TYPES["AAAA"]: lambda message, at, length: str(IPv6Address(message[at : at + length])),
    TYPES["CNAME"]: lambda message, at, _: _name(message, at)[0],
    TYPES["SRV"]: _srv,
    TYPES["TXT"]: _text,
}
