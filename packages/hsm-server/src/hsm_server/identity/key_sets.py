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
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, TypeAlias

from yarl import URL

from hsm_server.config.settings import CONSOLE_PROVIDER, ServerSettings, TokenIssuer
from hsm_server.identity.fetch import (
    Fetched,
    FetchError,
    fetch,
    metadata_url,
    read_metadata,
    trust_context,
)
from hsm_server.identity.oidc_config import is_https
from hsm_server.tls.manager import Task
from hsm_server.tls.state import ActiveState

MAX_SET_BYTES: Final = 64 * 1024
"""Longest key set."""

Deliver: TypeAlias = Callable[[bytes | None, str], None]
"""Called with the key set, or None if unchanged, and the fault."""

DeliverFrom: TypeAlias = Callable[[str, bytes | None, str], None]
"""Called with the source, the key set or None, and the fault."""

_SECONDS: Final = 10.0
_AHEAD_SECONDS: Final = 1.0
_LONGEST_TAG: Final = 256
_LONGEST_URL: Final = 2048
_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age=([0-9]{1,9})(?:$|[\s,])", re.I)
_HEADERS: Final = {"Accept": "application/jwk-set+json, application/json"}


def key_set_tasks(settings: ServerSettings, deliver: DeliverFrom) -> list[Task]:
    """
    Return the tasks that fetch keys, if URLs are configured.

    Args:
        settings: URLs and intervals.

        deliver: Called with the source, as in `hsm_server.ipc.control.KeySet`, and its
            keys.
    """
    tasks: list[Task] = []
    config, provider = settings.token_config, settings.oidc
    seconds = config.reload_seconds
    if config.key_set_url:
        tasks.append(
            KeySetTask(
                config.key_set_url,
                config.key_set_authorities,
                seconds,
                partial(deliver, ""),
            )
        )
    if provider is not None and provider.jwks_file is None:
        issuer = TokenIssuer(issuer=provider.issuer, ca_bundle=provider.ca_bundle)
        told = partial(deliver, CONSOLE_PROVIDER)
        tasks.append(ProviderKeysTask(issuer, seconds, told))
    for issuer in settings.token_issuers:
        if issuer.jwks_url:
            told = partial(deliver, issuer.issuer)
            tasks.append(KeySetTask(issuer.jwks_url, issuer.ca_bundle, seconds, told))
        elif issuer.jwks_file is None:
            told = partial(deliver, issuer.issuer)
            tasks.append(ProviderKeysTask(issuer, seconds, told))
    return tasks


class KeySetTask:
    """
    Periodic fetch of a JWK Set.

    Cache lifetimes of the server can shorten the interval to a half and never extend
    it: a removed key is gone within the interval.

    Args:
        url: URL of the set.

        authorities: CA certificates that verify its server, PEM; None for the system's.

        interval_seconds: Interval between fetches.

        deliver: Called with each result.

    Standard:
        RFC 9110, section 13.1.2 (``If-None-Match``); RFC 9111, section 5.2.2.1.
    """

    def __init__(
        self,
        url: str,
        authorities: Path | None,
        interval_seconds: float,
        deliver: Deliver,
    ) -> None:
        self._url = URL(url, encoded=True)
        self._authorities = authorities
        self._interval = interval_seconds
        self._deliver = deliver
        self._tag = ""
        self._failures = 0
        self._hurry = asyncio.Event()

    async def run(self, active: ActiveState, /) -> None:
        """Fetch periodically; failures are delivered too."""
        while True:
            self._hurry.clear()
            seconds = await self.look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._hurry.wait()

    async def reload(self, active: ActiveState, /) -> None:
        """Fetch at once."""
        self._hurry.set()

    async def look(self) -> float:
        """Fetch once; return the seconds until the next fetch."""
        usual = max(self._interval / 2, self._interval - _AHEAD_SECONDS)
        try:
            data, max_age = await self._fetch()
        except FetchError as error:
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
        """Return the set, or None if unchanged, and its freshness in seconds."""
        data, max_age, tag = await self._ask(self._url, self._tag)
        if data is not None:
            self._tag = tag if len(tag) <= _LONGEST_TAG else ""
        return data, max_age

    async def _get(self, url: URL, known: str = "") -> Fetched:
        headers = {**_HEADERS, "If-None-Match": known} if known else _HEADERS
        return await fetch(
            url,
            trust_context(self._authorities),
            headers=headers,
            seconds=_SECONDS,
            most_bytes=MAX_SET_BYTES,
        )

    async def _ask(self, url: URL, known: str) -> tuple[bytes | None, float, str]:
        """Fetch unless the tag matches; return content or None, freshness, tag."""
        response = await self._get(url, known)
        max_age = _max_age(response.headers.get("Cache-Control", ""))
        if response.status == HTTPStatus.NOT_MODIFIED and known:
            return None, max_age, ""
        if response.status != HTTPStatus.OK:
            raise FetchError(f"the response status is HTTP {response.status}.")
        return response.body, max_age, response.headers.get("ETag", "")


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
        self, provider: TokenIssuer, interval_seconds: float, deliver: Deliver
    ) -> None:
        url = str(metadata_url(provider.issuer))
        super().__init__(url, provider.ca_bundle, interval_seconds, deliver)
        self._issuer = provider.issuer
        self._metadata_url = self._url

    async def _fetch(self) -> tuple[bytes | None, float]:
        response = await self._get(self._metadata_url)
        url = _place_of_keys(read_metadata(response, self._issuer))
        if url != self._url:
            self._url, self._tag = url, ""
        return await super()._fetch()


def _place_of_keys(metadata: dict[str, Any]) -> URL:
    """
    Return ``jwks_uri`` of a provider's metadata.

    Raises:
        FetchError: It is not a valid https URL.
    """
    text = metadata.get("jwks_uri")
    if isinstance(text, str) and len(text) <= _LONGEST_URL and is_https(text):
        return URL(text)
    raise FetchError("jwks_uri in the metadata is not an https URL.")


def _max_age(text: str) -> float:
    found = _MAX_AGE.search(text)
    return float(found[1]) if found else float("inf")
