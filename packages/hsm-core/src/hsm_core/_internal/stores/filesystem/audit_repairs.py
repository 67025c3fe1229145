# SPDX-License-Identifier: MIT
"""
Repairs of the end of an audit log at startup.

A torn tail is kept beside the trail before it is cut off. Whole records that the head
mark does not know are written once more, over themselves: if the process before ended
after a failed sync, the kernel takes for clean what never reached the disk, and a sync
alone would prove nothing.
"""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Final

from hsm_core._internal.audit.record import is_chain
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores.filesystem.audit_files import (
    FragmentName,
    fragment_names,
    open_reader,
    replace_file,
)
from hsm_core._internal.stores.filesystem.files import list_directory
from hsm_core._internal.stores.filesystem.opening import open_no_follow, path_exists
from hsm_core.model import RepairDetail

_CHUNK: Final = 1024 * 1024


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
    Keep a fragment beside the trail, durably, under this name or a later one.

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
