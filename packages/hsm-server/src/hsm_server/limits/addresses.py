# SPDX-License-Identifier: MIT
"""Network prefixes that count as one address."""

from __future__ import annotations

import ipaddress
from functools import lru_cache


@lru_cache(maxsize=1024)
def peer_of(address: str) -> str:
    """
    Return the network prefix of a peer: an IPv4 address, or a /64 of IPv6.

    A network of IPv6 has 2^64 addresses for a single machine to use. What is no address
    is all the same, such as the ends of Unix sockets.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))
