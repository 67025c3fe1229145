# SPDX-License-Identifier: MIT
"""A series of lines, each of which follows from those before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from tests.core.second_reader.keys import (
    NOTHING,
    BadLogError,
    derived,
    leaf_of,
    mac_of,
    tree_roots,
)
from tests.core.second_reader.lines import (
    ENTRY,
    FACTS,
    LONGEST,
    Facts,
    facts_of,
    members_of,
)

SERVED: Final = 65_536
"""So far from its first entry a facts line serves."""

_MAC_BYTES: Final = 74


@dataclass(frozen=True)
class Entry:
    """One record: its entry, and what its facts line says."""

    seq: int
    time: int
    members: dict[str, Any]
    parts: dict[str, dict[str, Any]]
    leaf: bytes


@dataclass
class Log:
    """
    What was read.

    Attributes:
        log_id: 32 hex digits; empty if nothing tells it.
        first_seq: The oldest entry that is there.
        entries: All of them.
        torn_bytes: How many bytes at the end count as torn.
        roots: Roots of the complete subtrees over all entries.
    """

    log_id: str
    first_seq: int
    entries: list[Entry] = field(default_factory=list)
    torn_bytes: int = 0
    roots: tuple[str, ...] = ()

    @property
    def head(self) -> tuple[int, str]:
        """Position and leaf hash of the newest entry."""
        if not self.entries:
            return self.first_seq - 1, NOTHING
        return self.entries[-1].seq, self.entries[-1].leaf.hex()


@dataclass(frozen=True)
class Mark:
    """What a head mark says."""

    log_id: str
    seq: int
    floor: int
    clean: bool
    leaf: bytes
    set_digest: bytes


class Follower:
    """
    Follows lines from the first one, and checks each.

    Args:
        log_id: That of the log; empty if nothing tells it.

        hmac_key: Its key; None checks framing, facts, sequence and chain.

        mark: The head mark, if it counts.

        first: The first entry that must be there, and the leaf hash before it.
    """

    def __init__(
        self,
        log_id: str,
        hmac_key: bytes | None,
        mark: Mark | None,
        first: tuple[int, str] = (0, NOTHING),
    ) -> None:
        self.log = Log(log_id, first[0])
        self.next_seq, self._prev = first
        self._mark = mark
        self._key = None
        if hmac_key is not None:
            self._key = derived(hmac_key, log_id, "FerroHSM audit record 2")
        self._serving: dict[str, tuple[int, Facts]] = {}
        self._facts: bytes | None = None

    def begin_segment(self) -> None:
        """Forget the facts lines of the segment before."""
        self._serving.clear()
        self._facts = None

    def serve(self, line: bytes, seq: int) -> None:
        """Let a facts line serve that stands before an entry which is gone."""
        facts = facts_of(line)
        self._serving[facts.name] = seq, facts

    def is_authentic(self, line: bytes) -> bool:
        """Return whether a line is an entry, with a right MAC where there is a key."""
        found = ENTRY.fullmatch(line)
        if found is None:
            return False
        covered = line[:-_MAC_BYTES]
        return not self._key or mac_of(self._key, covered) == found[5].decode()

    def follow(self, line: bytes) -> None:
        """
        Check one more line, without its newline.

        Raises:
            BadLogError: It, or the entry that it stands before, is bad.
        """
        seq = self.next_seq
        if line.startswith(FACTS):
            if self._facts is not None:
                raise BadLogError(seq, "facts")
            self._facts = line
            return
        found = ENTRY.fullmatch(line)
        if found is None or len(line) > LONGEST:
            raise BadLogError(seq, "framing")
        covered = line[:-_MAC_BYTES]
        if self._key and mac_of(self._key, covered) != found[5].decode():
            raise BadLogError(seq, "mac")
        try:
            members = members_of(found[4])
        except (ValueError, RecursionError):
            raise BadLogError(seq, "event") from None
        parts = self._parts(seq, members)
        self._check_place(seq, int(found[1], 16), found[2].decode(), members)
        leaf = leaf_of(line)
        if self._mark and self._mark.seq == seq and self._mark.leaf != leaf:
            raise BadLogError(seq, "mark")
        self._prev = leaf.hex()
        self.log.entries.append(Entry(seq, int(found[3]), members, parts, leaf))
        self.next_seq += 1

    def _check_place(
        self, seq: int, written: int, prev: str, members: dict[str, Any]
    ) -> None:
        if written != seq:
            raise BadLogError(seq, "sequence")
        if prev != self._prev:
            raise BadLogError(seq, "chain")
        if seq == 0:
            detail = members.get("detail", {})
            told = detail.get("log_id", "")
            begun = (members["kind"], detail.get("type")) == (
                "system.log-begun",
                "log-begun",
            )
            if not begun or (self.log.log_id and told != self.log.log_id):
                raise BadLogError(0, "log_id")
            self.log.log_id = told
        entries, mark = self.log.entries, self._mark
        if entries and entries[-1].members["kind"] == "system.log-closed":
            raise BadLogError(seq, "after_close")
        if mark and mark.clean and seq > mark.seq:
            raise BadLogError(seq, "after_clean")

    def _parts(self, seq: int, members: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Return the facts of an entry; those that stand before it begin to serve."""
        name = members.get("facts", "")
        line, self._facts = self._facts, None
        if line is not None:
            try:
                facts = facts_of(line)
            except (ValueError, TypeError, RecursionError):
                raise BadLogError(seq, "facts") from None
            since, _ = self._serving.get(facts.name, (-SERVED, None))
            if facts.name != name or seq - since < SERVED:
                raise BadLogError(seq, "facts")
            self._serving[name] = seq, facts
        if not name:
            return {}
        if name not in self._serving or seq - self._serving[name][0] >= SERVED:
            raise BadLogError(seq, "facts")
        return _expanded(seq, members, self._serving[name][1])

    @property
    def has_facts_left(self) -> bool:
        """Whether a facts line was read, and no entry behind it."""
        return self._facts is not None

    def end(self) -> Log:
        """Return what was read; check that nothing is missing."""
        if self._facts is not None:
            raise BadLogError(self.next_seq, "facts")
        if self._mark and self._mark.seq >= self.next_seq:
            raise BadLogError(self.next_seq, "shorter")
        self.log.roots = tree_roots([entry.leaf for entry in self.log.entries])
        return self.log


def _expanded(
    seq: int, members: dict[str, Any], facts: Facts
) -> dict[str, dict[str, Any]]:
    """Return the parts of an entry, with its numbers where they belong."""
    numbers = list(members.get("numbers", []))
    holes = [n for n, v in facts.parts["parameters"].items() if v is None]
    if len(holes) != len(numbers):
        raise BadLogError(seq, "facts")
    filled = facts.parts["parameters"] | dict(zip(holes, numbers, strict=True))
    return facts.parts | {"parameters": filled}
