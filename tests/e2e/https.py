# SPDX-License-Identifier: MIT
"""A plain HTTPS client with one kept connection, that knows nothing of the HSM."""

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.e2e.certificates import Pair


class NoAnswerError(Exception):
    """The connection broke before an answer was read."""


@dataclass(frozen=True)
class Answer:
    """An answer; *headers* have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The stable code of a problem document, or an empty string."""
        if not self.headers.get("content-type", "").startswith(
            "application/problem+json"
        ):
            return ""
        return str(self.json.get("code", ""))


def client_context(bundle: Path, pair: Pair | None) -> ssl.SSLContext:
    """Return a context that trusts *bundle* alone and shows a certificate."""
    context = ssl.create_default_context(cafile=str(bundle))
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    return context


class Client:
    """
    One connection to a server, opened when it is first needed.

    Args:
        port: On the loopback interface.

        context: See `client_context`.

        token: Bearer token, or empty.

        timeout_seconds: How long nothing may be heard.

        source: Address that it comes from, on loopback.
    """

    def __init__(
        self,
        port: int,
        context: ssl.SSLContext,
        token: str = "",
        timeout_seconds: float = 60.0,
        source: str = "127.0.0.1",
    ) -> None:
        self._token = token
        self._connection = http.client.HTTPSConnection(
            "127.0.0.1",
            port,
            context=context,
            timeout=timeout_seconds,
            source_address=(source, 0),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """
        Send a request and read its answer; a mapping goes as JSON.

        Raises:
            NoAnswerError: The answer did not come; whether the request arrived is
                not known.
        """
        sent = dict(headers or {})
        if self._token:
            sent.setdefault("Authorization", f"Bearer {self._token}")
        if isinstance(body, Mapping):
            sent.setdefault("Content-Type", "application/json")
            body = json.dumps(body).encode()
        try:
            self._connection.request(method, path, body, sent)
            answer = self._connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise NoAnswerError(f"{method} {path}: {error!r}") from error
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, data)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
