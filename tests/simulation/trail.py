# SPDX-License-Identifier: MIT
"""A second reader of the trail, which believes no line before it has followed it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from hsm_core._internal.audit.keys import record_mac_function
from tests.simulation.disk import Disk

_HEAD: Final = b'{"format":2,"seq":"'
_TAIL_BYTES: Final = 74
COMMITTED: Final = frozenset({"ok", "recovered-committed"})
"""Codes of outcomes of changes that were made."""


@dataclass(frozen=True, slots=True)
class Entry:
    """
    A record, as far as the simulation asks for it.

    Attributes:
        facts: The whole event.
    """

    seq: int
    kind: str
    phase: str
    code: str
    facts: dict[str, Any]

    def fact(self, name: str) -> Any:
        """Return a field of the event; empty where it is left out."""
        return self.facts.get(name, "")


def _expanded(line: bytes, event: dict[str, Any]) -> dict[str, Any]:
    """Return the members of an event that stand in its facts line."""
    if not line:
        return {}
    facts = msgspec.json.decode(line)
    assert facts["facts"] == event["facts"]
    who, source, key, rule, parameters = (part[2] for part in facts["parts"])
    numbers = iter(event.get("numbers", ()))
    place = ("key_id", "version", "generation")
    return {
        **rule,
        **{name: key.pop(name) for name in place if name in key},
        "caller": who | source,
        "key": key,
        "parameters": {
            name: next(numbers) if value is None else value
            for name, value in parameters.items()
        },
    }


@dataclass(slots=True)
class TrailReader:
    """
    Follows the durable part of a trail, line by line.

    Attributes:
        stored: Generation and document digest of each key after its last change.
        by_request: The records of each request id.
        entries: All that was read.
        waiting: Operation ids of intents without outcome, with the key each names.
    """

    disk: Disk
    hmac_key: bytes
    stored: dict[str, tuple[int, str]] = field(default_factory=dict)
    by_request: dict[str, list[Entry]] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    _next: int = 0
    _prev: str = "0" * 64

    def read(self) -> list[Entry]:
        """
        Read what has become durable since, and return it.

        Raises:
            AssertionError: A line does not follow from the one before.
        """
        disk, found = self.disk, list[Entry]()
        assert disk.first_seq <= self._next, "lines were pruned that nobody has read"
        mac_of = record_mac_function(self.hmac_key, disk.log_id)
        while self._next < disk.synced:
            line = disk.lines[self._next - disk.first_seq]
            facts, _, entry = line.rpartition(b"\n")
            payload, mac = entry[:-_TAIL_BYTES], entry[-66:-2]
            assert entry.startswith(_HEAD), f"line {self._next} is framed otherwise"
            assert mac_of(payload).hex().encode() == mac, f"line {self._next}: its MAC"
            event = msgspec.json.decode(payload + b"}")
            assert (int(event["seq"], 16), event["prev"]) == (self._next, self._prev)
            event |= {"seq": self._next, "facts": ""} | _expanded(facts, event)
            self._prev = hashlib.sha256(b"\0" + entry).hexdigest()
            self._next += 1
            found.append(self._note(event))
        self.entries += found
        return found

    def read_all(self) -> list[Entry]:
        """Read what has become durable since, and return all."""
        self.read()
        return self.entries

    def _note(self, event: dict[str, Any]) -> Entry:
        entry = Entry(
            seq=event["seq"],
            kind=event["kind"],
            phase=event.get("phase", "single"),
            code=event.get("code", "ok"),
            facts=event,
        )
        if request_id := event.get("request_id"):
            self.by_request.setdefault(request_id, []).append(entry)
        operation_id = event.get("operation_id", "")
        if entry.phase == "intent":
            self.waiting[operation_id] = event.get("key_id", "")
        elif entry.phase == "outcome":
            self.waiting.pop(operation_id, None)
            if entry.code in COMMITTED and event.get("document_after"):
                self.stored[event["key_id"]] = (
                    event["generation"],
                    event["document_after"],
                )
        return entry
