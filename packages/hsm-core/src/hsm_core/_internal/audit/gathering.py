# SPDX-License-Identifier: MIT
"""
Last verification of records before a prune removes them.

A prune must not hide a forgery, so each record is verified before it is removed. The
facts that the baseline needs are extracted here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from hsm_core._internal.audit.baseline import (
    FORMAT,
    Baseline,
    BaselineHeader,
    encode_baseline,
)
from hsm_core._internal.audit.check import Follower
from hsm_core._internal.audit.known import KnownKeys
from hsm_core._internal.audit.merkle import CompactRange
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.record import GENESIS
from hsm_core.protocols import KnownKey

_BLOCK: Final = 1000


def gather(
    lines: Callable[[int, int], Sequence[bytes]],
    *,
    log_id: str,
    hmac_key: bytes,
    baseline: Baseline | None,
    keys: Iterable[KnownKey],
    next_seq: int,
    policy: str,
    after_seq: int,
) -> tuple[Baseline, list[bytes]]:
    """
    Follow the records before *next_seq*; return their baseline and its lines.

    Args:
        lines: Returns up to so many lines from one record on, without newline.

        log_id: The trail, 32 hex digits.

        hmac_key: Key of the trail.

        baseline: Baseline of earlier prunes.

        keys: The keys that it names.

        next_seq: First record to keep.

        policy: Hash of the policy in force.

        after_seq: Sequence number before the pruning record.

    Raises:
        AuditTamperedError: A record is bad; it must not be removed.
        AuditUnavailableError: They can't be read.
    """
    before = baseline.header if baseline else None
    first = before.next_seq if before else 0
    known = KnownKeys(keys)
    tree = CompactRange(first, before.roots if before else ())
    follower = Follower(
        log_id=log_id,
        hmac_key=hmac_key,
        seq=first - 1,
        leaf_hash=before.last_leaf_hash if before else GENESIS,
    )
    while (seq := follower.seq + 1) < next_seq:
        found = lines(seq, min(_BLOCK, next_seq - seq))
        if not found:
            raise tampered(Reason.SHORTER, seq)
        for line in found:
            known.note(follower.follow(line))
            tree.append(follower.leaf_hash)
    header = BaselineHeader(
        format=FORMAT,
        log_id=log_id,
        first_seq=first,
        next_seq=next_seq,
        last_leaf_hash=follower.leaf_hash,
        roots=tree.roots,
        policy=policy,
        keys=len(known),
        after_seq=after_seq,
    )
    return encode_baseline(header, known, hmac_key)
