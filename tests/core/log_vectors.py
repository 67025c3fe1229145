# SPDX-License-Identifier: MIT
"""
Makes the test vectors of the audit log, with nothing but its published format.

``python -m tests.core.log_vectors`` writes them to the reference. Right and wrong logs
are in them; those that are wrong have a right MAC all the same, where that is not what
is wrong: as somebody would write them who has the key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, Final

from tests.core.second_reader.keys import derived, key_check
from tests.core.second_reader.scribe import LABELS, Scribe
from tests.support import REPOSITORY

PUBLISHED: Final = REPOSITORY / "docs" / "reference" / "audit-vectors.json"

HMAC_KEY: Final = bytes(range(32))
LOG_ID: Final = "00112233445566778899aabbccddeeff"
_KEY_ID: Final = "3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11"
_SIGNING: Final[dict[str, dict[str, Any]]] = {
    "who": {"principal": "zoë", "roles": ["Operator"], "credential_id": "jti-1"},
    "from": {
        "source_address": "192.0.2.7",
        "interface": "rest",
        "interface_claimed": "cli",
    },
    "key": {
        "key_id": _KEY_ID,
        "version": 1,
        "generation": 1,
        "algorithm": "EC-P256",
        "usages": ["sign", "verify"],
        "name": "release",
        "owner": "zoë",
        "state": "active",
    },
    "rule": {"rule": "role:Operator", "policy": "ab" * 32},
    "parameters": {
        "message_bytes": None,
        "scheme": "ECDSA",
        "hash": "SHA-256",
        "encoding": "der",
    },
}
_DENIED: Final = {"who": {"principal": 'eve "\\\n\t\x01\u2028', "roles": ["Auditor"]}}
SIGNATURE: Final = bytes(range(64))


class Vector:
    """
    One log.

    Args:
        name: What it is called.

    Attributes:
        scribe: Writes it.
        wrong: The first bad entry, and the reason; None if there is none.
        head: The head mark, if it is not the usual one.
        binds: What `bind` of an entry covers, by seq.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.scribe = Scribe(HMAC_KEY, LOG_ID)
        self.scribe.begin()
        self.facts, self.facts_line = self.scribe.facts(_SIGNING)
        self.wrong: tuple[int, str] | None = None
        self.head = b""
        self.binds: dict[int, bytes] = {}

    def sign(self, *, with_facts: bool = False, **members: Any) -> None:
        """Write the record of a signature."""
        if with_facts:
            self.scribe.add(self.facts_line)
        self.binds[self.scribe.next_seq] = SIGNATURE
        self.scribe.entry(self.use() | members)

    def use(self) -> dict[str, Any]:
        """Return the members of a signature's record, as the next entry."""
        return {
            "kind": "Sign",
            "request_id": f"r-{self.scribe.next_seq}",
            "facts": self.facts,
            "numbers": [1024],
            "bind": self.scribe.bind(SIGNATURE),
        }

    @property
    def content(self) -> bytes:
        """The live segment."""
        return b"".join(line + b"\n" for line in self.scribe.lines)

    @property
    def mark(self) -> bytes:
        """The head mark."""
        return self.head or self.scribe.head()

    def told(self) -> dict[str, Any]:
        """Return it as it is published."""
        lines = [line.decode("utf-8", "surrogateescape") for line in self.scribe.lines]
        slot = 512 if any(self.mark[512:1024]) else 1024
        found: dict[str, Any] = {
            "name": self.name,
            "lines": lines,
            "slot_offset": slot,
            "slot": self.mark[slot : slot + 218].hex(),
        }
        if self.wrong is not None:
            return found | {"seq": self.wrong[0], "reason": self.wrong[1]}
        binds = {str(seq): what.hex() for seq, what in self.binds.items()}
        head = {"head_seq": self.scribe.next_seq - 1, "leaf_hash": self.scribe.prev}
        return found | head | {"bind_covers": binds}


