# SPDX-License-Identifier: MIT
"""
Key names in use, confirmed by authenticated documents.

A store's index maps names to keys, but is not authenticated. So every document is read
once before the first new name is assigned; afterwards each commit updates the names. If
a document fails authentication or is missing, its key has the name in the audit log.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core.errors import KeyTamperedError, NameTakenError, OverloadedError
from hsm_core.model import KeyId, KeyState

_WAIT_SECONDS: Final = 1.0
"""Wait for another reader: threads that wait longer would keep others from theirs."""


class Claims:
    """Keys by a name that each of them claims. Not thread-safe."""

    def __init__(self) -> None:
        self._holders: dict[str, KeyId] = {}
        self._waiting: dict[str, list[KeyId]] = {}

    def holder(self, name: str) -> KeyId | None:
        """Return the key that holds a name."""
        return self._holders.get(name)

    def claim(self, name: str, key_id: KeyId) -> None:
        """Give a name to a key, or queue the key for it; a key claims it once."""
        if self._holders.setdefault(name, key_id) != key_id:
            self._waiting.setdefault(name, []).append(key_id)

    def release(self, name: str, key_id: KeyId) -> None:
        """Remove a claim; the name passes to the key that waits longest."""
        waiting = self._waiting.get(name)
        if self._holders[name] == key_id:
            if waiting:
                self._holders[name] = waiting.pop(0)
            else:
                del self._holders[name]
        elif waiting:
            waiting.remove(key_id)
        if waiting == []:
            del self._waiting[name]

    def clear(self) -> None:
        """Remove all claims."""
        self._holders.clear()
        self._waiting.clear()


class KeyNames:
    """
    Names of all keys that are not destroyed. Thread-safe.

    Args:
        documents: Reads every key: its id, and its document or None where that can't be
            believed.

        document: Reads one key.

    Attributes:
        holder: Returns the key that has a name, as far as that was confirmed.
        recorded: Returns the names that the audit log has for keys; a key that it
            does not know by name is left out.
    """

    def __init__(
        self,
        documents: Callable[[], Iterable[tuple[KeyId, KeyDocument | None]]],
        document: Callable[[KeyId], tuple[KeyId, KeyDocument | None]],
    ) -> None:
        self._documents = documents
        self._document = document
        self.recorded: Callable[[Collection[KeyId]], Mapping[KeyId, str]] = _nothing
        self._claims = Claims()
        self.holder = self._claims.holder
        self._names: dict[KeyId, str] = {}
        self._unknown: frozenset[KeyId] = frozenset()
        self._changed: dict[KeyId, str] = {}
        self._stale: set[KeyId] = set()
        self._doubts = 1
        self._confirmed = 0
        self._lock = threading.Lock()
        self._reading = threading.Lock()

    @property
    def _is_confirmed(self) -> bool:
        return self._confirmed == self._doubts

    def confirm(self) -> None:
        """
        Read every document, unless that was done and nothing was doubted since.

        Callers hold no lock of the store.

        Raises:
            OverloadedError: Another thread reads them, and needs longer than a second.
            StoreUnavailableError: Documents can't be read, or compared, now.
            AuditUnavailableError: The audit log can't be read now.
        """
        if not self._is_confirmed:
            self._confirm()
        self._read_stale()

    def _confirm(self) -> None:
        if not self._reading.acquire(timeout=_WAIT_SECONDS):
            raise OverloadedError(
                "The names of all keys are being read. Try again later."
            )
        try:
            while not self._is_confirmed:
                with self._lock:
                    doubts, self._changed = self._doubts, {}
                    self._stale.clear()
                names, unknown = self._read()
                with self._lock:
                    # What was committed meanwhile may have been read too early.
                    self._replace(names | self._changed)
                    self._unknown = unknown.difference(self._changed)
                    self._confirmed = doubts
        finally:
            self._reading.release()

    def _read_stale(self) -> None:
        """Read the keys that other nodes have changed since their names were read."""
        while self._stale:
            with self._lock:
                key_id = next(iter(self._stale), None)
                if key_id is None:
                    return
                self._stale.discard(key_id)
            try:
                _, document = self._document(key_id)
            except BaseException:
                self._stale.add(key_id)
                raise
            self._note_read(key_id, document)

    def _note_read(self, key_id: KeyId, document: KeyDocument | None) -> None:
        with self._lock:
            if document is None:
                self._unknown |= {key_id}
                self._doubts += 1
            elif key_id not in self._stale:
                self._unknown -= {key_id}
                self._note(key_id, name_of(document))

    def _read(self) -> tuple[dict[KeyId, str], frozenset[KeyId]]:
        names: dict[KeyId, str] = {}
        lost = set()
        for key_id, document in self._documents():
            if document is None:
                lost.add(key_id)
            else:
                names[key_id] = name_of(document)
        if lost:
            recorded = self.recorded(lost)
            names |= recorded
            lost -= recorded.keys()
        return names, frozenset(lost)

    def _replace(self, names: Mapping[KeyId, str]) -> None:
        self._claims.clear()
        self._names = {}
        for key_id, name in names.items():
            self._note(key_id, name)

    def check(self, name: str, key_id: str = "") -> None:
        """
        Check that no other key has a name.

        Only keys that other nodes have changed since `confirm` are read.

        Raises:
            NameTakenError: Another key has it.
            KeyTamperedError: A key whose name is unknown may have it.
        """
        self._read_stale()
        with self._lock:
            holder = self._claims.holder(name)
            unknown = min(self._unknown - {key_id}, default="")
        if holder not in {None, key_id}:
            raise NameTakenError
        if unknown:
            raise KeyTamperedError(
                f"Key {unknown} may have this name: its document can't be read, "
                "and the audit log no longer holds its name. Restore its document "
                "from a backup, or remove its data from the store; then run: "
                f'hsm-cli operator store recover --key-id {unknown} --reason "…".',
                key_id=unknown,
            )

    def note(self, key_id: KeyId, document: KeyDocument | None) -> None:
        """Note the name of a key after a change; None if the key is forgotten."""
        with self._lock:
            self._changed[key_id] = name = name_of(document) if document else ""
            self._note(key_id, name)
            self._unknown -= {key_id}

    def forget(self, key_id: KeyId) -> None:
        """Note that another node has changed a key: its name is read again."""
        with self._lock:
            self._changed[key_id] = ""
            self._note(key_id, "")
            if self._confirmed or self._reading.locked():
                self._stale.add(key_id)

    def _note(self, key_id: KeyId, name: str) -> None:
        before = self._names.pop(key_id, "")
        if before != name:
            if before:
                self._claims.release(before, key_id)
            if name:
                self._claims.claim(name, key_id)
        if name:
            self._names[key_id] = name

    def doubt(self) -> None:
        """Let every document be read again before the next new name."""
        with self._lock:
            self._doubts += 1


def name_of(document: KeyDocument) -> str:
    """Return the name that a key has for itself; empty for none."""
    is_destroyed = document.current_version.state is KeyState.DESTROYED
    return "" if is_destroyed else document.name


def _nothing(_: Collection[KeyId]) -> Mapping[KeyId, str]:
    return {}
