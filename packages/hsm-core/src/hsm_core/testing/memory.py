# SPDX-License-Identifier: MIT
"""An HSM in memory: the real pipeline, that forgets everything at the end."""

from __future__ import annotations

import threading

import msgspec

from hsm_core._internal.assembly.assembly import Parts, assemble
from hsm_core._internal.assembly.opened import OpenHSM
from hsm_core._internal.crypto.registry import CryptoRegistry, default_registry
from hsm_core._internal.keyring.sealing import RootKey
from hsm_core._internal.keyring.use_counters import UseRules
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._internal.stores.memory.audit import MemoryAuditLog
from hsm_core._internal.stores.memory.keys import MemoryKeyStore
from hsm_core._internal.stores.memory.uses import MemoryUseCounters
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
from hsm_core.testing.faults import Faults
from hsm_core.testing.faulty_stores import FaultyKeyStore, FaultyUseCounters
from hsm_core.testing.faulty_trail import FaultyAuditLog

__all__ = [
    "caller",
    "memory_hsm",
]


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
    hmac_key = b"\x02" * 32
    trail = MemoryAuditLog(hmac_key, clock=clock, entropy=entropy)
    chosen = msgspec.structs.replace(
        settings or Settings(), key_store=KeyStoreKind.MEMORY, audit_log=None
    )
    parts = Parts(
        store=FaultyKeyStore(opened.keys, planned),
        counters=FaultyUseCounters(opened.uses, planned),
        audit=FaultyAuditLog(trail, planned),
        ring=None,
        root=RootKey(b"\x01" * 32, entropy=entropy),
        hmac_key=hmac_key,
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
