# SPDX-License-Identifier: MIT
"""Nodes of a cluster in one process: HSMs over one database, closed together."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, TypeVar

from hsm_core._internal.assembly.assembly import Parts, assemble, open_ring
from hsm_core._internal.assembly.opened import OpenHSM
from hsm_core._internal.cluster.changes import Changes
from hsm_core._internal.crypto.registry import CryptoRegistry, default_registry
from hsm_core._internal.keyring.key_ring import RootKey
from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._internal.stores.memory.audit import MemoryAuditLog
from hsm_core._internal.stores.postgresql.connection import read_location
from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from hsm_core._internal.stores.postgresql.records import (
    ClusterApprovalStore,
    ClusterKeyStore,
)
from hsm_core._internal.time.clock import SystemClock
from hsm_core.errors import HSMLockedError
from hsm_core.operations import Operation, VerifyStore
from hsm_core.protocols import Request
from hsm_core.session import Session
from hsm_core.settings import KeyStoreKind, Settings
from hsm_core.testing import caller

PATIENCE: Final = 60.0
AUDIT_KEY: Final = b"\x02" * 32
R = TypeVar("R")
_tested: list[CryptoRegistry] = []


class Node:
    """
    One node.

    Attributes:
        hsm: The HSM.
        session: Somebody who may do everything.
    """

    def __init__(self, url: str) -> None:
        clock, entropy, root = SystemClock(), SystemEntropy(), RootKey(b"\x01" * 32)
        store = ClusterKeyStore(ClusterDatabase(read_location(url)))
        parts = Parts(
            store=store,
            counters=store.uses,
            audit=MemoryAuditLog(AUDIT_KEY, clock=clock, entropy=entropy),
            ring=open_ring(store, root),
            root=root,
            hmac_key=AUDIT_KEY,
            clock=clock,
            entropy=entropy,
            registry=_registry(),
            approvals=ClusterApprovalStore(store.database),
        )
        settings = Settings(key_store=KeyStoreKind.MEMORY, audit_log=None)
        self.hsm: OpenHSM = assemble(settings, parts)
        self.session = Session(self.hsm.act_as(caller()))

    @property
    def inventory(self) -> KeyRepository:
        """Its keys."""
        services: Any = self.hsm._services  # noqa: SLF001 (no other way to look)
        inventory: KeyRepository = services.inventory
        return inventory

    @property
    def changes(self) -> Changes:
        """Its feed."""
        feed = self.inventory.feed
        assert isinstance(feed, Changes)
        return feed

    def execute(
        self, operation: Operation[R], check: Callable[[], None] | None = None
    ) -> R:
        """Execute an operation of somebody, whose credential may be checked."""
        request = Request(caller(), operation, check=check)
        services: Any = self.hsm._pipeline  # noqa: SLF001 (as servers do)
        result: R = services.execute(request)
        return result

    def problems(self) -> tuple[Any, ...]:
        """Check its whole store, and return what was found."""
        return self.hsm.act_as(caller()).execute(VerifyStore()).findings


def _registry() -> CryptoRegistry:
    if not _tested:
        _tested.append(default_registry(SystemEntropy(), {}))
        _tested[0].power_up_test()
    return _tested[0]


@contextmanager
def nodes_of(url: str, number: int = 2) -> Iterator[list[Node]]:
    """Open nodes over an empty database, or one that nodes have left."""
    with ExitStack() as stack:
        nodes = []
        for _ in range(number):
            nodes.append(Node(url))
            stack.callback(nodes[-1].hsm.close)
        yield nodes


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    until = time.monotonic() + PATIENCE
    for _ in itertools.count():
        if holds():
            return
        assert time.monotonic() < until, "it never came about"
        time.sleep(0.01)


def is_locked(node: Node) -> bool:
    """Return whether a node has locked itself."""
    try:
        node.inventory.lock.check()
    except HSMLockedError:
        return True
    return False
