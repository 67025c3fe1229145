# SPDX-License-Identifier: MIT
"""Shared dependencies of an HSM's parts, and the clock-jump guard over its history."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from hsm_core._internal.audit.reading import VerifiableLog
from hsm_core._internal.audit.record import event_of
from hsm_core._internal.keyring.key_ring import KeyRing
from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core._internal.lib.concurrency import JobGuard, unguarded
from hsm_core._internal.policy.in_force import PolicyHolder
from hsm_core._internal.time.clock_guard import (
    ClockJump,
    ClockJumpGuard,
    decode_jumps,
    decode_look,
    encode_jumps,
    encode_look,
)
from hsm_core.errors import Fact, HSMLockedError
from hsm_core.operations import AuditVerification
from hsm_core.protocols import AuditDraft, AuditLog, Clock, Entropy, KeyStore
from hsm_core.settings import Settings

_META: Final = "clock-leaps"
_LOOK: Final = "clock-look"
_LOOKED_AT: Final = 8


class Dependencies(msgspec.Struct, frozen=True, kw_only=True):
    """
    Shared dependencies of an HSM's parts.

    Attributes:
        settings: Of the HSM.
        inventory: Repository of the keys, with their key ring.
        audit: The audit log.
        verify: Verifies a range of it; it knows the audit key.
        policy: The policy in force.
        clock: Time.
        clock_guard: Clock-jump guard.
        entropy: For ids, salts and seals.
        job_guard: Keeps background jobs to one node of a cluster.
        why_older: Returns why the database of a cluster is older than what this node
            has seen of it, and facts; empty if it is not.
        other_logs: Returns the audit logs of the other nodes of a cluster.
    """

    settings: Settings
    inventory: KeyRepository
    audit: AuditLog
    verify: Callable[[int, int], AuditVerification]
    policy: PolicyHolder
    clock: Clock
    clock_guard: ClockJumpGuard
    entropy: Entropy
    job_guard: JobGuard = unguarded
    why_older: Callable[[], tuple[str, Mapping[str, Fact]]] = lambda: ("", {})
    other_logs: Callable[[], Sequence[VerifiableLog]] = tuple

    def lock(self, reason: str, facts: Mapping[str, Fact]) -> None:
        """
        Lock the whole HSM, and record the lock.

        Raises:
            AuditUnavailableError: It can't be recorded.
        """
        self.inventory.lock.set(reason, facts)
        policy, code = self.policy.policy_hash(), HSMLockedError.code
        draft = AuditDraft.system("system.locked", reason, code=code, policy=policy)
        self.audit.append([draft], durable=True, reserved=True).wait()


def open_clock_guard(
    store: KeyStore,
    ring: KeyRing,
    audit: AuditLog,
    clock: Clock,
    policy_hash: Callable[[], str],
) -> ClockJumpGuard:
    """
    Return the clock-jump guard with the stored jumps; call it before the start record.

    A new jump, or one that the clock was set back from, is recorded in the audit log
    and then stored beside the keys. A stored history with a wrong MAC is dropped: it
    could only delay due work.

    Raises:
        UnavailableError: Store or audit log can't be read or written.
    """

    def keep(jumps: tuple[ClockJump, ...]) -> None:
        seconds = sum(jump.end - jump.begin for jump in jumps) // 1_000_000
        text = f"Ignored {seconds} s of wall-clock time after a clock jump."
        draft = AuditDraft.system("system.clock-leap", text, policy=policy_hash())
        audit.append([draft], durable=True, reserved=True).wait()
        store.write_meta(_META, encode_jumps(jumps, ring.jumps_mac))

    def note(wall: int) -> None:
        store.write_meta(_LOOK, encode_look(wall, ring.jumps_mac))

    kept = decode_jumps(store.read_meta(_META), ring.jumps_mac)
    looked_at = decode_look(store.read_meta(_LOOK), ring.jumps_mac)
    newest = looked_at or _last_sign_of_life(audit)
    guard = ClockJumpGuard(clock, newest, kept, keep, note)
    # A crash before the first regular look must not lose a jump.
    guard.look()
    return guard


def _last_sign_of_life(audit: AuditLog) -> int:
    """Return the time of the newest record from before this start; 0 if none."""
    head = audit.head().seq
    first = max(audit.first_seq, head - _LOOKED_AT + 1)
    lines = audit.lines(first, head - first + 1) if head >= first else []
    events = [event_of(line, seq) for seq, line in enumerate(lines, first)]
    while len(events) > 1 and events[-1].kind == "system.repair":
        events.pop()
    return events[-1].time if events else 0
