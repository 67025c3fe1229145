# SPDX-License-Identifier: MIT
"""OCSP client with limits of time and size; verifies every response."""

from __future__ import annotations

import asyncio
import socket
import ssl
from functools import cached_property
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address
from typing import Final, Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from hsm_server.tls.ocsp.request import (
    Fault,
    StatusRequest,
    Subject,
    UnusableError,
    build_request,
    get_url,
)
from hsm_server.tls.ocsp.response import (
    MAX_RESPONSE_BYTES,
    VerifiedResponse,
    check_response,
)
from hsm_server.tls.state import Clock

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


_MOST_RESPONDERS: Final = 3
_MOST_REDIRECTS: Final = 3
_MOST_CONNECTIONS: Final = 16
_CHUNK_BYTES: Final = 8192

_REDIRECTS: Final = {
    HTTPStatus.MOVED_PERMANENTLY,
    HTTPStatus.FOUND,
    HTTPStatus.TEMPORARY_REDIRECT,
    HTTPStatus.PERMANENT_REDIRECT,
}
_NO_POST: Final = {
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.NOT_IMPLEMENTED,
}
_HEADERS: Final = {
    "Accept": "application/ocsp-response",
    "Accept-Encoding": "identity",
    "User-Agent": "ferrohsm",
}


class _RefusedError(Exception):
    """The responder rejects POST with a nonce."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault


class ResponderClient(Protocol):
    """Interface to responders."""

    async def ask(self, subject: Subject, seconds: float) -> VerifiedResponse:
        """Return a checked answer, or raise `UnusableError`."""

    async def close(self) -> None:
        """Cancel queries in progress."""


class Responders:
    """
    Client of OCSP responders.

    It uses no proxy of the environment, keeps no cookie and decompresses nothing.
    Create it inside the event loop that uses it.

    Args:
        clock: Clock that responses are checked against.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=BoundedResolver(),
                use_dns_cache=False,
                limit=_MOST_CONNECTIONS,
                force_close=True,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None),
        )

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        """Trusts the CAs of the system; only a few responders use HTTPS."""
        return ssl.create_default_context()

    async def close(self) -> None:
        """Cancel queries in progress."""
        await self._session.close()

    async def ask(self, subject: Subject, seconds: float) -> VerifiedResponse:
        """
        Query the responders of a certificate in order.

        Args:
            subject: Has at least one address; the first three count.

            seconds: Time limit for all responders, shared equally.

        Raises:
            UnusableError: None has told anything.
        """
        error = UnusableError(Fault.ADDRESS)
        urls = subject.urls[:_MOST_RESPONDERS]
        ends_at = self._clock.seconds() + seconds
        for index, url in enumerate(urls):
            share = (ends_at - self._clock.seconds()) / (len(urls) - index)
            try:
                return await self._ask_one(url, subject, share)
            except UnusableError as failure:
                error = failure
        raise error

    async def _ask_one(
        self, url: str, subject: Subject, seconds: float
    ) -> VerifiedResponse:
        try:
            async with asyncio.timeout(seconds):
                return await self._post_or_get(url, subject)
        except TimeoutError:
            raise UnusableError(Fault.SLOW) from None
        except (aiohttp.ClientError, OSError, ValueError):
            raise UnusableError(Fault.UNREACHABLE) from None

    async def _post_or_get(self, url: str, subject: Subject) -> VerifiedResponse:
        """Query by POST, or by GET if rejected (RFC 5019, section 5)."""
        request = build_request(subject)
        try:
            der = await self._read(allowed_url(url), request)
            return self._check(der, subject, request)
        except _RefusedError as refusal:
            bare = build_request(subject, has_nonce=False)
            target = get_url(url, bare)
            if target is None:
                raise UnusableError(refusal.fault) from None
        try:
            return self._check(
                await self._read(allowed_url(target), None), subject, bare
            )
        except _RefusedError as refusal:
            raise UnusableError(refusal.fault) from None

    def _check(
        self, der: bytes, subject: Subject, request: StatusRequest
    ) -> VerifiedResponse:
        try:
            return check_response(der, subject, self._clock.now(), request.nonce)
        except UnusableError as error:
            if error.fault is Fault.MALFORMED_REQUEST:
                raise _RefusedError(error.fault) from None
            raise

    async def _read(self, url: URL, request: StatusRequest | None) -> bytes:
        """Return the body of an answer; POST the request, or GET if there is none."""
        for _ in range(1 + _MOST_REDIRECTS):
            async with self._session.request(
                "GET" if request is None else "POST",
                url,
                data=None if request is None else request.der,
                headers={"Content-Type": "application/ocsp-request"} if request else {},
                allow_redirects=False,
                ssl=self._trust if url.scheme == "https" else True,
            ) as response:
                if response.status == HTTPStatus.OK:
                    return await _bounded_body(response)
                if response.status in _NO_POST:
                    raise _RefusedError(Fault.HTTP_STATUS)
                if response.status not in _REDIRECTS:
                    raise UnusableError(Fault.HTTP_STATUS)
                url = redirected(url, response.headers.get("Location", ""))
        raise UnusableError(Fault.REDIRECT)


async def _bounded_body(response: aiohttp.ClientResponse) -> bytes:
    if (response.content_length or 0) > MAX_RESPONSE_BYTES:
        raise UnusableError(Fault.TOO_LARGE)
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            raise UnusableError(Fault.TOO_LARGE)
    return bytes(body)
