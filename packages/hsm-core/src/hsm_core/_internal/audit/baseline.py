# SPDX-License-Identifier: MIT
"""
Baseline of pruned records: the last recorded state of each key.

Lines of text: a header with the content and place of the pruning record; a line for
each key, by id; and a MAC over all of it. The pruning record holds the baseline's
digest.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

import msgspec

from hsm_core._internal.audit.keys import baseline_mac
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.record import (
    GENESIS,
    decode_entry,
    is_log_id,
    may_tell_of_prune,
)
from hsm_core._internal.lib.encoding import newer_format
from hsm_core.errors import AuditTamperedError
from hsm_core.model import AuditEvent, KeyId, Phase, PruneDetail, Record
from hsm_core.protocols import KnownKey

FORMAT: Final = 1
_Line: TypeAlias = tuple[str, int, str, bool]
_ENCODER: Final = msgspec.json.Encoder()

_LINES: Final = msgspec.json.Decoder(_Line)
ACCEPTED: Final = "system.key-accepted"
"""Record kind of keys accepted in their stored state."""

_ASKED: Final = "DestroyKey"
_COMPLETED: Final = "CompleteDestruction"
_COMMITTED: Final = frozenset({"ok", "recovered-committed"})


class BaselineHeader(Record, frozen=True, kw_only=True):
    """
    First line of a baseline; fields as in `PruneDetail`.

    Attributes:
        format: 1.
        log_id: The log, 32 hex digits.
        keys: Number of lines between the header and the MAC.
        after_seq: Sequence number before the pruning record.
    """

    format: int
    log_id: str
    first_seq: int
    next_seq: int
    last_leaf_hash: str
    roots: tuple[str, ...]
    policy: str
    keys: int
    after_seq: int


_HEADERS: Final = msgspec.json.Decoder(BaselineHeader)


class Baseline(msgspec.Struct, frozen=True):
    """Verified baseline: its header, and the SHA-256 of its bytes, hex."""

    header: BaselineHeader
    sha256: str

    @property
    def detail(self) -> PruneDetail:
        """Detail of the pruning record."""
        header = self.header
        return PruneDetail(
            first_seq=header.first_seq,
            next_seq=header.next_seq,
            last_leaf_hash=header.last_leaf_hash,
            roots=header.roots,
            policy=header.policy,
            baseline_sha256=self.sha256,
        )


def encode_baseline(
    header: BaselineHeader, keys: Iterable[KnownKey], hmac_key: bytes
) -> tuple[Baseline, list[bytes]]:
    """
    Return a baseline and its lines, each with its newline.

    Args:
        header: Says how many *keys* there are.

        keys: By id.

        hmac_key: Key of the log.
    """
    lines = [_ENCODER.encode(header) + b"\n"]
    lines += [
        _ENCODER.encode((k.key_id, k.generation, k.digest, k.destroyed)) + b"\n"
        for k in keys
    ]
    mac = baseline_mac(hmac_key, header.log_id)
    digest = hashlib.sha256()
    for line in lines:
        mac.update(line)
        digest.update(line)
    lines.append(mac.hexdigest().encode() + b"\n")
    digest.update(lines[-1])
    return Baseline(header, digest.hexdigest()), lines


def check_baseline(
    lines: Iterable[bytes], *, log_id: str, hmac_key: bytes | None
) -> Baseline:
    """
    Check a baseline without keeping its lines in memory.

    Args:
        lines: Each with its newline.

        log_id: Expected audit log; empty accepts the baseline's own.

        hmac_key: None leaves the MAC unchecked.

    Raises:
        AuditTamperedError: The baseline was altered, or belongs to another audit log.
    """
    stream = iter(lines)
    first = next(stream, b"")
    header = _header(first)
    if header is None and newer_format(first, FORMAT):
        raise tampered(Reason.FORMAT, 0)
    if header is None or (log_id and header.log_id != log_id):
        raise _changed()
    digest = hashlib.sha256(first)
    mac = baseline_mac(hmac_key or b"", header.log_id)
    mac.update(first)
    count, last = -1, b""
    for line in stream:
        mac.update(last)
        digest.update(line)
        count, last = count + 1, line
    if hmac_key is not None and not hmac.compare_digest(
        mac.hexdigest().encode() + b"\n", last
    ):
        raise _changed()
    if count != header.keys:
        raise _changed()
    return Baseline(header, digest.hexdigest())


def known_keys(lines: Iterable[bytes]) -> Iterator[KnownKey]:
    """
    Return the keys of a baseline that `check_baseline` accepted, as they are read.

    Raises:
        AuditTamperedError: The baseline was altered since.
    """
    stream = iter(lines)
    header = _header(next(stream, b""))
    if header is None:
        raise _changed()
    for number, line in enumerate(stream):
        if number == header.keys:
            return
        try:
            key_id, generation, digest, destroyed = _LINES.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise _changed() from None
        yield KnownKey(KeyId(key_id), generation, digest, destroyed)
    raise _changed()


def _header(line: bytes) -> BaselineHeader | None:
    try:
        header = _HEADERS.decode(line)
    except (msgspec.MsgspecError, UnicodeError):
        return None
    good = (
        header.format == FORMAT
        and is_log_id(header.log_id)
        and _ENCODER.encode(header) + b"\n" == line
    )
    return header if good else None


def _changed() -> AuditTamperedError:
    return tampered(Reason.BASELINE, 0)


class KnownKeys:
    """
    Last recorded state of each key, collected from events in order.

    A destroyed key that the store no longer holds stays known as destroyed, with
    generation 0 and no digest.

    Args:
        before: Known keys from earlier records.
    """

    def __init__(self, before: Iterable[KnownKey] = ()) -> None:
        self._keys = {known.key_id: known for known in before}

    def note(self, event: AuditEvent) -> bool:
        """Update the state with one event, and return whether it changed a key."""
        key_id = KeyId(event.key_id)
        accepted = event.kind == ACCEPTED
        if accepted and not event.document_after:
            self._forget(key_id)
            return True
        committed = event.phase is Phase.OUTCOME and event.code in _COMMITTED
        changed = bool(event.document_after) and (committed or accepted)
        if changed:
            before = self._keys.get(key_id)
            # What was destroyed stays so, even if an older document is accepted.
            destroyed = _destroys(event) or bool(before and before.destroyed)
            self._keys[key_id] = KnownKey(
                key_id, event.generation, event.document_after, destroyed
            )
        return changed

    def _forget(self, key_id: KeyId) -> None:
        before = self._keys.pop(key_id, None)
        if before is not None and before.destroyed:
            self._keys[key_id] = KnownKey(key_id, 0, "", destroyed=True)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[KnownKey]:
        """Iterate over the keys by id."""
        return iter([self._keys[key_id] for key_id in sorted(self._keys)])


def _destroys(event: AuditEvent) -> bool:
    """Return whether a change destroyed its key, rather than scheduling that."""
    if event.kind == _ASKED:
        return not event.parameters.get("waiting_days", 0)
    return event.kind == _COMPLETED


class PrunedPrefix:
    """
    Checks the start of an audit log while its records are followed.

    Args:
        first_seq: Sequence number of the first present record.

        baseline: Verified baseline, or None.

    Attributes:
        start: Sequence number and leaf hash of the record before the first one, as a
            `Follower` takes them.
        overlaps: Whether records that the baseline covers are still there.

    Raises:
        AuditTamperedError: Records are missing that the baseline does not cover.
    """

    def __init__(self, first_seq: int, baseline: Baseline | None) -> None:
        covered = baseline.header.next_seq if baseline else 0
        if first_seq > covered:
            raise tampered(Reason.PRUNED, covered)
        self.detail: PruneDetail | None = baseline.detail if baseline else None
        self._recorded = baseline is None
        self.overlaps = first_seq < covered
        self.start = (first_seq - 1, self._leaf_before(first_seq))

    def _leaf_before(self, first_seq: int) -> str:
        if first_seq == 0:
            return GENESIS
        detail = self.detail
        whole = detail is not None and detail.next_seq == first_seq
        return detail.last_leaf_hash if detail and whole else ""

    def visit(self, entry: bytes, seq: int, leaf_hash: str) -> None:
        """
        Process the next good entry.

        Raises:
            AuditTamperedError: It is the last record that the baseline covers, and
                differs from it.
        """
        detail = self.detail
        if detail is None:
            return
        if seq == detail.next_seq - 1 and leaf_hash != detail.last_leaf_hash:
            raise tampered(Reason.BASELINE, seq)
        if may_tell_of_prune(entry):
            found = decode_entry(entry)
            if found is not None and found.detail == detail:
                self._recorded = True

    def finish(self) -> None:
        """
        Require the pruning record among the visited records.

        Raises:
            AuditTamperedError: It was not.
        """
        if not self._recorded:
            raise tampered(Reason.PRUNED, 0)
