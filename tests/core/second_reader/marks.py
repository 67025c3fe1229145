# SPDX-License-Identifier: MIT
"""Head marks, and what is kept of pruned entries."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

from tests.core.second_reader.follower import Log, Mark
from tests.core.second_reader.keys import BadLogError, derived, key_check
from tests.core.second_reader.lines import decoded


def mark_of(content: bytes, hmac_key: bytes | None) -> Mark:
    """
    Return what the head mark in files says.

    Raises:
        BadLogError: It was changed.
    """
    if len(content) != 1536 or any(content[64:512]):
        raise BadLogError(0, "head_damaged")
    slots = [content[512:1024], content[1024:1536]]
    found = [
        (counter, mark)
        for place, slot in enumerate(slots)
        if (told := slot_of(content[:64], slot, hmac_key)) is not None
        for counter, mark in [told]
        if counter % 2 == place
    ]
    if content[:16] != b"FerroHSM head 1\n" or not found:
        raise BadLogError(0, "head_damaged")
    if hmac_key is not None and content[32:64] != key_check(hmac_key):
        raise ValueError("The HMAC key is not that of the log.")
    return max(found, key=lambda pair: pair[0])[1]


def slot_of(
    head: bytes, slot: bytes, hmac_key: bytes | None
) -> tuple[int, Mark] | None:
    """Return counter and content of one slot, or None if it is not valid."""
    log_id = head[16:32].hex()
    if hmac_key is not None:
        key = derived(hmac_key, log_id, "FerroHSM audit head mark 1")
        text = b"FerroHSM audit head mark 1\x00" + head + slot[:186]
        if hmac.digest(key, text, "sha256") != slot[186:218]:
            return None
    length = slot[57]
    if length > 128 or any(slot[58 + length : 186]) or any(slot[218:512]):
        return None
    return int.from_bytes(slot[:8], "big"), Mark(
        log_id,
        int.from_bytes(slot[8:16], "big", signed=True),
        int.from_bytes(slot[16:24], "big"),
        slot[24] == 1,
        slot[25:57],
        slot[58 : 58 + length],
    )


@dataclass(frozen=True)
class Baseline:
    """What is kept of pruned entries."""

    header: dict[str, Any]
    keys: list[list[Any]]
    sha256: str

    @property
    def next_seq(self) -> int:
        """The first entry that was not pruned."""
        return int(self.header["next_seq"])


def baseline_of(content: bytes, hmac_key: bytes | None) -> Baseline:
    """
    Return what a baseline says.

    Raises:
        BadLogError: It was changed.
    """
    lines = content.splitlines(keepends=True)
    try:
        header = decoded(lines[0].removesuffix(b"\n"))
        keys = [decoded(line.removesuffix(b"\n")) for line in lines[1:-1]]
        mac = lines[-1].decode("ascii")
        if header["format"] != 1 or header["keys"] != len(keys):
            raise ValueError
        if hmac_key is not None:
            key = derived(hmac_key, header["log_id"], "FerroHSM audit baseline 1")
            text = b"FerroHSM audit baseline 1\x00" + b"".join(lines[:-1])
            if hmac.digest(key, text, "sha256").hex() + "\n" != mac:
                raise ValueError
    except (ValueError, KeyError, IndexError, TypeError):
        raise BadLogError(0, "baseline") from None
    return Baseline(header, keys, hashlib.sha256(content).hexdigest())


def check_prune(log: Log, baseline: Baseline, at: int = -1) -> None:
    """Check that the log has the record of a baseline's prune, at a place if given."""
    told = {
        name: baseline.header[name]
        for name in ("first_seq", "next_seq", "last_leaf_hash", "roots", "policy")
    }
    for entry in log.entries:
        detail = entry.members.get("detail", {})
        if at not in (-1, entry.seq) or entry.members["kind"] != "system.prune":
            continue
        if detail == {
            "type": "prune",
            **told,
            "baseline_sha256": baseline.sha256,
        }:
            return
    raise BadLogError(0, "pruned")
