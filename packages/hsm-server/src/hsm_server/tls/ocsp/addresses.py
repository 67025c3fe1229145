# SPDX-License-Identifier: MIT
"""
Allowed addresses of OCSP responders.

The CA, which is trusted, chooses that address, not the holder of the certificate. It is
restricted anyway: HTTP only, and no link-local address, where no responder but the
metadata service of a cloud is. Private networks and loopback are allowed for responders
of private CAs.
"""

from __future__ import annotations

import socket
from ipaddress import IPv6Address, ip_address
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from hsm_server.tls.ocsp.errors import Fault, UnusableError

_SCHEMES: Final = ("http", "https")
_URL_CHARACTERS: Final = 2048


def allowed_url(text: str) -> URL:
    """
    Return an address that may be asked.

    Raises:
        UnusableError: The URL is not http, contains user information, or its host is
            not allowed.
    """
    try:
        url = URL(text, encoded=True)
        is_whole = url.scheme in _SCHEMES and url.host and url.user is None
    except ValueError:
        raise UnusableError(Fault.ADDRESS) from None
    if len(text) > _URL_CHARACTERS or not is_whole or not _may_be_host(url.host or ""):
        raise UnusableError(Fault.ADDRESS)
    return url


def redirected(url: URL, location: str) -> URL:
    """
    Return the target of a redirect, on the same host only.

    Raises:
        UnusableError: The response is a redirect, which an attacker could send.
    """
    try:
        target = allowed_url(str(url.join(URL(location, encoded=True))))
    except ValueError:
        raise UnusableError(Fault.REDIRECT) from None
    same_port = target.port == url.port or target.is_default_port()
    if target.host != url.host or not same_port:
        raise UnusableError(Fault.REDIRECT)
    return target


class BoundedResolver(AbstractResolver):
    """Resolver of allowed addresses, to which the client connects."""

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,
    ) -> list[ResolveResult]:
        """
        Return the allowed addresses of a name.

        Raises:
            OSError: There are none.
        """
        found = await self._resolver.resolve(host, port, family)
        allowed = [one for one in found if is_allowed_address(one["host"])]
        if not allowed:
            raise OSError("The host name has no allowed address.")
        return allowed

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""


def is_allowed_address(text: str) -> bool:
    """Return whether an IP address may be connected to."""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return not (address.is_link_local or address.is_multicast or address.is_unspecified)


def _may_be_host(host: str) -> bool:
    """Return whether a host is a name, or an address that may be asked."""
    try:
        return is_allowed_address(host)
    except ValueError:
        return True
