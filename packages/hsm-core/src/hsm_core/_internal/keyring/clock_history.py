# SPDX-License-Identifier: MIT
"""Clock jump history of one HSM: stored beside its keys, and in the audit log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hsm_core._internal.audit.record import event_of
from hsm_core._internal.keyring.key_ring import KeyRing
from hsm_core._internal.time.clock_guard import (
    ClockJump,
    ClockJumpGuard,
    decode_leaps,
    decode_look,
    encode_leaps,
    encode_look,
)
from hsm_core.model import MessageDetail, Phase
from hsm_core.protocols import AuditDraft, AuditLog, Clock, KeyStore

_META: Final = "clock-leaps"
_LOOK: Final = "clock-look"
_LOOKED_AT: Final = 8


def open_leaps(
    store: KeyStore,
    ring: KeyRing,
    audit: AuditLog,
    clock: Clock,
    policy_hash: Callable[[], str],
) -> ClockJumpGuard:
    """
    Return the stored clock jumps; call it before this start is recorded.

    A new jump, or one that the clock was set back from, is recorded in the audit log
    and then stored beside the keys. A stored history with a wrong MAC is dropped: it
    could only delay due work.

    Raises:
        UnavailableError: Store or trail can't be read or written.
    """

    def keep(leaps: tuple[ClockJump, ...]) -> None:
        seconds = sum(leap.end - leap.begin for leap in leaps) // 1_000_000
        text = f"Ignored {seconds} s of wall-clock time after a clock jump."
        draft = AuditDraft(
            phase=Phase.SINGLE,
            kind="system.clock-leap",
            policy=policy_hash(),
            detail=MessageDetail(text=text),
        )
        audit.append([draft], durable=True, reserved=True).wait()
        store.write_meta(_META, encode_leaps(leaps, ring.leaps_mac))

    def note(wall: int) -> None:
        store.write_meta(_LOOK, encode_look(wall, ring.leaps_mac))

    kept = decode_leaps(store.read_meta(_META), ring.leaps_mac)
    looked_at = decode_look(store.read_meta(_LOOK), ring.leaps_mac)
    newest = looked_at or _last_sign_of_life(audit)
    leaps = ClockJumpGuard(clock, newest, kept, keep, note)
    # Who crashes before anybody looks must not have forgotten it.
    leaps.look()
    return leaps


def _last_sign_of_life(audit: AuditLog) -> int:
    """Return the time of the newest record from before this start; 0 if none."""
    head = audit.head().seq
    first = max(audit.first_seq, head - _LOOKED_AT + 1)
    lines = audit.lines(first, head - first + 1) if head >= first else []
    events = [event_of(line, seq) for seq, line in enumerate(lines, first)]
    while len(events) > 1 and events[-1].kind == "system.repair":
        events.pop()
    return events[-1].time if events else 0
