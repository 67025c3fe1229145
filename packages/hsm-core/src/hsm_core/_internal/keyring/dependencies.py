# SPDX-License-Identifier: MIT
"""Shared dependencies of an HSM's parts, and the clock-jump guard over its history."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from hsm_core._internal.audit.reading import RecordSource, VerifiableLog, lines_from
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
    jumps_of,
    merged,
    seconds_of,
)
from hsm_core.errors import Fact, HSMLockedError
from hsm_core.model import MessageDetail
from hsm_core.operations import AuditVerification
from hsm_core.protocols import AuditDraft, AuditLog, Clock, Entropy, KeyStore
from hsm_core.settings import Settings

_META: Final = "clock-leaps"
_LOOK: Final = "clock-look"
_LOOKED_AT: Final = 8
_CHUNK: Final = 4096
_JUMP_KIND: Final = "system.clock-leap"
_JUMPED: Final = "Ignored {} s of wall-clock time after a clock jump."
_JUMPED_SECONDS: Final = re.compile(_JUMPED.format(r"(\d{1,15})"), re.ASCII)


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
    other_logs: Callable[[], Sequence[RecordSource]] = tuple,
) -> ClockJumpGuard:
    """
    Return the clock-jump guard with the stored jumps; call it before the start record.

    A new jump, or one that the clock was set back from, is recorded in the audit log
    and then stored beside the keys. If that is gone or was altered, the records tell of
    the jumps, so that no work becomes due by the loss.

    Args:
        store: The keys' store, which has the jumps.

        ring: Has their MAC key.

        audit: Log of this HSM.

        clock: The clock.

        policy_hash: Returns the hash of the policy in force.

        other_logs: Returns the audit logs of the other nodes of a cluster.

    Raises:
        UnavailableError: Store or audit log can't be read or written.
    """

    def keep(jumps: tuple[ClockJump, ...]) -> None:
        text = _JUMPED.format(seconds_of(jumps))
        draft = AuditDraft.system(_JUMP_KIND, text, policy=policy_hash())
        audit.append([draft], durable=True, reserved=True).wait()
        store.write_meta(_META, encode_jumps(jumps, ring.jumps_mac))

    def note(wall: int) -> None:
        store.write_meta(_LOOK, encode_look(wall, ring.jumps_mac))

    kept = decode_jumps(store.read_meta(_META), ring.jumps_mac)
    if kept is None:
        kept = merged(map(_recorded_jumps, (audit, *other_logs())))
        store.write_meta(_META, encode_jumps(kept, ring.jumps_mac))
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


def _recorded_jumps(audit: RecordSource) -> tuple[ClockJump, ...]:
    """Return the clock jumps that an audit log tells of."""
    wanted, found, seq = _JUMP_KIND.encode(), [], audit.first_seq
    while seq <= audit.head().seq:
        seq, lines = lines_from(audit, seq, _CHUNK)
        for number, line in enumerate(lines, seq):
            if wanted not in line:
                continue
            event = event_of(line, number)
            if event.kind == _JUMP_KIND and isinstance(event.detail, MessageDetail):
                if told := _JUMPED_SECONDS.fullmatch(event.detail.text):
                    found.append((event.time, int(told[1])))
        seq += len(lines)
    return jumps_of(found)
