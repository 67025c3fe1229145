# SPDX-License-Identifier: MIT
"""
Client addresses behind trusted proxies.

Only one header is trusted, the one that the proxies set: a client could send any other
through a proxy that forwards it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, TypeAlias

from hsm_server.config.settings import ProxyHeader, ProxySettings

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAMES: Final = {
    ProxyHeader.FORWARDED: "Forwarded",
    ProxyHeader.X_FORWARDED_FOR: "X-Forwarded-For",
}
_MOST_PROXIES: Final = 32
_PORT: Final = re.compile(r"(?:\[([^\[\]]+)\]|([0-9.]+))(?::[0-9]{1,5})?")
_PAIR: Final = re.compile(
    r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:([^\",;\s]+)|\"((?:[^\"\\]|\\.)*)\")[ \t]*"
)


class SourceAddresses:
    """
    Source addresses of requests.

    Args:
        settings: Trusted proxies and their header.

    Attributes:
        header: Name of the trusted header.
    """

    def __init__(self, settings: ProxySettings) -> None:
        self._networks = tuple(map(ipaddress.ip_network, settings.networks))
        self._is_forwarded = settings.header is ProxyHeader.FORWARDED
        self.header: Final = _NAMES[settings.header]

    def is_trusted(self, address: str) -> bool:
        """Return whether this is the address of a trusted proxy."""
        if not self._networks:
            return False
        found = _parsed(address)
        return found is not None and self._trusts(found)

    def source_of(self, peer: str, said: Sequence[str]) -> str:
        """
        Return the first address from the right that is not a trusted proxy's.

        Each proxy appends the address of its client, so everything to the left of the
        first untrusted address is a claim. If a trusted proxy adds nothing readable,
        its own address is the source.

        Args:
            peer: The address of the connection.

            said: All values of `header` in the request, in their order.

        Standard:
            RFC 7239, sections 4, 6 and 8.1, for ``Forwarded``.
        """
        if not self._networks:
            return peer
        current = _parsed(peer)
        if current is None or not self._trusts(current):
            return peer
        text = ",".join(said)
        nodes = _forwarded(text) if self._is_forwarded else _listed(text)
        for earlier in islice(nodes, _MOST_PROXIES):
            if earlier is None:
                break
            current = earlier
            if not self._trusts(current):
                break
        return str(current)

    def _trusts(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)


def _parsed(text: str) -> _Address | None:
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _node(text: str) -> _Address | None:
    """Return the address of a node; None if it is unknown, obfuscated or malformed."""
    found = _PORT.fullmatch(text)
    return _parsed((found[1] or found[2]) if found else text)


def _listed(text: str) -> Iterator[_Address | None]:
    """Yield the addresses of X-Forwarded-For from right to left."""
    for part in reversed(text.split(",")):
        yield _node(part.strip(" \t"))


def _forwarded(text: str) -> Iterator[_Address | None]:
    """Yield the ``for`` of each element of Forwarded from right to left."""
    try:
        elements = list(_elements(text))
    except ValueError:
        return
    for pairs in reversed(elements):
        yield _node(pairs.get("for", ""))


def _elements(text: str) -> Iterator[dict[str, str]]:
    """
    Yield the elements of a Forwarded header.

    Raises:
        ValueError: It is malformed; then nothing in it can be relied upon.
    """
    pairs: dict[str, str] = {}
    at = 0
    while found := _PAIR.match(text, at):
        name = found[1].lower()
        if name in pairs:
            raise ValueError("A parameter is repeated.")
        quoted = found[3]
        pairs[name] = found[2] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        at = found.end()
        if text[at : at + 1] != ";":
            yield pairs
            pairs = {}
        if text[at : at + 1] not in {";", ","}:
            break
        at += 1
    if at != len(text) or pairs:
        raise ValueError("Not a valid list of elements.")
