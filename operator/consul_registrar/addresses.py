"""Addresses as they are compared: one text for all the ways of writing one; pure."""

from ipaddress import IPv4Address, IPv6Address, ip_address


def parsed(text: str) -> IPv4Address | IPv6Address | None:
    """The IP address, None where it is a name. One of IPv4 within IPv6 is that of IPv4, as sockets take it."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def canonical(text: str) -> str:
    """Equal for equal addresses and names. What a name leads to isn't known here."""
    return str(parsed(text) or text.lower().rstrip("."))
