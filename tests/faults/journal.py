# SPDX-License-Identifier: MIT
"""
What a client has sent and heard, written down before and after.

A line is synced before its request goes out, and another when the answer is there. So
whatever becomes of the server, the journal knows what was acknowledged, and of what the
outcome is not known yet.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Entry:
    """
    A request.

    Attributes:
        number: Counts the client's requests, from 1.
        kind: Name of the operation.
        key: Our own name for the key it is about.
        body: Fields of the operation.
        idempotency_key: Empty for a use.
    """

    number: int
    kind: str
    key: str
    body: dict[str, Any]
    idempotency_key: str = ""


@dataclass(frozen=True)
class Outcome:
    """
    What became of a request.

    Attributes:
        status: HTTP status, or 0: nobody knows, and nobody will ask again.
        answer: JSON of the answer.
    """

    status: int
    answer: dict[str, Any]

    @property
    def is_success(self) -> bool:
        """Whether it was acknowledged as done."""
        return 200 <= self.status < 300


class Journal:
    """
    The journal of one client.

    Args:
        path: File of JSON lines; made if absent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._numbers = 0
        self.pending: Entry | None = None

    def begin(
        self, kind: str, key: str, body: dict[str, Any], idempotency_key: str = ""
    ) -> Entry:
        """Write down what is about to be sent."""
        assert self.pending is None
        self._numbers += 1
        entry = Entry(self._numbers, kind, key, body, idempotency_key)
        self._write(
            {
                "number": entry.number,
                "kind": kind,
                "key": key,
                "body": body,
                "idempotency_key": idempotency_key,
            }
        )
        self.pending = entry
        return entry

    def end(self, outcome: Outcome) -> None:
        """Write down what was answered to the request that is pending."""
        assert self.pending is not None
        self._write(
            {
                "number": self.pending.number,
                "status": outcome.status,
                "answer": outcome.answer,
            }
        )
        self.pending = None

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    @staticmethod
    def read(path: Path) -> Iterator[tuple[Entry, Outcome | None]]:
        """Return every request with its outcome; None if it has none yet."""
        entry: Entry | None = None
        for line in path.read_text().splitlines():
            found = json.loads(line)
            if "status" in found:
                assert entry is not None
                assert entry.number == found["number"]
                yield entry, Outcome(found["status"], found["answer"])
                entry = None
            else:
                assert entry is None
                entry = Entry(**found)
        if entry is not None:
            yield entry, None

    def _write(self, value: dict[str, Any]) -> None:
        line = json.dumps(value, separators=(",", ":")).encode() + b"\n"
        written = os.write(self._descriptor, line)
        assert written == len(line)
        os.fdatasync(self._descriptor)
