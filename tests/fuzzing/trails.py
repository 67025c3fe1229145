# SPDX-License-Identifier: MIT
"""What lies in the trail: records, segments, head marks, baselines, databases."""

from __future__ import annotations

import io
import sqlite3
import tempfile
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Final, cast

from hsm_core._internal.audit.baseline import (
    BaselineHeader,
    check_baseline,
    encode_baseline,
    known_keys,
)
from hsm_core._internal.audit.chain import Follower
from hsm_core._internal.audit.facts import START, parse
from hsm_core._internal.audit.head_mark import HeadCodec, HeadMark
from hsm_core._internal.audit.keys import (
    baseline_mac,
    key_check_value,
    mark_mac_function,
    record_mac_function,
)
from hsm_core._internal.audit.record import GENESIS, claimed_seq, decode_entry
from hsm_core._internal.audit.verify import follow
from hsm_core._internal.stores.audit_rows import head_row, read_head
from hsm_core._internal.stores.filesystem.audit_stored import (
    first_seq,
    last_line,
    nth_entry,
)
from hsm_core._internal.stores.sqlite.audit_rows import SqliteTables
from hsm_core.errors import (
    AuditTamperedError,
    AuditUnavailableError,
    ConfigurationError,
)
from hsm_core.factory import open_verifier
from hsm_core.model import KeyId
from hsm_core.protocols import KnownKey
from tests.core.audit_support import KEY, draft, intent, live_segment, opened, outcome
from tests.core.sqlite_audit_support import opened as opened_database
from tests.fuzzing.stored_forms import NothingReadError, wanted
from tests.fuzzing.target import Target, own_folder

_REFUSALS: Final = (AuditTamperedError, NothingReadError, ConfigurationError)
_OPERATION: Final = "ab" * 16


def targets() -> list[Target]:
    """Return a target for each form."""
    return [_record(), _segment(), _head(), _head_row(), _baseline(), _database()]


@cache
def _trail() -> tuple[str, tuple[bytes, ...], bytes]:
    """Return id, lines and head file of a trail."""
    drafts = [draft(1), intent(_OPERATION), outcome(_OPERATION, "12" * 32), draft(2)]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name).resolve() / "audit.log"
        with opened(path) as log:
            log.append(drafts, durable=True).wait()
            log_id = log.log_id
        head = path.with_name("audit.log.head").read_bytes()
        return log_id, tuple(path.read_bytes().splitlines()), head


def _follower(mark: HeadMark | None = None, *, log_id: str | None = None) -> Follower:
    return Follower(log_id=log_id or _trail()[0], hmac_key=KEY, mark=mark)


def _record() -> Target:
    log_id, lines, _ = _trail()
    mac_of = record_mac_function(KEY, log_id)

    def frame_it(data: bytes) -> bytes:
        return b'%b,"mac":"%b"}' % (data, mac_of(data).hex().encode())

    def read(data: bytes) -> object:
        follower = _follower()
        follower.start_after(data, 0)
        return follower

    def read_alone(data: bytes) -> object:
        """Read it as somebody does who knows neither trail nor key."""
        return Follower(log_id=None, hmac_key=None).follow(data)

    return Target(
        name="audit-record",
        readers=(
            read,
            lambda data: read(frame_it(data)),
            read_alone,
            lambda data: wanted(claimed_seq(data)),
            lambda data: wanted(decode_entry(data)),
            lambda data: wanted(parse(data)),
        ),
        seeds=(*lines, *(line[:-74] for line in lines if not line.startswith(START))),
        refusals=_REFUSALS,
    )


def _segment() -> Target:
    lines = _trail()[1]

    def read(data: bytes) -> object:
        file = io.BytesIO(data)
        first_seq(file)
        last_line(file)
        nth_entry(file, 3)
        follower = _follower()
        follow(live_segment(data, follower), follower, lambda event: None)
        return wanted(follower.seq + 1)

    whole = b"".join(line + b"\n" for line in lines)
    return Target(
        name="audit-segment",
        readers=(read,),
        seeds=(whole, whole[:-9]),
        refusals=_REFUSALS,
        longest=8192,
    )


def _head() -> Target:
    log_id, _, head = _trail()
    mac_of = mark_mac_function(KEY, log_id)
    codec = HeadCodec(KEY, log_id)
    body_bytes = len(codec.slot(7, HeadMark())[1].rstrip(b"\0")) - 32
    slot = head[512:1024]

    def read_body(data: bytes) -> object:
        body = data.ljust(body_bytes, b"\0")[:body_bytes]
        stored = (body + mac_of(codec.header + body)).ljust(512, b"\0")
        return wanted(codec.read_slot(stored))

    return Target(
        name="head-mark",
        readers=(
            lambda data: HeadCodec.read(data, KEY),
            lambda data: wanted(codec.read_slot(data)),
            read_body,
        ),
        seeds=(head, slot, slot[:body_bytes]),
        refusals=_REFUSALS,
        longest=2048,
    )


class _OneRow:
    """Rows of a table that has one."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    @property
    def tables(self) -> SqliteTables:
        return SqliteTables(cast(sqlite3.Connection, self))

    def execute(self, statement: str) -> _OneRow:
        return self

    def fetchall(self) -> list[tuple[int, bytes]]:
        return [(0, self._content)]


def _head_row() -> Target:
    codec = HeadCodec(KEY, _trail()[0])
    stored = head_row(codec, 5, HeadMark(seq=3, leaf_hash="cd" * 32, floor=4))
    assert key_check_value(KEY) in stored
    return Target(
        name="head-row",
        readers=(lambda data: read_head(_OneRow(data).tables, KEY),),
        seeds=(stored,),
        refusals=_REFUSALS,
        longest=1024,
    )


def _baseline() -> Target:
    log_id = _trail()[0]
    header = BaselineHeader(
        format=1,
        log_id=log_id,
        first_seq=0,
        next_seq=4,
        last_leaf_hash=GENESIS,
        roots=("ab" * 32,),
        policy="days 30",
        keys=2,
        after_seq=9,
    )
    keys = [KnownKey(KeyId(f"key-{n}"), n, "ef" * 32, n == 1) for n in range(2)]
    _, lines = encode_baseline(header, keys, KEY)

    def read(data: bytes) -> object:
        found = data.splitlines(keepends=True)
        checked = check_baseline(found, log_id=log_id, hmac_key=KEY)
        return checked, list(islice(known_keys(found), 100))

    def read_lines(data: bytes) -> object:
        mac = baseline_mac(KEY, log_id)
        mac.update(data)
        return read(data + mac.hexdigest().encode() + b"\n")

    def read_without_key(data: bytes) -> object:
        found = data.splitlines(keepends=True)
        checked = check_baseline(found, log_id="", hmac_key=None)
        return checked, list(islice(known_keys(found), 100))

    return Target(
        name="audit-baseline",
        readers=(read, read_lines, read_without_key),
        seeds=(b"".join(lines), b"".join(lines[:-1])),
        refusals=_REFUSALS,
    )


def _database() -> Target:
    """Return the target that verifies a database whose very pages are changed."""
    folder = own_folder()
    path = folder / "audit.sqlite"
    with opened_database(path) as log:
        log.append([draft(n) for n in range(3)], durable=True).wait()
    seed = path.read_bytes()

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return open_verifier(path, KEY).verify()

    return Target(
        name="audit-database",
        readers=(read,),
        seeds=(seed,),
        refusals=(*_REFUSALS, AuditUnavailableError),
        longest=64 * 1024,
    )