def _right() -> list[Vector]:
    plain = Vector("a signature twice, and a refusal")
    plain.sign(with_facts=True)
    plain.sign()
    denied, line = plain.scribe.facts(_DENIED)
    plain.scribe.add(line)
    plain.scribe.entry({"kind": "Sign", "code": "access_denied", "facts": denied})
    plain.sign(numbers=[0])

    change = Vector("a change with intent and outcome, then a clean close for good")
    named = {"operation_id": "c0" * 16, "key_id": _KEY_ID, "version": 2}
    facts, line = change.scribe.facts({"who": _SIGNING["who"]})
    change.scribe.add(line)
    intent = {"kind": "RotateKey", "phase": "intent", "facts": facts, **named}
    change.scribe.entry(intent)
    change.scribe.entry(
        {
            "kind": "RotateKey",
            "phase": "outcome",
            "facts": facts,
            **named,
            "generation": 2,
            "document_before": "01" * 32,
            "document_after": "02" * 32,
            "set_digest": "03" * 32,
        }
    )
    change.scribe.entry({"kind": "system.log-closed"})
    change.head = change.scribe.head(clean=True, set_digest="03" * 32, counter=7)

    batch = Vector("a batch, one item of which failed")
    what = hashlib.sha256(SIGNATURE).digest() + bytes(32)
    batch.scribe.add(batch.facts_line)
    batch.binds[1] = what
    counted = {"type": "batch", "count": 2, "failed": 1}
    batch.scribe.entry(
        batch.use()
        | {"kind": "SignBatch", "bind": batch.scribe.bind(what), "detail": counted}
    )
    node = Vector("a node of a cluster: a use, and an intent of another node's log")
    node.scribe.add(node.facts_line)
    use = node.use()
    bind = {"bind": use.pop("bind")}
    node.scribe.entry(use | {"revision": 12} | bind)
    node.binds[1] = SIGNATURE
    settled = {"operation_id": "c1" * 16, "intent_log": "0f" * 16}
    node.scribe.entry(
        {"kind": "RotateKey", "phase": "outcome", "revision": 13, **settled}
    )
    head = {"log_id": "0f" * 16, "size": 7, "leaf_hash": "04" * 32}
    detail = {"type": "heads", "logs": [head]}
    node.scribe.entry({"kind": "system.heads", "detail": detail})
    return [plain, change, batch, node]


Wrong = Callable[[Vector], None]


def _missing(vector: Vector) -> None:
    vector.sign()


def _altered(vector: Vector) -> None:
    vector.scribe.add(vector.facts_line.replace(b"release", b"debug"))
    vector.sign()


def _another(vector: Vector) -> None:
    _, line = vector.scribe.facts(_DENIED)
    vector.scribe.add(line)
    vector.sign()


def _repeated(vector: Vector) -> None:
    vector.sign(with_facts=True)
    vector.sign(with_facts=True)


def _unnamed(vector: Vector) -> None:
    vector.scribe.add(vector.facts_line)
    vector.scribe.entry({"kind": "system.stop"})


def _two(vector: Vector) -> None:
    vector.scribe.add(vector.scribe.facts(_DENIED)[1])
    vector.sign(with_facts=True)


def _order(vector: Vector) -> None:
    labels = (LABELS[1], LABELS[0], *LABELS[2:])
    vector.facts, vector.facts_line = vector.scribe.facts(_SIGNING, labels=labels)
    vector.sign(with_facts=True)


def _withheld(vector: Vector) -> None:
    facts, line = vector.scribe.facts(_DENIED, labels=LABELS[:4])
    vector.scribe.add(line)
    vector.scribe.entry({"kind": "Sign", "code": "access_denied", "facts": facts})


def _member(vector: Vector) -> None:
    parts = _SIGNING | {"from": {"source_address": "192.0.2.7", "more": "x"}}
    vector.facts, vector.facts_line = vector.scribe.facts(parts)
    vector.sign(with_facts=True)


