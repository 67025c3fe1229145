# SPDX-License-Identifier: MIT
"""
Fakes for tests of programs that use hsm-core.

`memory_hsm` is the real pipeline over memory: it enforces, seals, signs and records like
any other, and forgets everything at the end.
"""

from __future__ import annotations

import hashlib
import threading

from hsm_core.factory import OpenHSM, open_hsm
from hsm_core.model import Caller, Role
from hsm_core.protocols import Clock, Entropy
from hsm_core.settings import KeyStoreKind, Settings
from hsm_core._internal.crypto.registry import CryptoRegistry, default_registry
from hsm_core._internal.entropy import SystemEntropy

__all__ = ["FakeClock", "FakeEntropy", "caller", "memory_hsm"]

_lock = threading.Lock()
_tested: CryptoRegistry | None = None


class FakeClock:
    """
    A clock that moves only when told to.

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


def caller(*roles: Role, principal: str = "tester") -> Caller:
    """Return a caller with these roles, by default Administrator and Operator."""
    given = roles or (Role.ADMINISTRATOR, Role.OPERATOR)
    return Caller(principal=principal, roles=frozenset(given), request_id="test")


def memory_hsm(
    *, clock: Clock | None = None, entropy: Entropy | None = None
) -> OpenHSM:
    """
    Open a fresh HSM in memory, with fixed keys.

    The self-tests run once in a process, not once in a test.

    Example:
        >>> from hsm_core.session import Session
        >>> with memory_hsm() as gateway:
        ...     session = Session(gateway.act_as(caller()))
        ...     key = session.create_key("Ed25519", name="greeter")
        ...     signature = session.sign("greeter", b"hello").signature
        ...     session.verify("greeter", b"hello", signature).version
        1
    """
    return open_hsm(
        Settings(key_store=KeyStoreKind.MEMORY, audit_log=None),
        master_key=b"\x01" * 32,
        hmac_key=b"\x02" * 32,
        clock=clock,
        entropy=entropy,
        crypto=_registry(),
    )


def _registry() -> CryptoRegistry:
    global _tested  # noqa: PLW0603 (self-tests once in a process)
    with _lock:
        if _tested is None:
            _tested = default_registry(SystemEntropy(), {})
            _tested.self_test()
        return _tested
