# SPDX-License-Identifier: MIT
"""
Fakes for tests of programs that use hsm-core.

`memory_hsm` is the real pipeline over memory: it enforces, seals, signs and records
like any other, and forgets everything at the end.
"""

from hsm_core._internal.stores.remote.memory_vault import MemoryVault
from hsm_core.testing.faults import (
    Faults,
    FaultyAuditLog,
    FaultyKeyStore,
    FaultyUseCounters,
)
from hsm_core.testing.memory import FakeClock, FakeEntropy, caller, memory_hsm

__all__ = [
    "FakeClock",
    "FakeEntropy",
    "Faults",
    "FaultyAuditLog",
    "FaultyKeyStore",
    "FaultyUseCounters",
    "MemoryVault",
    "caller",
    "memory_hsm",
]
