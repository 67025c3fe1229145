# SPDX-License-Identifier: MIT
"""
A program that does one thing to a key store, to be killed meanwhile.

Usage: ``python -m tests.core.filesystem_victim DIRECTORY SCENARIO``. Writes nothing but
what the store writes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hsm_core._internal.stores.filesystem.stores import FilesystemKeyStore
from hsm_core.errors import HSMError
from hsm_core.model import KeyState
from tests.core.filesystem_support import (
    SCENARIOS,
    failing_sync_of_directories,
    patched,
)
from tests.core.key_support import change_of, document_of, key_id_of, operation_of


def rollback(store: FilesystemKeyStore) -> None:
    """Give a key a third version, with the blob of the first."""
    document = document_of(2, generation=3, versions=3, operations=(operation_of(90),))
    blob = store.get_blob(key_id_of(2), 1)
    assert blob is not None
    store.commit(change_of(document, operation_of(90), blobs={3: blob}))


def revoke(store: FilesystemKeyStore) -> None:
    """Change the state of a key alone."""
    document = document_of(
        3, generation=2, state=KeyState.REVOKED, operations=(operation_of(90),)
    )
    store.commit(change_of(document, operation_of(90)))


def discard(store: FilesystemKeyStore) -> None:
    """Remove the blobs of a key, which none of the states shows."""
    SCENARIOS["destroy"](store)
    store.discard_blobs(key_id_of(1), [1])


def reopen(scenario: str) -> Callable[[FilesystemKeyStore], None]:
    """Return what fails to sync a change, and repairs that."""

    def run(store: FilesystemKeyStore) -> None:
        with patched(failing_sync_of_directories()), suppress(HSMError):
            SCENARIOS[scenario](store)
        store.reopen()

    return run


def snapshot(store: FilesystemKeyStore) -> None:
    """Change a key, and build the index anew."""
    SCENARIOS["edit"](store)
    store.rebuild()


VICTIMS: dict[str, Callable[[FilesystemKeyStore], None]] = {
    **SCENARIOS,
    "rollback": rollback,
    "revoke": revoke,
    "discard": discard,
    "snapshot": snapshot,
    "reopen-create": reopen("create"),
    "reopen-rotate": reopen("rotate"),
    "reopen-edit": reopen("edit"),
}
"""What is done, by name; closing the store, which saves the index, is part of it."""


if __name__ == "__main__":
    opened = FilesystemKeyStore(Path(sys.argv[1]))
    VICTIMS[sys.argv[2]](opened)
    opened.close()
