# SPDX-License-Identifier: MIT
"""
Fetcher of token keys: runs where there is network access, and verifies nothing.

The result is bytes: the process that verifies tokens has no network access, and the one
with network access verifies nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeAlias

import aiohttp
from yarl import URL

from hsm_core.errors import HSMError
from hsm_core.wire import scan_json
from hsm_server.config.settings import OIDCSettings, ServerSettings, TokenConfig
from hsm_server.tls.manager import Task
from hsm_server.tls.ocsp.fetch import BoundedResolver
from hsm_server.tls.state import Board

MAX_SET_BYTES: Final = 64 * 1024
"""Longest key set."""

Deliver: TypeAlias = Callable[[bytes | None, str], None]
"""Called with the key set, or None if unchanged, and the fault."""

_SECONDS: Final = 10.0
_AHEAD_SECONDS: Final = 1.0
_CHUNK_BYTES: Final = 8192
_LONGEST_TAG: Final = 256
_LONGEST_URL: Final = 2048
_METADATA_PATH: Final = "/.well-known/openid-configuration"
_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age=([0-9]{1,9})(?:$|[\s,])", re.I)
_HEADERS: Final = {
    "Accept": "application/jwk-set+json, application/json",
    "Accept-Encoding": "identity",
    "User-Agent": "ferrohsm",
}


class _UnusableError(Exception):
    """The key set is not available; the message is the reason."""


def key_set_tasks(
    settings: ServerSettings, deliver: Deliver, deliver_providers: Deliver
) -> list[Task]:
    """
    Return the tasks that fetch keys, if URLs are configured.

    Args:
        settings: Name the places.

        deliver: Is given the keys of tokens.

        deliver_providers: Is given those of the provider of OpenID Connect.
    """
    tasks: list[Task] = []
    config, provider = settings.token_config, settings.oidc
    if config.key_set_url:
        tasks.append(KeySetTask(config, deliver))
    if provider is not None and provider.jwks_file is None:
        seconds = config.reload_seconds
        tasks.append(ProviderKeysTask(provider, seconds, deliver_providers))
    return tasks


class KeySetTask:
    """
    Periodic fetch of a JWK Set.

    It follows no redirect, uses no proxy of the environment, keeps no cookie and
    decompresses nothing. Cache lifetimes of the server can shorten the interval to a
    half and never extend it: a removed key is gone within the interval.

    Args:
        config: URL and interval.

        deliver: Called with each result.

    Standard:
        RFC 9110, section 13.1.2 (``If-None-Match``); RFC 9111, section 5.2.2.1.
    """

    def __init__(self, config: TokenConfig, deliver: Deliver) -> None:
        self._url = URL(config.key_set_url, encoded=True)
        self._authorities = config.key_set_authorities
        self._interval = config.reload_seconds
        self._deliver = deliver
        self._tag = ""
        self._failures = 0
        self._hurry = asyncio.Event()

    async def run(self, board: Board, /) -> None:
        """Fetch periodically; failures are delivered, too."""
        while True:
            self._hurry.clear()
            seconds = await self.look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._hurry.wait()

    async def reload(self, board: Board, /) -> None:
        """Fetch at once."""
        self._hurry.set()

    async def look(self) -> float:
        """Fetch once; return after how many seconds to do it again."""
        usual = max(self._interval / 2, self._interval - _AHEAD_SECONDS)
        try:
            data, max_age = await self._fetch()
        except _UnusableError as error:
            self._failures += 1
            self._deliver(None, f"Cannot fetch the keys of {self._shown}: {error}")
            return min(usual, 2.0 ** min(self._failures, 16))
        self._failures = 0
        self._deliver(data, "")
        return min(usual, max(max_age, self._interval / 2))

    @property
    def _shown(self) -> str:
        # The query may be confidential.
        return str(self._url.with_query(None))

    async def _fetch(self) -> tuple[bytes | None, float]:
        """Return the set, or None if it has not changed, and how long it is fresh."""
        data, max_age, tag = await self._ask(self._url, self._tag)
        if data is not None:
            self._tag = tag if len(tag) <= _LONGEST_TAG else ""
        return data, max_age

    async def _ask(self, url: URL, known: str) -> tuple[bytes | None, float, str]:
        """Fetch unless the tag matches; return content or None, freshness, tag."""
        try:
            async with (
                asyncio.timeout(_SECONDS),
                self._session() as session,
                session.get(
                    url,
                    headers={"If-None-Match": known} if known else {},
                    allow_redirects=False,
                ) as response,
            ):
                return await _read(response, is_known=bool(known))
        except TimeoutError:
            raise _UnusableError("the request timed out.") from None
        except (aiohttp.ClientSSLError, ssl.SSLError):
            raise _UnusableError("the server certificate is not trusted.") from None
        except (aiohttp.ClientError, OSError, ValueError):
            raise _UnusableError("the connection failed.") from None

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=_context(self._authorities),
                resolver=BoundedResolver(),
                use_dns_cache=False,
                force_close=True,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=_HEADERS,
            auto_decompress=False,
            trust_env=False,
        )


class ProviderKeysTask(KeySetTask):
    """
    Periodic fetch of a provider's keys from the jwks_uri of its metadata.

    It fetches the metadata each time, so jwks_uri may change.

    Args:
        provider: The provider of the keys.

        interval_seconds: Interval between fetches.

        deliver: Called with each result.

    Standard:
        OpenID Connect Discovery 1.0, section 4.
    """

    def __init__(
        self, provider: OIDCSettings, interval_seconds: float, deliver: Deliver
    ) -> None:
        place = TokenConfig(
            key_set_url=provider.issuer.rstrip("/") + _METADATA_PATH,
            key_set_authorities=provider.ca_bundle,
            reload_seconds=interval_seconds,
        )
        super().__init__(place, deliver)
        self._issuer = provider.issuer
        self._metadata_url = self._url

    async def _fetch(self) -> tuple[bytes | None, float]:
        data, *_ = await self._ask(self._metadata_url, "")
        url = _place_of_keys(data or b"", self._issuer)
        if url != self._url:
            self._url, self._tag = url, ""
        return await super()._fetch()


async def _read(
    response: aiohttp.ClientResponse, *, is_known: bool
) -> tuple[bytes | None, float, str]:
    max_age = _max_age(response.headers.get("Cache-Control", ""))
    if response.status == HTTPStatus.NOT_MODIFIED and is_known:
        return None, max_age, ""
    if response.status != HTTPStatus.OK:
        raise _UnusableError(f"the response status is HTTP {response.status}.")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise _UnusableError("the response is compressed.")
    data = await _bounded_body(response)
    return data, max_age, response.headers.get("ETag", "")


def _place_of_keys(metadata: bytes, issuer: str) -> URL:
    """
    Return ``jwks_uri`` of a provider's metadata.

    Raises:
        _UnusableError: They are another provider's, or name no place that will do.
    """
    try:
        tree = scan_json(metadata)
    except HSMError:
        tree = None
    if not isinstance(tree, dict):
        raise _UnusableError("the provider metadata is not valid.")
    if tree.get("issuer") != issuer:
        raise _UnusableError("the metadata names another issuer.")
    text = tree.get("jwks_uri")
    try:
        if not isinstance(text, str) or not 1 <= len(text) <= _LONGEST_URL:
            raise ValueError
        url = URL(text)
        if url.scheme != "https" or not url.host or url.user or url.fragment:
            raise ValueError
    except ValueError:
        raise _UnusableError("jwks_uri in the metadata is not an https URL.") from None
    return url


def _context(authorities: Path | None) -> ssl.SSLContext:
    """
    Return the TLS context of the fetch.

    Raises:
        _UnusableError: The file of authorities can't be used.
    """
    try:
        context = ssl.create_default_context(cafile=authorities)
    except (OSError, ssl.SSLError):
        raise _UnusableError(
            f"cannot read the CA certificates in {authorities}."
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _max_age(text: str) -> float:
    found = _MAX_AGE.search(text)
    return float(found[1]) if found else float("inf")


async def _bounded_body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_SET_BYTES:
            raise _UnusableError(f"the response is longer than {MAX_SET_BYTES} bytes.")
    return bytes(body)
