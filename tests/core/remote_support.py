# SPDX-License-Identifier: MIT
"""What the tests of remote key stores share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._internal.stores.remote.memory_vault import MemoryVault
from hsm_core._internal.stores.remote.records import RemoteKeyStore
from hsm_core.protocols import Clock, KeyChange, KeyStore, RemoteKeyVault
from hsm_core.testing import FakeClock
from tests.core.key_support import change_of, document_of, operation_of


def open_remote(
    vault: RemoteKeyVault,
    *,
    clock: Clock | None = None,
    holder: str = "first",
    patient: bool = False,
) -> RemoteKeyStore:
    """Open a store over a vault."""
    return RemoteKeyStore(
        vault,
        clock=clock or FakeClock(),
        entropy=SystemEntropy(),
        holder=holder,
        patient=patient,
    )


@contextmanager
def no_pauses() -> Iterator[None]:
    """Let tries follow each other at once."""
    with mock.patch("hsm_core._internal.stores.remote.objects._PAUSES", (0.0, 0.0)):
        yield


def new_key(number: int, operation: int) -> KeyChange:
    """Return the change that makes a key with one blob."""
    operation_id = operation_of(operation)
    document = document_of(number, operations=(operation_id,))
    return change_of(document, operation_id, blobs={1: b"blob-%d" % number})


def create(store: KeyStore, number: int, *, operation: int = 0) -> KeyChange:
    """Commit a new key, and return the change."""
    made = new_key(number, operation or number)
    store.commit(made)
    return made


def change(number: int, operation: int, *, removed: tuple[int, ...] = ()) -> KeyChange:
    """Return the change that brings a key to its second version."""
    operation_id = operation_of(operation)
    document = document_of(number, generation=2, versions=2, operations=(operation_id,))
    return change_of(
        document, operation_id, blobs={2: b"second"}, removed_blobs=removed
    )


def settle(store: KeyStore, vault: MemoryVault) -> None:
    """Let everything succeed again, and open the store again if it must be."""
    vault.clear()
    if not store.available:
        store.reopen()
