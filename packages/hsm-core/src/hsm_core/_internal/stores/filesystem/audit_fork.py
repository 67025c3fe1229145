# SPDX-License-Identifier: MIT
"""
Recovery of a forked audit log: two processes wrote one live segment.

One branch stays the trail: the longest of those that hold the record which the head
mark names. The records of the others are kept beside it, and the record of the repair
names their file and its SHA-256. Only authentic records are set aside: a trail that was
edited is not a forked one, and stays as it is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hsm_core._internal.audit.check import Follower
from hsm_core._internal.audit.mark import StoredHead
from hsm_core._internal.audit.naming import FragmentName, new_name
from hsm_core._internal.audit.record import FRAME, decode_event, leaf_hash
from hsm_core._internal.lib import envelope
from hsm_core._internal.stores.filesystem.audit_beginning import find_beginning
from hsm_core._internal.stores.filesystem.audit_files import (
    open_reader,
    replace_file,
)
from hsm_core._internal.stores.filesystem.audit_recovery import SegmentReplay
from hsm_core._internal.stores.filesystem.audit_repairs import keep_fragment
from hsm_core.errors import AuditTamperedError, ConfigurationError


class _Node(NamedTuple):
    """A record of the live segment: its line, its place, and the leaf before it."""

    line: bytes
    seq: int
    prev: str


def set_fork_aside(path: Path, hmac_key: bytes, head: StoredHead, now: int) -> None:
    """
    Leave one branch of a forked trail, and keep the others beside it.

    The next start records the repair. May be interrupted, and is done again then.

    Args:
        path: The live segment, locked.

        hmac_key: Key of the trail.

        head: What the head file says.

        now: Microseconds since 1970, for the name of the file that is kept.

    Raises:
        ConfigurationError: The trail is not damaged.
        AuditTamperedError: It is damaged in another way; nothing was changed.
        UnsafeFileModeError: Other users can write it.
        OSError: It can't be read or written.
        StoreUnavailableError: The same.
    """
    beginning = find_beginning(path, hmac_key, head, exists=path.exists())
    try:
        SegmentReplay(path, hmac_key, head, beginning).run(exists=path.exists())
    except AuditTamperedError as error:
        damage = error
    else:
        raise ConfigurationError("The audit trail is not forked.", path=str(path))
    replay = SegmentReplay(path, hmac_key, head, beginning)
    replay.reach_live()
    with open_reader(path) as file:
        *lines, torn = file.read().split(b"\n")
    start = replay.follower
    nodes = _nodes(lines, start, damage)
    branch = _branch(nodes, start, head, damage)
    ours = [nodes[leaf].line for leaf in branch]
    theirs = [node.line for leaf, node in nodes.items() if leaf not in branch]
    aside = b"".join(line + b"\n" for line in theirs) + torn
    name = FragmentName(start.seq + len(ours) + 1, max(now, 0), "fork")
    keep_fragment(path, name, aside)
    if beginning.twin is not None:
        os.unlink(beginning.twin)
    content = b"".join(line + b"\n" for line in ours)
    replace_file(path.with_name(new_name(path.name)), path, content)


def _nodes(
    lines: Sequence[bytes], start: Follower, damage: AuditTamperedError
) -> dict[str, _Node]:
    """Return all records by leaf hash; each follows from one before it in the file."""
    nodes: dict[str, _Node] = {}
    places = {start.leaf_hash: start.seq}
    for line in lines:
        event = None
        if start.is_record(line):
            event = decode_event(envelope.split(FRAME, line)[0])
        if event is None or places.get(event.prev) != event.seq - 1:
            raise damage
        leaf = leaf_hash(line)
        places[leaf] = event.seq
        nodes[leaf] = _Node(line, event.seq, event.prev)
    return nodes


def _branch(
    nodes: dict[str, _Node],
    start: Follower,
    head: StoredHead,
    damage: AuditTamperedError,
) -> dict[str, None]:
    """Return the leaf hashes of the branch that stays, in order."""
    if len({node.prev for node in nodes.values()}) == len(nodes):
        raise damage
    mark = head.mark
    needed = mark.leaf_hash if mark.seq > start.seq else start.leaf_hash
    if needed not in nodes and needed != start.leaf_hash:
        raise damage
    # A record stands after the one that it follows.
    reached = {needed}
    for leaf, node in nodes.items():
        if node.prev in reached:
            reached.add(leaf)
    # After an end in order nothing follows, so that branch ends with the mark.
    tip = needed
    if not mark.clean:
        tip = max((n for n in nodes if n in reached), key=lambda leaf: nodes[leaf].seq)
    branch = []
    while tip in nodes:
        branch.append(tip)
        tip = nodes[tip].prev
    return dict.fromkeys(reversed(branch))
