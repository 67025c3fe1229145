# SPDX-License-Identifier: MIT
"""Users who go on working while others ask for too much, and look at each answer."""

from __future__ import annotations

import base64
import itertools
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from tests.e2e.https import Client, NoAnswerError

KEY: Final = "probed"
"""Name of the key that probers sign with: Ed25519."""

_KEYS: Final = "/api/v1/keys"


@dataclass(frozen=True)
class Probe:
    """
    One request of a user.

    Attributes:
        at: When it was sent, in seconds of the monotonic clock.
        seconds: How long its answer took.
        outcome: ``ok``, ``wrong``, a status, or that there was no answer.
    """

    at: float
    seconds: float
    outcome: str


def quantile(probes: Sequence[Probe], share: float) -> float:
    """Return how many seconds this share of answers took at most; 0 without any."""
    took = sorted(probe.seconds for probe in probes)
    return took[min(len(took) - 1, int(share * len(took)))] if took else 0.0


def public_key(client: Client) -> Ed25519PublicKey:
    """Make the key that probers sign with, and return its public half."""
    body = {"algorithm": "Ed25519", "name": KEY}
    made = client.request("POST", _KEYS, body)
    assert 201 == made.status, made.body
    shown = client.request("GET", f"{_KEYS}/{KEY}/public-key")
    found = load_pem_public_key(shown.json["pem"].encode())
    assert isinstance(found, Ed25519PublicKey)
    return found


class Prober:
    """
    Signs and asks for the status in turn, twenty times a second, on one connection.

    Args:
        port: Of the server.

        context: TLS.

        token: Of an operator.

        source: Address that it comes from.

        key: Public half of `KEY`.

        pause_seconds: From one request to the next.
    """

    def __init__(
        self,
        port: int,
        context: ssl.SSLContext,
        token: str,
        source: str,
        key: Ed25519PublicKey,
        pause_seconds: float = 0.05,
    ) -> None:
        self._client = Client(port, context, token, 30.0, source)
        self._key = key
        self._pause = pause_seconds
        self._probes: list[Probe] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask for nothing more."""
        self._stopping.set()
        self._thread.join()
        self._client.close()

    def between(self, begin: float, end: float) -> list[Probe]:
        """Return what was asked in a time."""
        return [probe for probe in self._probes.copy() if begin <= probe.at < end]

    def _run(self) -> None:
        for number in itertools.count():
            at = time.monotonic()
            try:
                outcome = self._sign(number) if number % 2 else self._status()
            except NoAnswerError:
                outcome = "no answer"
            self._probes.append(Probe(at, time.monotonic() - at, outcome))
            if self._stopping.wait(max(0.0, at + self._pause - time.monotonic())):
                return

    def _status(self) -> str:
        answer = self._client.request("GET", "/api/v1/status")
        if answer.status != 200:
            return str(answer.status)
        return "ok" if "algorithms" in answer.json else "wrong"

    def _sign(self, number: int) -> str:
        message = b"probe %d" % number
        body: dict[str, Any] = {"message": base64.b64encode(message).decode()}
        answer = self._client.request("POST", f"{_KEYS}/{KEY}/sign", body)
        if answer.status != 200:
            return str(answer.status)
        try:
            self._key.verify(base64.b64decode(answer.json["signature"]), message)
        except InvalidSignature:
            return "wrong"
        return "ok"
