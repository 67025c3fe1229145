# SPDX-License-Identifier: MIT
"""
HTTPS requests to token issuers and identity providers, with bounds.

A request follows no redirect, uses no proxy of the environment, keeps no cookie,
decompresses nothing and connects to allowed addresses only.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import aiohttp
from yarl import URL

from hsm_core.errors import HSMError
from hsm_core.wire import scan_json
from hsm_server.tls.ocsp.fetch import BoundedResolver

_CHUNK_BYTES: Final = 8192
_HEADERS: Final = {"Accept-Encoding": "identity", "User-Agent": "ferrohsm"}


class FetchError(Exception):
    """A request failed; the message is the reason and contains no secret."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def fetch(
    url: URL,
    context: ssl.SSLContext,
    *,
    headers: Mapping[str, str],
    seconds: float,
    most_bytes: int,
    form: bytes | None = None,
) -> Fetched:
    """
    Send a GET request, or a POST request with a form.

    Args:
        url: An https URL.

        context: TLS context with the trusted CAs.

        headers: More header fields.

        seconds: Time limit of request and response.

        most_bytes: Maximum length of the body of the response.

        form: Body of the request, percent-encoded.

    Raises:
        FetchError: The request failed, or the response is compressed or too long.
    """
    connector = aiohttp.TCPConnector(
        ssl=context, resolver=BoundedResolver(), use_dns_cache=False
    )
    try:
        async with (
            asyncio.timeout(seconds),
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={**_HEADERS, **headers},
                auto_decompress=False,
                trust_env=False,
            ) as session,
            session.request(
                "GET" if form is None else "POST",
                url,
                data=form,
                allow_redirects=False,
            ) as response,
        ):
            try:
                body = await _bounded_body(response, most_bytes)
            except BaseException:
                # A server that does not answer would not close the connection either.
                if response.connection and response.connection.transport:
                    response.connection.transport.abort()
                raise
            return Fetched(response.status, response.headers, body)
    except TimeoutError:
        raise FetchError("the request timed out.") from None
    except (aiohttp.ClientSSLError, ssl.SSLError):
        raise FetchError("the server certificate is not trusted.") from None
    except (aiohttp.ClientError, OSError, ValueError):
        raise FetchError("the connection failed.") from None
    finally:
        # The socket of a closed session closes in the next turn.
        await asyncio.sleep(0)


async def _bounded_body(response: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise FetchError("the response is compressed.")
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        body += chunk
        if len(body) > most_bytes:
            raise FetchError(f"the response is longer than {most_bytes} bytes.")
    return bytes(body)


METADATA_PATH: Final = "/.well-known/openid-configuration"
"""Path of a provider's metadata, below its issuer."""


def metadata_url(issuer: str) -> URL:
    """Return the URL of a provider's metadata (OpenID Connect Discovery, section 4)."""
    return URL(issuer.rstrip("/") + METADATA_PATH)


def read_metadata(response: Fetched, issuer: str) -> dict[str, Any]:
    """
    Return the metadata of a provider.

    Raises:
        FetchError: They are not valid, or another provider's.
    """
    if response.status != HTTPStatus.OK:
        raise FetchError(f"the response status is HTTP {response.status}.")
    try:
        tree = scan_json(response.body)
    except HSMError:
        tree = None
    if not isinstance(tree, dict):
        raise FetchError("the provider metadata is not valid.")
    if tree.get("issuer") != issuer:
        raise FetchError("the metadata names another issuer.")
    return tree


def trust_context(authorities: Path | None) -> ssl.SSLContext:
    """
    Return a TLS context that trusts the CAs of a file, or of the system. It blocks.

    Raises:
        FetchError: The file can't be read.
    """
    try:
        context = ssl.create_default_context(cafile=authorities)
    except (OSError, ssl.SSLError):
        raise FetchError(f"cannot read the CA certificates in {authorities}.") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
