# SPDX-License-Identifier: MIT
"""Requests in flight while processes are killed: who retries by key sees no failure."""

import contextlib
import http.client
import json
import os
import signal
import ssl
import threading
import time
from pathlib import Path

from tests.server.family import Family, retrying, wait_until
from tests.server.process import Running, Site, client_context
from tests.server.support import mint

_KILLS = 4
_BETWEEN = 2
"""Keys that are made from one kill to the next, at least."""

_PATIENCE = 60.0


class _Client:
    """Makes keys, and sends each request until it has an answer."""

    def __init__(self, server: Running, context: ssl.SSLContext, name: str) -> None:
        self._server = server
        self._context = context
        self._name = name
        self.made: dict[str, str] = {}
        self.failures: list[object] = []

    def work(self, end: threading.Event) -> None:
        """Make keys until they are enough, or until something fails."""
        number = 0
        while not end.is_set() and not self.failures:
            number += 1
            self._make(f"{self._name}-{number}")

    def _make(self, name: str) -> None:
        end, key = time.monotonic() + _PATIENCE, name
        while time.monotonic() < end:
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, answer = self._send(name, key)
                if status == 201:
                    self.made[name] = answer["key_id"]
                    return
                if answer.get("code") == "operation_aborted":
                    # Nothing was done, and the answer asks for another key.
                    key += "+"
                elif status != 503:
                    self.failures.append((status, answer))
                    return
            time.sleep(0.05)
        self.failures.append("no answer")

    def _send(self, name: str, key: str) -> tuple[int, dict[str, str]]:
        connection = http.client.HTTPSConnection(
            *self._server.address, context=self._context, timeout=20
        )
        headers = {
            "Authorization": f"Bearer {mint()}",
            "Content-Type": "application/json",
            "Idempotency-Key": f'"{key}"',
        }
        with contextlib.closing(connection):
            body = json.dumps({"algorithm": "Ed25519", "name": name})
            connection.request("POST", "/api/v1/keys", body, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())


def test_no_request_fails_for_who_retries(tmp_path: Path) -> None:
    """Vault and front ends are killed several times; every key is there, and once."""
    site = Site(tmp_path)
    with site.serve("--workers", "2") as server:
        family = Family(server)
        clients = [
            _Client(server, client_context(site.authority), f"c{n}") for n in range(4)
        ]
        enough = threading.Event()
        threads = [
            threading.Thread(target=client.work, args=(enough,)) for client in clients
        ]
        for thread in threads:
            thread.start()
        try:
            _kill_in_turn(family, clients)
        finally:
            enough.set()
            for thread in threads:
                thread.join()
        wait_until(lambda: len(family.front_ends) == 2)
        assert 200 == retrying(server, "/api/v1/status").status
        listing = server.send("GET", "/api/v1/keys?per_page=1000").json["items"]
        assert 0 == server.stop()

    made = {name: key for client in clients for name, key in client.made.items()}
    assert [] == [failure for client in clients for failure in client.failures]
    assert made == {item["name"]: item["key_id"] for item in listing}


def _kill_in_turn(family: Family, clients: list[_Client]) -> None:
    """Kill front ends and vault by turns, each time when keys are made again."""
    made = 0

    def is_working() -> bool:
        is_failed = any(client.failures for client in clients)
        return is_failed or sum(len(client.made) for client in clients) >= made

    for number in range(_KILLS):
        made = sum(len(client.made) for client in clients) + _BETWEEN
        wait_until(is_working)
        victims = [family.vault] if number % 2 else family.front_ends[:1]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
