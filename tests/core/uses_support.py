# SPDX-License-Identifier: MIT
"""What the tests of use counters share: accounts over one key, and their rules."""

from __future__ import annotations

import uuid

import msgspec

from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.keyring.stored_keys import TamperedKeys
from hsm_core._internal.keyring.use_counters import (
    Use,
    UseAccounts,
    UseRules,
    UseValue,
    decode_value,
)
from hsm_core._internal.stores.memory.records import MemoryKeyStore
from hsm_core.protocols import KeyStore, UseCounters
from hsm_core.testing import FakeClock
from tests.core.key_support import RING, change_of, document_of, operation_of

MATERIAL = str(uuid.UUID(int=7, version=4))


def _document() -> KeyDocument:
    document = document_of(1, operations=(operation_of(1),))
    (version,) = document.versions
    named = msgspec.structs.replace(version, material_id=MATERIAL)
    return msgspec.structs.replace(document, versions=(named,))


KEY = _document()
SMALL = UseRules(
    limit_of=lambda _: 50, first_uses=2, most_uses=8, first_bytes=10, most_bytes=40
)
"""Blocks so small that most uses ask the disk."""


def key_store() -> KeyStore:
    """Return a store that holds the key."""
    store = MemoryKeyStore()
    store.commit(change_of(KEY, operation_of(1), blobs={1: b"blob"}))
    return store


def accounts_over(
    counters: UseCounters,
    *,
    rules: UseRules = SMALL,
    near: list[int] | None = None,
    clock: FakeClock | None = None,
) -> UseAccounts:
    """Return accounts over counters; what comes near is added to *near*."""
    noted = [] if near is None else near
    return UseAccounts(
        counters,
        RING,
        key_store(),
        TamperedKeys(lambda key_id, found: None),
        clock or FakeClock(),
        on_near_limit=lambda use, uses, limit: noted.append(uses),
        rules=rules,
    )


def use(uses: int = 1, size: int = 0) -> Use:
    """Return a use of the key."""
    return Use(KEY, KEY.current_version, uses, size)


def stored(counters: UseCounters) -> UseValue:
    """Return what is stored of the key's material, authenticated."""
    value = counters.get(MATERIAL)
    assert value is not None
    found = decode_value(MATERIAL, value, RING.counter_mac)
    assert found is not None
    return found
