# SPDX-License-Identifier: MIT
"""Writes logs from the page alone, right ones and wrong ones, for the vectors."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any, Final

from tests.core.second_reader.keys import (
    NOTHING,
    bind_of,
    derived,
    facts_hash,
    key_check,
    leaf_of,
    mac_of,
    part_hash,
)

LABELS: Final = ("who", "from", "key", "rule", "parameters")
_TIME: Final = 1_790_000_000_000_000


def written(value: object) -> bytes:
    """Return JSON in the encoding of entries."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode()


class Scribe:
    """
    Writes one log, line by line.

    Args:
        hmac_key: Its key.

        log_id: Its id.

    Attributes:
        lines: All lines, without newlines.
        next_seq: Number of the next entry.
        prev: Leaf hash of the newest entry, hex.
    """

    def __init__(self, hmac_key: bytes, log_id: str) -> None:
        self._hmac_key = hmac_key
        self._log_id = log_id
        self._record_key = derived(hmac_key, log_id, "FerroHSM audit record 2")
        self._bind_key = derived(hmac_key, log_id, "FerroHSM audit bind 1")
        self._salts = 0
        self.lines: list[bytes] = []
        self.next_seq = 0
        self.prev = NOTHING

    def begin(self, **detail: str) -> None:
        """Write entry 0."""
        told = {"type": "log-begun", "log_id": self._log_id, "node": "node-1"}
        self.entry({"kind": "system.log-begun", "detail": told | detail})

    def facts(
        self, parts: dict[str, dict[str, Any]], *, labels: tuple[str, ...] = LABELS
    ) -> tuple[str, bytes]:
        """Return the hash of new facts, and their line, which is not written yet."""
        rows, hashes = [], []
        for label in labels:
            self._salts += 1
            text = b"salt %d" % self._salts
            salt = hashlib.sha256(text).hexdigest()[:32]
            members = parts.get(label, {})
            rows.append([label, salt, members])
            hashes.append(part_hash(label, salt, written(members)))
        name = facts_hash(hashes)
        return name, written({"facts": name, "parts": rows})

    def add(self, line: bytes) -> None:
        """Write a line as it is."""
        self.lines.append(line)

    def entry(
        self,
        members: dict[str, Any],
        *,
        seq: int | None = None,
        prev: str = "",
        time: int = _TIME,
    ) -> bytes:
        """Write an entry, by default one that follows from those before."""
        covered = (
            f'{{"format":2,"seq":"{self.next_seq if seq is None else seq:016x}",'
            f'"prev":"{prev or self.prev}","time":"{time:016d}",'
        ).encode() + written(members)[1:-1]
        mac = mac_of(self._record_key, covered)
        line = covered + b',"mac":"' + mac.encode() + b'"}'
        self.add(line)
        self.prev = leaf_of(line).hex()
        self.next_seq += 1
        return line

    def bind(self, what: bytes) -> str:
        """Return the commitment of the next entry to what was answered."""
        return bind_of(self._bind_key, self.next_seq, what)

    def head(
        self,
        *,
        counter: int = 2,
        clean: bool = False,
        leaf: str = "",
        set_digest: str = "",
    ) -> bytes:
        """Return a head mark of what is written, or of another leaf."""
        begin = b"FerroHSM head 1\n" + bytes.fromhex(self._log_id)
        begin += key_check(self._hmac_key)
        slot = b"".join(
            [
                counter.to_bytes(8, "big"),
                (self.next_seq - 1).to_bytes(8, "big", signed=True),
                self.next_seq.to_bytes(8, "big"),
                bytes([clean]),
                bytes.fromhex(leaf or self.prev),
                bytes([len(set_digest)]),
                set_digest.encode().ljust(128, b"\0"),
            ]
        )
        key = derived(self._hmac_key, self._log_id, "FerroHSM audit head mark 1")
        text = b"FerroHSM audit head mark 1\0" + begin + slot
        slot += hmac.digest(key, text, "sha256")
        sectors = [b"", slot] if counter % 2 else [slot, b""]
        return b"".join(part.ljust(512, b"\0") for part in [begin, *sectors])
