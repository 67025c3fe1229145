# SPDX-License-Identifier: MIT
"""HTTP transport to a CA: HTTPS only, limited in size and time, with a fresh nonce."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import requests
from acme import client, messages
from josepy.jwa import ES256
from josepy.jwk import JWK
from requests.adapters import HTTPAdapter
from requests.exceptions import ConnectionError as BrokenError
from requests.exceptions import ReadTimeout

from hsm_server.__about__ import __version__

_MOST_BYTES: Final = 1024 * 1024
_CONNECT_SECONDS: Final = 5.0
_SILENT_SECONDS: Final = 10.0
"""Time limit without any data."""

_ANSWER_SECONDS: Final = 20.0
"""Time limit of a whole response."""

_CHUNK_BYTES: Final = 16 * 1024
_MOST_NONCES: Final = 12
"""Maximum number of retries after a rejected nonce."""


class Network(client.ClientNetwork):
    """
    Network access of the ACME library.

    Args:
        key: Key of the account.

        authorities: PEM file of CAs that verify the CA's certificate.

    Attributes:
        retry_after: Retry-After header of the last refusal.

    Standard:
        RFC 8555, sections 6.1, 6.5 and 6.6.
    """

    def __init__(self, key: JWK, authorities: Path | None) -> None:
        super().__init__(
            key,
            alg=ES256,
            user_agent=f"ferrohsm/{__version__} acme-python",
        )
        self.retry_after: str | None = None
        # What a library takes from environment and home is not for this program.
        self.session.trust_env = False
        if authorities is not None:
            self.session.verify = str(authorities)
            self.verify_ssl = str(authorities)  # type: ignore[assignment]
        self.session.adapters.clear()
        self.session.mount("https://", _Limited(self._note))

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request, again as long as its nonce is what is wrong with it."""
        for _ in range(_MOST_NONCES):
            try:
                return super().post(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return super().post(*args, **kwargs)

    def _note(self, response: requests.Response) -> None:
        if not response.ok:
            self.retry_after = response.headers.get("Retry-After")


class _Limited(HTTPAdapter):
    """Adapter that limits size and time of responses."""

    def __init__(self, note: Callable[[requests.Response], None]) -> None:
        super().__init__()
        self._tell = note

    def send(  # type: ignore[override]
        self, request: requests.PreparedRequest, **options: Any
    ) -> requests.Response:
        """Send a request; its answer is read by who asks."""
        end = time.monotonic() + _ANSWER_SECONDS
        options |= {"stream": True, "timeout": (_CONNECT_SECONDS, _SILENT_SECONDS)}
        response = super().send(request, **options)
        response.raw = _Body(response.raw, end)
        self._tell(response)
        return response


class _Body:
    """Body of a response, limited in length and time."""

    def __init__(self, raw: Any, end: float) -> None:
        self._raw = raw
        self._end = end

    def stream(self, amount: int, decode_content: bool = True) -> Iterator[bytes]:
        """Yield the body in pieces."""
        try:
            yield from self._pieces(decode_content)
        except BaseException:
            # Its rest is not to be taken for another answer.
            self._raw.close()
            raise
        self._raw.release_conn()

    def _pieces(self, decode_content: bool) -> Iterator[bytes]:
        length = 0
        # Its own `stream` waits until there is as much as it was asked for.
        while piece := self._raw.read1(_CHUNK_BYTES, decode_content=decode_content):
            length += len(piece)
            if length > _MOST_BYTES:
                raise BrokenError("The response is too long.")
            if time.monotonic() > self._end:
                raise ReadTimeout("The response timed out.")
            yield piece

    def read(self, amount: int = _CHUNK_BYTES, decode_content: bool = True) -> bytes:
        """Read what a redirection has for a body."""
        return bytes(self._raw.read(amount, decode_content=decode_content))

    def close(self) -> None:
        """Close the connection."""
        self._raw.close()

    def release_conn(self) -> None:
        """Let the connection be used again."""
        self._raw.release_conn()

    @property
    def headers(self) -> Mapping[str, str]:
        """Of the answer."""
        return self._raw.headers  # type: ignore[no-any-return]
