"""Addresses as they are compared: one text for all the ways of writing one; pure."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address

_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*")
_PARTS = 4
_BYTE = 256


def parsed(text: str) -> IPv4Address | IPv6Address | None:
    """The IP address, None where it is a name. One of IPv4 within IPv6 is that of IPv4, as sockets take it."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def dialled(text: str) -> IPv4Address | IPv6Address | None:
    """The IP address that a resolver takes the text for, None where it asks for a name.

    C's reads up to four numbers, decimal, octal or hexadecimal, of which the last fills what is left (inet_aton(3)):
    127.1, 2130706433 and 0x7f.1 are all 127.0.0.1.
    """
    text = text.rstrip(".")
    return parsed(text) or _of_numbers(text)


def _of_numbers(text: str) -> IPv4Address | None:
    parts = text.split(".")
    if len(parts) > _PARTS or not all(map(_NUMBER.fullmatch, parts)):
        return None
    *first, last = map(_number, parts)
    if any(number >= _BYTE for number in first) or last >= _BYTE ** (_PARTS - len(first)):
        return None
    return IPv4Address(sum(number * _BYTE ** (_PARTS - 1 - place) for place, number in enumerate(first)) + last)


def _number(text: str) -> int:
    if text[:2] in {"0x", "0X"}:
        return int(text, 16)
    return int(text, 8 if text.startswith("0") else 10)


def canonical(text: str) -> str:
    """Equal for equal addresses and names. What a name leads to isn't known here."""
    return str(dialled(text) or text.lower().rstrip("."))