def _spaced(vector: Vector) -> None:
    vector.scribe.add(vector.facts_line.replace(b',"parts"', b', "parts"'))
    vector.sign()


_FACTS: Final[dict[str, Wrong]] = {
    "a facts line that is missing": _missing,
    "a facts line whose content was altered": _altered,
    "another facts line in its place": _another,
    "a facts line that stands there twice": _repeated,
    "a facts line before an entry that names none": _unnamed,
    "two facts lines before one entry": _two,
    "parts in another order": _order,
    "a part that is missing": _withheld,
    "a part with a member that nobody knows": _member,
    "a facts line with a space": _spaced,
}


def _wrong() -> list[Vector]:
    made = []
    for name, write in _FACTS.items():
        vector = Vector(name)
        write(vector)
        at = 2 if write is _repeated else 1
        vector.wrong = (at, "facts")
        made.append(vector)
    return [*made, *_wrong_entries()]


def _wrong_entries() -> list[Vector]:
    made = []

    def start(name: str, seq: int, reason: str) -> Vector:
        vector = Vector(name)
        vector.sign(with_facts=True)
        vector.wrong = (seq, reason)
        made.append(vector)
        return vector

    vector = start("an entry with another MAC", 2, "mac")
    vector.sign()
    line = vector.scribe.lines[-1]
    vector.scribe.lines[-1] = line.replace(b"r-2", b"r-3")

    vector = start("an entry with upper-case digits", 2, "framing")
    vector.sign()
    line = vector.scribe.lines[-1]
    vector.scribe.lines[-1] = line[:-66] + line[-66:-2].upper() + line[-2:]

    vector = start("an entry with another prev", 2, "chain")
    vector.scribe.entry(vector.use(), prev="05" * 32)

    vector = start("an entry with another seq", 2, "sequence")
    vector.scribe.entry(vector.use(), seq=3)

    vector = start("an entry with a member that nobody knows", 2, "event")
    more = {"type": "message", "text": "x", "more": "y"}
    vector.scribe.entry({"kind": "system.start", "detail": more})

    vector = start("an entry behind the end of the log", 3, "after_close")
    vector.scribe.entry({"kind": "system.log-closed"})
    vector.scribe.entry({"kind": "system.start"})

    vector = start("an entry behind a clean close", 2, "after_clean")
    vector.head = vector.scribe.head(clean=True)
    vector.scribe.entry({"kind": "system.start"})

    vector = start("a newest entry that is missing", 2, "shorter")
    vector.sign()
    vector.head = vector.scribe.head()
    vector.scribe.lines.pop()

    vector = start("another newest entry", 1, "mark")
    vector.head = vector.scribe.head(leaf="06" * 32)

    vector = start("a log that does not say that it begins", 0, "log_id")
    scribe = vector.scribe = Scribe(HMAC_KEY, LOG_ID)
    scribe.entry({"kind": "system.start"})
    return made


def vectors() -> list[Vector]:
    """Return all of them, right ones first."""
    return [*_right(), *_wrong()]


def document() -> str:
    """Return the published file."""
    labels = {
        "record": "FerroHSM audit record 2",
        "bind": "FerroHSM audit bind 1",
        "mark": "FerroHSM audit head mark 1",
        "baseline": "FerroHSM audit baseline 1",
    }
    keys = {
        name: derived(HMAC_KEY, LOG_ID, label).hex() for name, label in labels.items()
    }
    found = {
        "hmac_key": HMAC_KEY.hex(),
        "log_id": LOG_ID,
        "key_check_value": key_check(HMAC_KEY).hex(),
        "keys": keys,
        "logs": [vector.told() for vector in vectors()],
    }
    return json.dumps(found, ensure_ascii=False, indent=1) + "\n"


if __name__ == "__main__":
    PUBLISHED.write_text(document(), encoding="utf-8")
