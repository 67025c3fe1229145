# SPDX-License-Identifier: MIT
"""
Attacks on facts lines by someone who may write the audit log and has not its key.

Each changes a closed log and returns the first bad entry. The lines of a log are the
same in files and in SQLite, so each is written once, over what both have in common.
"""

from __future__ import annotations

import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final, TypeAlias

from tests.core.second_reader.keys import facts_hash, part_hash
from tests.core.second_reader.scribe import written

FACTS: Final = b'{"facts":"'

Line: TypeAlias = tuple[int, bytes]
"""A facts line, after the entry that it stands before."""


class Lines(ABC):
    """
    Lines of a closed log that nobody has open, in a part of it.

    Args:
        path: The log.

    Attributes:
        entries: Entries, by seq.
        facts: Facts lines, by the seq of the entry that they stand before.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[int, bytes] = {}
        self.facts: list[Line] = []

    @abstractmethod
    def save(self) -> None:
        """Write the log with the facts lines as they are now."""

    @property
    def at(self) -> int:
        """The place of the facts line to attack: of alice, and of several entries."""
        return next(
            place
            for place, (_, line) in enumerate(self.facts)
            if b"alice" in line and len(self.naming(line)) > 1
        )

    def naming(self, line: bytes) -> list[int]:
        """Return the entries that name a facts line, but for the first of them."""
        name = line[len(FACTS) : len(FACTS) + 64]
        found = [s for s, e in self.entries.items() if b'"facts":"%s"' % name in e]
        return sorted(found)[1:]


class FileLines(Lines):
    """A closed segment in the middle of a log in files."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        segments = sorted(path.parent.glob("audit.log.0*"))
        self._segment = segments[len(segments) // 2]
        seq = self.first_seq = int(self._segment.name.rpartition(".")[2])
        for line in self._segment.read_bytes().splitlines():
            if line.startswith(FACTS):
                self.facts.append((seq, line))
            else:
                self.entries[seq] = line
                seq += 1

    def save(self) -> None:
        """See `Lines.save`."""
        lines = [(seq, 1, line) for seq, line in self.entries.items()]
        lines += [(seq, 0, line) for seq, line in self.facts]
        lines.sort(key=lambda row: row[:2])
        self._segment.write_bytes(b"".join(line + b"\n" for *_, line in lines))


class DatabaseLines(Lines):
    """All of a log in SQLite."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with closing(sqlite3.connect(path)) as connection:
            self.entries.update(connection.execute("SELECT seq, line FROM records"))
            self.facts += connection.execute("SELECT first_seq, line FROM facts")

    def save(self) -> None:
        """See `Lines.save`."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("DELETE FROM facts")
            connection.executemany("INSERT INTO facts VALUES (?, ?)", self.facts)


FactsAttack: TypeAlias = Callable[[Lines], int]


def remove(lines: Lines) -> int:
    """Take a facts line away; in files, segments before have the same one still."""
    seq, _ = lines.facts.pop(lines.at)
    return seq


def alter(lines: Lines) -> int:
    """Say that it was somebody else."""
    at = lines.at
    seq, line = lines.facts[at]
    lines.facts[at] = seq, line.replace(b"alice", b"mabel")
    return seq


def alter_and_hash(lines: Lines) -> int:
    """Say so, and put the right hash of that into the line."""
    at = lines.at
    seq, line = lines.facts[at]
    lines.facts[at] = seq, _hashed(line.replace(b"alice", b"mabel"))
    return seq


def _hashed(line: bytes) -> bytes:
    parts = json.loads(line)["parts"]
    name = facts_hash([part_hash(label, s, written(m)) for label, s, m in parts])
    return FACTS + name.encode() + line[len(FACTS) + 64 :]


def salt(lines: Lines) -> int:
    """Change a salt, so that what is known of a part can't be checked."""
    at = lines.at
    seq, line = lines.facts[at]
    old = json.loads(line)["parts"][0][1]
    lines.facts[at] = seq, line.replace(old.encode(), old[::-1].encode())
    return seq


def withhold(lines: Lines) -> int:
    """Take out the part that says who it was, as in a receipt."""
    at = lines.at
    seq, line = lines.facts[at]
    found = json.loads(line)
    del found["parts"][0]
    lines.facts[at] = seq, written(found)
    return seq


def swap(lines: Lines) -> int:
    """Let two facts lines change places."""
    at = lines.at
    (first, one), (second, two) = lines.facts[at : at + 2]
    lines.facts[at : at + 2] = [(first, two), (second, one)]
    return first


def repeat(lines: Lines) -> int:
    """Let a facts line stand there again, before a later entry that names it."""
    _, line = lines.facts[lines.at]
    seq = next(s for s in lines.naming(line) if s not in dict(lines.facts))
    lines.facts.append((seq, line))
    return seq


def move(lines: Lines) -> int:
    """Let a facts line stand before the second entry that names it."""
    at = lines.at
    seq, line = lines.facts[at]
    later = next(s for s in lines.naming(line) if s not in dict(lines.facts))
    lines.facts[at] = later, line
    return seq


def unnamed(lines: Lines) -> int:
    """Let a facts line stand before an entry that names another one."""
    _, line = lines.facts[lines.at]
    named = {*lines.naming(line), *dict(lines.facts)}
    seq = next(s for s in sorted(lines.entries)[1:] if s not in named)
    lines.facts.append((seq, line))
    return seq


def stranger(lines: Lines) -> int:
    """Put a facts line that says the same with other salts in the place of one."""
    at = lines.at
    seq, line = lines.facts[at]
    found = json.loads(line)
    for part in found["parts"]:
        part[1] = part[1][::-1]
    lines.facts[at] = seq, _hashed(written(found))
    return seq


def bloat(lines: Lines) -> int:
    """Let a facts line be longer than any may be."""
    at = lines.at
    seq, line = lines.facts[at]
    lines.facts[at] = seq, line.replace(b"alice", b"alice" * 14_000, 1)
    return seq


def garble(lines: Lines) -> int:
    """Let a facts line be no JSON."""
    at = lines.at
    seq, line = lines.facts[at]
    lines.facts[at] = seq, line[:-3]
    return seq


FACTS_ATTACKS: Final[tuple[FactsAttack, ...]] = (
    remove,
    alter,
    alter_and_hash,
    salt,
    withhold,
    swap,
    repeat,
    move,
    unnamed,
    stranger,
    bloat,
    garble,
)
"""Each of them is told as `facts`."""
