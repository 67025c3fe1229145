# SPDX-License-Identifier: MIT
"""
File names of an audit log, derived from the name of its live segment.

``audit.log`` is the live segment; ``audit.log.00000001.0000000000000000`` a closed one
with its number (from 1) and the seq of its first record; beside them lie
``audit.log.head``, ``audit.log.lock``, ``audit.log.baseline`` with what is kept of
pruned records, and fragments set aside by repairs.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_CLOSED: Final = re.compile(r"\.([0-9]{8})\.([0-9]{16})")
_NUMBER: Final = r"(0|[1-9][0-9]{0,15})"
_FRAGMENT: Final = re.compile(rf"\.(torn|fork)-{_NUMBER}-{_NUMBER}")


class ClosedName(NamedTuple):
    """Parsed name of a closed segment; sorts in log order."""

    number: int
    first_seq: int

    def of(self, live: str) -> str:
        """Return the name, given that of the live segment."""
        return f"{live}.{self.number:08d}.{self.first_seq:016d}"


class FragmentName(NamedTuple):
    """
    Parsed name of a fragment.

    Attributes:
        seq: Number of the record that tells of its repair.
        microseconds: When it was set aside, since 1970.
        kind: ``torn`` for a tail that a crash tore, ``fork`` for the records of another
            branch.
    """

    seq: int
    microseconds: int
    kind: str = "torn"

    def of(self, live: str) -> str:
        """Return the name, given that of the live segment."""
        return f"{live}.{self.kind}-{self.seq}-{self.microseconds}"


def head_name(live: str) -> str:
    """Return the name of the head mark's file."""
    return f"{live}.head"


def baseline_name(live: str) -> str:
    """Return the name of the baseline file."""
    return f"{live}.baseline"


def lock_name(live: str) -> str:
    """Return the name of the writer's lock file."""
    return f"{live}.lock"


def new_name(live: str) -> str:
    """Return the name of a live segment that is being made."""
    return f"{live}.new"


def reserve_name(live: str) -> str:
    """Return the name of the file that reserves disk space."""
    return f"{live}.reserve"


def closed_names(live: str, names: list[str]) -> list[ClosedName]:
    """Return the closed segments among *names*, in order."""
    matches = (
        _CLOSED.fullmatch(name, len(live)) for name in names if name.startswith(live)
    )
    return sorted(ClosedName(int(m[1]), int(m[2])) for m in matches if m)


def fragment_names(live: str, names: list[str]) -> list[FragmentName]:
    """Return the fragments among *names*, in order."""
    matches = (
        _FRAGMENT.fullmatch(name, len(live)) for name in names if name.startswith(live)
    )
    return sorted(FragmentName(int(m[2]), int(m[3]), m[1]) for m in matches if m)
