# SPDX-License-Identifier: MIT
"""
Fakes for tests of programs that use hsm-core.

`memory_hsm` is the real pipeline over memory: it enforces, seals, signs and records
like any other, and forgets everything at the end.
"""

from hsm_core._internal.stores.remote.memory_vault import MemoryVault
from hsm_core.testing.faults import (
    Faults,
    faulty_audit_log,
    faulty_key_store,
    faulty_use_counters,
)
from hsm_core.testing.memory import FakeClock, FakeEntropy, caller, memory_hsm

__all__ = [
    "FakeClock",
    "FakeEntropy",
    "Faults",
    "MemoryVault",
    "caller",
    "faulty_audit_log",
    "faulty_key_store",
    "faulty_use_counters",
    "memory_hsm",
]
