# SPDX-License-Identifier: MIT
"""A site at which several people work, each with a certificate of their own."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, TypeAlias

from tests.e2e.certificates import Pair
from tests.e2e.https import Client, NoAnswerError, client_context
from tests.e2e.site import Site

Done: TypeAlias = subprocess.CompletedProcess[bytes]
_UNAVAILABLE = 503


class PeopleSite(Site):
    """A site whose clients are people."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._pairs: dict[str, Pair] = {}

    def pair(self, who: str) -> Pair:
        """Return the certificate of a person; nobody decides twice with one."""
        if who not in self._pairs:
            self._pairs[who] = self.authority.issue(who, server=False)
        return self._pairs[who]

    def client(
        self, port: int, principal: str, *roles: str, timeout_seconds: float = 60.0
    ) -> Client:
        """Return a client who shows a certificate of their own."""
        context = client_context(self.authority.bundle, self.pair(principal))
        return Client(port, context, self.token(principal, *roles), timeout_seconds)

    def tell(self, port: int, who: str, *words: str, data: bytes = b"") -> Done:
        """Run the client as ``NAME/ROLE``, with a certificate of their own."""
        actor, _, roles = who.partition("/")
        self.client_pair = self.pair(actor)
        return self.cli(port, *words, actor=actor, roles=roles, data=data)

    def get(self, port: int, path: str) -> Any:
        """
        Return what a resource is, to an Auditor.

        Raises:
            NoAnswerError: The process that holds the keys is started anew.
        """
        with self.client(port, "anton", "Auditor") as client:
            answer = client.request("GET", f"/api/v1{path}")
            if answer.status == _UNAVAILABLE:
                raise NoAnswerError(path)
            assert 200 == answer.status, answer.body
            return answer.json

    def agree(
        self,
        port: int,
        approval_id: str,
        people: tuple[tuple[str, str], ...] = (
            ("olga", "Operator"),
            ("anton", "Auditor"),
        ),
    ) -> str:
        """Let people agree to what they see; return what became of the request."""
        path = f"/api/v1/approvals/{approval_id}"
        state = ""
        for who, role in people:
            with self.client(port, who, role) as client:
                seen = {"digest": client.request("GET", path).json["digest"]}
                answer = client.request("POST", f"{path}/approve", seen)
            assert 200 == answer.status, answer.body
            state = str(answer.json["state"])
        return state

    def metric(self, port: int, name: str) -> float:
        """
        Return the value of a metric that has no labels.

        A counter of the vault is missing, here -1, while the vault doesn't answer.
        """
        with self.client(port, "anton", "Auditor") as client:
            text = client.request("GET", "/metrics").body.decode()
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else -1.0
