# SPDX-License-Identifier: MIT
"""
A small client of the REST API over ``requests``: copy it into your program.

It needs neither hsm-core nor hsm-cli. What it knows is in the API reference: JSON with
bytes as base64, problems as errors, 202 where other people must agree.
"""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import requests

__all__ = ["ApprovalPendingError", "Client", "ProblemError", "decode", "encode"]

_AGAIN: Final = frozenset({429, 503})
_POLL_SECONDS: Final = 0.5
_LONGEST_PAUSE: Final = 10.0


def encode(data: bytes) -> str:
    """Return bytes as the API writes them."""
    return base64.b64encode(data).decode()


def decode(text: str) -> bytes:
    """Return the bytes that the API wrote."""
    return base64.b64decode(text, validate=True)


class ProblemError(Exception):
    """
    The server refused or failed (RFC 9457).

    Attributes:
        status: HTTP status.
        code: Stable name of the problem, such as ``access_denied``.
        request_id: Stands in the server's log and trail, too.
    """

    def __init__(
        self, status: int, problem: Mapping[str, Any], request_id: str
    ) -> None:
        super().__init__(f"{problem.get('detail', 'No detail.')} ({request_id})")
        self.status = status
        self.code = str(problem.get("code", ""))
        self.request_id = request_id


class ApprovalPendingError(Exception):
    """
    Other people must agree first.

    Attributes:
        approval: What they are asked, as the server shows it.
    """

    def __init__(self, approval: dict[str, Any]) -> None:
        super().__init__(f"Approval {approval['approval_id']} is needed.")
        self.approval = approval


@dataclass(frozen=True)
class Answer:
    """
    A good answer.

    Attributes:
        request_id: Of the record in the trail.
    """

    body: Any
    request_id: str


class Client:
    """
    Speaks to one server, as whoever token and certificate say.

    Args:
        endpoint: Such as ``https://localhost:8443``.

        token: Bearer token.

        ca_bundle: File of the authorities that the server's certificate is checked by.

        certificate: Files of the client's certificate and key, for mutual TLS.

        attempts: How often something is sent before giving up.
    """

    def __init__(
        self,
        endpoint: str,
        token: str,
        *,
        ca_bundle: str,
        certificate: tuple[str, str] | None = None,
        attempts: int = 5,
    ) -> None:
        self._base = f"{endpoint.rstrip('/')}/api/v1"
        self._attempts = attempts
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy and no .netrc between us and the HSM
        self._session.headers["Authorization"] = f"Bearer {token}"
        self._session.verify = ca_bundle
        self._session.cert = certificate

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def get(self, path: str, **query: str | int) -> Answer:
        """Return what a resource is."""
        return self._send("GET", path, query=query)

    def use(self, path: str, body: Mapping[str, Any]) -> Answer:
        """Use a key: sign, verify, encrypt; see `change` for what it raises."""
        return self._send("POST", path, body)

    def change(
        self, path: str, body: Mapping[str, Any], *, idempotency_key: str = ""
    ) -> Answer:
        """
        Change something, once, however often it has to be sent.

        Raises:
            ApprovalPendingError: Other people must agree first.
            ProblemError: It was refused, or failed.
        """
        return self._send("POST", path, body, idempotency_key or str(uuid.uuid4()))

    def delete(self, path: str, *, idempotency_key: str = "") -> Answer:
        """Remove something; see `change`."""
        key = idempotency_key or str(uuid.uuid4())
        return self._send("DELETE", path, None, key)

    def pages(self, **query: str | int) -> Iterator[dict[str, Any]]:
        """Give all keys that match, newest first, page by page."""
        while True:
            page = self.get("/keys", **query).body
            yield from page["items"]
            cursor = page.get("next_cursor", "")
            if not cursor:
                return
            query["cursor"] = cursor

    def wait(self, approval: Mapping[str, Any], seconds: float) -> str:
        """Return the state of an approval once it is not pending, or in the end."""
        deadline = time.monotonic() + seconds
        while True:
            state = str(self.get(f"/approvals/{approval['approval_id']}").body["state"])
            if state != "pending" or time.monotonic() > deadline:
                return state
            time.sleep(_POLL_SECONDS)

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        idempotency_key: str = "",
        query: Mapping[str, str | int] | None = None,
    ) -> Answer:
        """Send until there is an answer that another try would not change."""
        # The same key at each try: what was done already is not done again.
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        for attempt in range(1, self._attempts + 1):
            is_last = attempt == self._attempts
            try:
                response = self._session.request(
                    method,
                    self._base + path,
                    json=body,
                    params=query,
                    headers=headers,
                    timeout=30,
                )
            except requests.ConnectionError:
                if is_last:
                    raise
                time.sleep(_pause(attempt, ""))
                continue
            if response.status_code not in _AGAIN or is_last:
                return _read(response)
            time.sleep(_pause(attempt, response.headers.get("Retry-After", "")))
        raise AssertionError("The last attempt returns or raises.")


def _pause(attempt: int, said: str) -> float:
    """Return how long to wait: as the server says, else longer each time."""
    wanted = float(said) if said.isdecimal() else 0.1 * 2.0**attempt
    return min(wanted, _LONGEST_PAUSE)


def _read(response: requests.Response) -> Answer:
    request_id = response.headers.get("X-Request-Id", "")
    body: Any = response.json() if response.content else None
    if response.status_code == requests.codes.accepted:
        raise ApprovalPendingError(body)
    if not response.ok:
        raise ProblemError(response.status_code, body or {}, request_id)
    return Answer(body, request_id)
