"""Addresses of peers, as text that compares."""

from __future__ import annotations

import ipaddress
import socket


def plain_address(address: str) -> str:
    """An address as text that compares: IPv4 inside IPv6 becomes IPv4."""
    try:
        parsed = ipaddress.ip_address(address.split("%", 1)[0])
    except ValueError:
        return address
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


def addresses_of(host: str) -> frozenset[str]:
    """Addresses of a host name or address; empty where it does not resolve."""
    try:
        return frozenset(plain_address(str(entry[4][0])) for entry in socket.getaddrinfo(host, None))
    except OSError:
        return frozenset()
