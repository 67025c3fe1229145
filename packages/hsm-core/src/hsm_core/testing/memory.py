# SPDX-License-Identifier: MIT
"""HSM in memory, and a clock and a random generator that tests control."""

from __future__ import annotations

import hashlib
import threading
from typing import Final

import msgspec

from hsm_core._internal.assembly.assembly import Parts, assemble
from hsm_core._internal.assembly.opened import OpenHSM
from hsm_core._internal.crypto.registry import CryptoRegistry, default_registry
from hsm_core._internal.keyring.key_ring import RootKey
from hsm_core._internal.keyring.use_counters import UseRules
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._internal.stores.memory.audit import MemoryAuditLog
from hsm_core._internal.stores.memory.records import MemoryKeyStore, MemoryUseCounters
from hsm_core._internal.time.clock import SystemClock
from hsm_core.model import Caller, Role
from hsm_core.policies import Policy
from hsm_core.protocols import (
    ApprovalStore,
    Clock,
    CredentialKeys,
    Entropy,
    OpenedStore,
)
from hsm_core.settings import KeyStoreKind, Settings
from hsm_core.testing.faults import (
    Faults,
    faulty_audit_log,
    faulty_key_store,
    faulty_use_counters,
)

__all__ = ["FakeClock", "FakeEntropy", "caller", "memory_hsm"]


AUDIT_KEY: Final = b"\x02" * 32
"""Audit key of `memory_hsm`."""

_lock = threading.Lock()
_tested: CryptoRegistry | None = None


def caller(*roles: Role, principal: str = "tester") -> Caller:
    """Return a caller with these roles, by default Administrator and Operator."""
    given = roles or (Role.ADMINISTRATOR, Role.OPERATOR)
    return Caller(principal=principal, roles=frozenset(given), request_id="test")


def memory_hsm(
    *,
    clock: Clock | None = None,
    entropy: Entropy | None = None,
    faults: Faults | None = None,
    use_limit: int = 0,
    policy: Policy | None = None,
    settings: Settings | None = None,
    approvals: ApprovalStore | None = None,
    credential_keys: CredentialKeys | None = None,
    store: OpenedStore | None = None,
) -> OpenHSM:
    """
    Open a fresh HSM in memory, with fixed keys.

    The self-tests run once in a process, not once in a test.

    Args:
        clock: Time; the system's by default.

        entropy: Randomness; the operating system's by default.

        faults: Where a test plans failures of store, counters and trail.

        use_limit: How often a key may protect something, where its algorithm has a
            limit; 0 means as often as it really may.

        policy: Who may do what; by default the policy of the settings.

        settings: What else is to be set; the stores are in memory nevertheless.

        approvals: Where approvals are kept.

        credential_keys: By which callers are known; see `hsm_core.factory.open_hsm`.

        store: Keys and use counters, empty; in memory by default. It is closed with
            the HSM.

    Example:
        >>> from hsm_core.session import Session
        >>> with memory_hsm() as gateway:
        ...     session = Session(gateway.act_as(caller()))
        ...     key = session.create_key("Ed25519", name="greeter")
        ...     signature = session.sign("greeter", b"hello").signature
        ...     session.verify("greeter", b"hello", signature).version
        1
    """
    clock, entropy = clock or SystemClock(), entropy or SystemEntropy()
    planned = faults or Faults()
    opened = store or OpenedStore(MemoryKeyStore(), MemoryUseCounters())
    trail = MemoryAuditLog(AUDIT_KEY, clock=clock, entropy=entropy)
    chosen = msgspec.structs.replace(
        settings or Settings(), key_store=KeyStoreKind.MEMORY, audit_log=None
    )
    parts = Parts(
        store=faulty_key_store(opened.keys, planned),
        counters=faulty_use_counters(opened.uses, planned),
        audit=faulty_audit_log(trail, planned),
        ring=None,
        root=RootKey(b"\x01" * 32, entropy=entropy),
        hmac_key=AUDIT_KEY,
        clock=clock,
        entropy=entropy,
        registry=_registry(),
        use_rules=_rules(use_limit),
        approvals=approvals,
        policy=policy,
        credential_keys=credential_keys,
    )
    return assemble(chosen, parts)


def _rules(use_limit: int) -> UseRules:
    usual = UseRules()
    if not use_limit:
        return usual
    return UseRules(limit_of=lambda name: use_limit if usual.limit_of(name) else 0)


def _registry() -> CryptoRegistry:
    global _tested
    with _lock:
        if _tested is None:
            _tested = default_registry(SystemEntropy(), {})
            _tested.power_up_test()
        return _tested


class FakeClock:
    """
    A clock that moves only when a test advances it.

    Args:
        now: Microseconds since 1970 to begin at.
    """

    def __init__(self, now: int = 1_750_000_000_000_000) -> None:
        self._now = now
        self._monotonic = 0.0

    def now(self) -> int:
        """Return wall time, in microseconds since 1970-01-01T00:00:00Z."""
        return self._now

    def monotonic(self) -> float:
        """Return a time that never goes back, in seconds."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks; *seconds* is 0 or more."""
        self._now += int(seconds * 1_000_000)
        self._monotonic += seconds

    def step(self, seconds: float) -> None:
        """Set the wall clock forwards or backwards, as an administrator may."""
        self._now += int(seconds * 1_000_000)


class FakeEntropy:
    """
    Bytes that a seed determines, for tests that must repeat exactly. Never for keys.

    Args:
        seed: What determines them.
    """

    def __init__(self, seed: int = 0) -> None:
        self._state = seed.to_bytes(16, "big")
        self._counter = 0
        self._lock = threading.Lock()

    def random_bytes(self, length: int, /) -> bytes:
        """Return the next *length* bytes."""
        with self._lock:
            self._counter += 1
            block = self._state + self._counter.to_bytes(8, "big")
        return hashlib.shake_256(block).digest(length)
