# SPDX-License-Identifier: MIT
"""
Recovery of an audit log in files at opening, after a clean stop or a crash.

Everything is verified before anything is written. Each writing step may be interrupted;
the next start repeats or completes it.

A torn tail is kept beside the log before it is cut off. Whole records that the head
mark does not know are written once more, over themselves: if the process before ended
after a failed sync, the kernel takes for clean what never reached the disk, and a sync
alone would prove nothing.

A log is forked when two processes wrote one live segment. One branch stays the log: the
longest of those that hold the record which the head mark names. The records of the
others are kept beside it, and the record of the repair names their file and its
SHA-256. Only authentic records are set aside: a log that was edited is not a forked
one, and stays as it is.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from hsm_core._internal.audit.baseline import Baseline
from hsm_core._internal.audit.chain import Follower
from hsm_core._internal.audit.facts import (
    HASH,
    MAX_LINE_BYTES,
    START,
    FactsTrack,
    entry_of,
    facts_line_of,
    named_by,
    parse,
)
from hsm_core._internal.audit.head_mark import StoredHead
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.record import (
    PREV,
    RecordCodec,
    claimed_entry,
    claimed_seq,
    is_chain,
    leaf_hash,
    may_tell_of_prune,
)
from hsm_core._internal.audit.verify import RecoveredLog, recover, skip_to_needed
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores.filesystem.audit_files import (
    NEW,
    FragmentName,
    check_file,
    closed_names,
    create_file,
    fragment_names,
    open_reader,
    replace_file,
    write_all,
)
from hsm_core._internal.stores.filesystem.audit_head import BaselineFile, remove_files
from hsm_core._internal.stores.filesystem.audit_segments import Segment, segments_of
from hsm_core._internal.stores.filesystem.audit_stored import StoredSegments, first_seq
from hsm_core._internal.stores.filesystem.files import list_directory
from hsm_core._internal.stores.filesystem.opening import (
    open_no_follow,
    path_exists,
    sibling,
    sync_directory,
)
from hsm_core.errors import AuditTamperedError, ConfigurationError
from hsm_core.model import RepairDetail

_CHUNK: Final = 1024 * 1024


class RecoveredFiles(msgspec.Struct):
    """
    Recovered audit log, ready for appending.

    Attributes:
        log: What its records tell.
        stored: Its segments.
        descriptor: The live segment, open for appending, synced.
        repairs: Fragments that are not recorded yet.
    """

    log: RecoveredLog
    stored: StoredSegments
    descriptor: int
    repairs: list[RepairDetail]


def recover_files(
    path: Path, hmac_key: bytes, head: StoredHead, now: int
) -> RecoveredFiles:
    """
    Verify an audit log as far as its head mark requires, and repair its end.

    Args:
        path: The live segment.

        hmac_key: Key of the audit log.

        head: Content of the head file.

        now: Microseconds since 1970, for the name of a fragment.

    Raises:
        AuditTamperedError: The log was altered; nothing was changed.
        UnsafeFileModeError: Others could have changed it.
        OSError: It can't be read or repaired.
        StoreUnavailableError: The same.
    """
    with _opened(path, hmac_key, head) as found:
        stored = found.stored
        log = recover(stored, hmac_key)
    if found.exists:
        descriptor = open_no_follow(path, os.O_RDWR | os.O_APPEND)
    else:
        descriptor = create_file(path)
    end = log.end.mark
    next_seq = end.seq + 1
    try:
        if stored.torn_bytes:
            set_aside(path, descriptor, stored.live.size, next_seq, now)
        elif stored.unterminated:
            write_all(descriptor, b"\n")
        if found.twin is not None:
            os.unlink(found.twin)
        if stored.unmarked is not None:
            write_again(path, stored.unmarked, stored.live.size, end.leaf_hash)
        os.fsync(descriptor)
        sync_directory(path.parent)
        failpoint("audit.repair.after_sync")
        _finish_prune(path, hmac_key, head, found)
        repairs = unrecorded_repairs(path, next_seq)
    except BaseException:
        os.close(descriptor)
        raise
    return RecoveredFiles(log, stored, descriptor, repairs)


def _finish_prune(path: Path, hmac_key: bytes, head: StoredHead, found: _Found) -> None:
    file = BaselineFile(path, head.log_id, hmac_key)
    if found.is_staged:
        file.adopt()
    else:
        file.discard()
    if found.stored.baseline is not None:
        remove_files(path, found.stored.baseline.header.next_seq)


class _Found(NamedTuple):
    """
    Files of an audit log.

    Attributes:
        stored: Its segments.
        exists: There is a live segment.
        is_staged: The baseline still has to take its place.
        twin: A second name of the live segment, which an interrupted healing left.
    """

    stored: StoredSegments
    exists: bool
    is_staged: bool
    twin: Path | None


@contextmanager
def _opened(path: Path, hmac_key: bytes, head: StoredHead) -> Iterator[_Found]:
    exists = check_file(path)
    closed, twin = _closed_segments(path, exists=exists)
    codec = RecordCodec(head.log_id, hmac_key)
    with open_reader(path) if exists else nullcontext() as file:
        ends = [*(s.first_seq for s in closed[1:]), first_seq(file) if file else None]
        places = [(s.path, end) for s, end in zip(closed, ends, strict=False)]
        places += [(path, None)] if exists else []
        baseline, is_staged = _baseline(path, hmac_key, head, places, codec)
        stored = StoredSegments(
            closed,
            Segment(path, 0, 0),
            file,
            codec,
            head=head,
            baseline=baseline,
            open_file=open_reader,
        )
        yield _Found(stored, exists, is_staged, twin)


def _closed_segments(path: Path, *, exists: bool) -> tuple[list[Segment], Path | None]:
    found = segments_of(path, closed_names(path.name, list_directory(path.parent)[1]))
    twin = None
    if exists and found:
        last = found[-1].path
        if os.path.samestat(os.lstat(last), os.lstat(path)):
            twin = found.pop().path
    for segment in found:
        check_file(segment.path)
    return found, twin


def _baseline(
    path: Path,
    hmac_key: bytes,
    head: StoredHead,
    places: Sequence[tuple[Path, int | None]],
    codec: RecordCodec,
) -> tuple[Baseline | None, bool]:
    """
    Return the baseline that counts, and whether it is only staged yet.

    Args:
        path: The live segment.

        hmac_key: Key of the audit log.

        head: Content of the head file.

        places: Segments, each with the record from which on the next one wins.

        codec: Format of the records.
    """
    files = BaselineFile(path, head.log_id, hmac_key)
    baseline, staged = files.read(), files.read_staged()
    covered = baseline.header.next_seq if baseline else 0
    # An old one that somebody put there again is no step back.
    if (
        staged is not None
        and staged.header.next_seq > covered
        and _tells_of(staged, places, codec)
    ):
        return staged, True
    if baseline is not None and not _tells_of(baseline, places, codec):
        raise tampered(Reason.PRUNED, 0)
    return baseline, False


def _tells_of(
    baseline: Baseline, places: Sequence[tuple[Path, int | None]], codec: RecordCodec
) -> bool:
    """Return whether the record of the prune that made a baseline is there."""
    # It comes not long after the record that the baseline names.
    after = baseline.header.after_seq
    return any(
        _has_prune(place, baseline, codec)
        for place, end in places
        if end is None or end > after + 1
    )


def _has_prune(path: Path, baseline: Baseline, codec: RecordCodec) -> bool:
    with open_reader(path) as file:
        while line := file.readline(MAX_LINE_BYTES + 1):
            line = line.removesuffix(b"\n")
            if may_tell_of_prune(line) and codec.is_record(line):
                entry = claimed_entry(line)
                if entry is not None and entry.detail == baseline.detail:
                    return True
    return False


def set_aside(path: Path, descriptor: int, end: int, seq: int, now: int) -> None:
    """
    Keep what follows the last good record of a segment, then cut it off.

    Args:
        path: The segment.

        descriptor: The segment, open for writing.

        end: Where the good records end.

        seq: The record that was torn.

        now: Microseconds since 1970, for the name of the fragment.

    Raises:
        OSError: It can't be read or written.
        StoreUnavailableError: The same.
    """
    with open_reader(path) as file:
        file.seek(end)
        fragment = file.read()
    keep_fragment(path, FragmentName(seq, max(now, 0)), fragment)
    failpoint("audit.repair.after_fragment")
    os.ftruncate(descriptor, end)
    failpoint("audit.repair.after_truncate")


def keep_fragment(path: Path, name: FragmentName, fragment: bytes) -> None:
    """
    Keep a fragment beside the log, durably, under this name or a later one.

    Raises:
        OSError: It can't be written.
        StoreUnavailableError: The same.
    """
    if _is_kept(path, name, fragment):
        return
    while path_exists(path.with_name(name.of(path.name))):
        name = name._replace(microseconds=name.microseconds + 1)
    temporary = path.with_name(f"{path.name}.torn.new")
    replace_file(temporary, path.with_name(name.of(path.name)), fragment)


def _is_kept(path: Path, name: FragmentName, fragment: bytes) -> bool:
    # A repair that was interrupted has kept the fragment, but not yet cut it off.
    for kept in _fragments(path, name.seq):
        if kept.kind == name.kind:
            with open_reader(path.with_name(kept.of(path.name))) as file:
                if file.read(len(fragment) + 1) == fragment:
                    return True
    return False


def _fragments(path: Path, seq: int) -> list[FragmentName]:
    names = fragment_names(path.name, list_directory(path.parent)[1])
    return [name for name in names if name.seq == seq]


def write_again(path: Path, start: int, end: int, leaf: str) -> None:
    """
    Write records again where they lie, so that the next sync of the file is for them.

    Args:
        path: The segment.

        start: Where the first of them begins.

        end: Where the last of them ends.

        leaf: Leaf hash of the last one.

    Raises:
        OSError: They can't be read or written, or are not what they were.
    """
    # A file open for appending always writes at its end.
    descriptor = open_no_follow(path, os.O_RDWR)
    try:
        data = os.pread(descriptor, end - start, start)
        if len(data) != end - start or not is_chain(data.split(b"\n")[:-1], leaf):
            raise OSError(errno.EIO, "the segment was replaced")
        while data:
            written = os.pwrite(descriptor, data, end - len(data))
            data = data[written:]
    finally:
        os.close(descriptor)
    failpoint("audit.repair.after_rewrite")


def unrecorded_repairs(path: Path, seq: int) -> list[RepairDetail]:
    """
    Return the repairs that are to be recorded as number *seq*.

    Raises:
        OSError: A fragment can't be read.
        StoreUnavailableError: The directory can't be.
    """
    # The record of a repair has the very number at which the tail was torn.
    names = (name.of(path.name) for name in _fragments(path, seq))
    return [_repair_of(path.with_name(name)) for name in names]


def _repair_of(kept: Path) -> RepairDetail:
    digest, size = hashlib.sha256(), 0
    with open_reader(kept) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return RepairDetail(
        fragment_bytes=size, fragment_sha256=digest.hexdigest(), kept_as=kept.name
    )


def set_fork_aside(path: Path, hmac_key: bytes, head: StoredHead, now: int) -> None:
    """
    Leave one branch of a forked log, and keep the others beside it.

    The next start records the repair. May be interrupted, and is done again then.

    Args:
        path: The live segment, locked.

        hmac_key: Key of the log.

        head: What the head file says.

        now: Microseconds since 1970, for the name of the file that is kept.

    Raises:
        ConfigurationError: The log is not damaged.
        AuditTamperedError: It is damaged in another way; nothing was changed.
        UnsafeFileModeError: Other users can write it.
        OSError: It can't be read or written.
        StoreUnavailableError: The same.
    """
    damage = _damage(path, hmac_key, head)
    with _opened(path, hmac_key, head) as found:
        start = skip_to_needed(found.stored, hmac_key)
        for entry in found.stored.closed_lines(start.seq + 1):
            start.advance(entry, found.stored.facts)
    with open_reader(path) as file:
        *lines, torn = file.read().split(b"\n")
    nodes = _nodes(lines, start, damage)
    branch = _branch(nodes, start, head, damage)
    ours = [nodes[leaf].line for leaf in branch]
    _check_facts(ours, start.seq + 1, damage)
    theirs = [node.line for leaf, node in nodes.items() if leaf not in branch]
    aside = b"".join(line + b"\n" for line in theirs) + torn
    name = FragmentName(start.seq + len(ours) + 1, max(now, 0), "fork")
    keep_fragment(path, name, aside)
    if found.twin is not None:
        os.unlink(found.twin)
    content = b"".join(line + b"\n" for line in ours)
    replace_file(sibling(path, NEW), path, content)


def _check_facts(
    records: Sequence[bytes], first_seq: int, damage: AuditTamperedError
) -> None:
    """Check that a branch has the facts lines that it names."""
    track = FactsTrack()
    for seq, record in enumerate(records, first_seq):
        if line := facts_line_of(record):
            track.take(line, seq)
        try:
            track.check(entry_of(record), seq)
        except AuditTamperedError:
            raise damage from None


def _damage(path: Path, hmac_key: bytes, head: StoredHead) -> AuditTamperedError:
    with _opened(path, hmac_key, head) as found:
        try:
            recover(found.stored, hmac_key)
        except AuditTamperedError as error:
            return error
    raise ConfigurationError(f"The audit log {path} is not forked.", path=str(path))


class _Node(NamedTuple):
    """
    A record of the live segment.

    Attributes:
        line: Its entry, behind the facts line that stands before it, if one does.
        seq: Its place.
        prev: The leaf before it.
    """

    line: bytes
    seq: int
    prev: str


def _nodes(
    lines: Sequence[bytes], start: Follower, damage: AuditTamperedError
) -> dict[str, _Node]:
    """Return all records by leaf hash; each follows from one before it in the file."""
    nodes: dict[str, _Node] = {}
    places = {start.leaf_hash: start.seq}
    facts, seen = b"", set[bytes]()
    for line in lines:
        if line.startswith(START):
            facts = line + b"\n"
            seen.add(line[HASH])
            if parse(line) is None:
                raise damage
            continue
        named = named_by(line)
        if named not in (seen | {b""}) or (facts and facts[HASH] != named):
            raise damage
        seq, prev = claimed_seq(line), line[PREV].decode(errors="replace")
        if (
            seq is None
            or not start.codec.is_record(line)
            or places.get(prev) != seq - 1
        ):
            raise damage
        leaf = leaf_hash(line)
        places[leaf] = seq
        nodes[leaf] = _Node(facts + line, seq, prev)
        facts = b""
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
