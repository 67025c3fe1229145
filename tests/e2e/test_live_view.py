# SPDX-License-Identifier: MIT
"""A live view of a real server of several processes."""

import contextlib
import http.client
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.e2e.processes import ServerProcess
from tests.e2e.site import Site

PATH = "/api/v1/audit/events"
PATIENCE = 60.0


class View:
    """
    An auditor's view, over a connection of its own.

    Args:
        site: Whose server.

        server: It.

        last_id: Where to go on, or empty.
    """

    def __init__(self, site: Site, server: ServerProcess, *, last_id: str = "") -> None:
        self._connection = http.client.HTTPSConnection(
            "127.0.0.1", server.port, context=site.context, timeout=PATIENCE
        )
        headers = {
            "Accept": "text/event-stream",
            "Authorization": f"Bearer {site.token('vera', 'auditor')}",
        }
        if last_id:
            headers["Last-Event-ID"] = last_id
        self._connection.request("GET", PATH, headers=headers)
        self._answer = self._connection.getresponse()
        assert 200 == self._answer.status
        self.last_id = last_id

    def close(self) -> None:
        """Leave."""
        self._answer.close()
        self._connection.close()

    def events(self) -> Iterator[tuple[str, Any]]:
        """Give kind and data of each event, until the answer ends or breaks."""
        kind = ""
        with contextlib.suppress(OSError, http.client.HTTPException):
            while line := self._answer.readline():
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "id":
                    self.last_id = value
                elif name == "event":
                    kind = value
                elif name == "data":
                    yield kind, json.loads(value)

    def seqs_until(self, key: str) -> list[int]:
        """Return the positions of entries up to the creation of a key."""
        found = []
        for kind, data in self.events():
            assert "entry" == kind, data
            event = data["event"]
            found.append(event["seq"])
            if event["phase"] == "outcome" and event.get("key", {}).get("name") == key:
                return found
        raise AssertionError("The view has ended.")


def create(site: Site, server: ServerProcess, name: str) -> None:
    """Make a key."""
    with site.client(server.port, "ada", "operator") as client:
        body = {"algorithm": "Ed25519", "name": name}
        assert 201 == client.request("POST", "/api/v1/keys", body).status


def vault_of(server: ServerProcess) -> int:
    """Return the process id of the vault."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
    for pid in map(int, children.split()):
        if b"bootstrap.vault" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise AssertionError("There is no vault.")


def test_killed_vault(site: Site, server: ServerProcess) -> None:
    """
    The end of the vault is the view's last event, and the next one goes on from there.
    """
    view = View(site, server)
    create(site, server, "one")
    seqs = view.seqs_until("one")
    os.kill(vault_of(server), signal.SIGKILL)
    last = [(kind, data) for kind, data in view.events() if kind == "problem"]
    with site.client(server.port, "ada", "operator") as client:
        alive = client.request("GET", "/livez").status
        ends = time.monotonic() + PATIENCE
        while client.request("GET", "/readyz").status != 200:
            assert time.monotonic() < ends
            time.sleep(0.1)
    again = View(site, server, last_id=view.last_id)
    create(site, server, "two")
    seqs += again.seqs_until("two")

    assert ["unavailable"] == [data["code"] for _, data in last]
    assert 200 == alive
    assert list(range(seqs[0], seqs[0] + len(seqs))) == seqs
    view.close()
    again.close()
