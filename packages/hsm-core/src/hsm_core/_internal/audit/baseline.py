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
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec

from hsm_core._internal.audit.keys import baseline_mac
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.record import is_log_id
from hsm_core._internal.lib.stored_form import newer_format
from hsm_core.errors import AuditTamperedError
from hsm_core.model import KeyId, PruneDetail, Record
from hsm_core.protocols import KnownKey

FORMAT: Final = 1
_Line: TypeAlias = tuple[str, int, str, bool]
_ENCODER: Final = msgspec.json.Encoder()


class BaselineHeader(Record, frozen=True, kw_only=True):
    """
    First line of a baseline; fields as in `PruneDetail`.

    Attributes:
        format: 1.
        log_id: The trail, 32 hex digits.
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
_LINES: Final = msgspec.json.Decoder(_Line)


@dataclass(frozen=True, slots=True)
class Baseline:
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

        hmac_key: Key of the trail.
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
