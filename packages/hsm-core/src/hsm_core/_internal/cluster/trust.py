# SPDX-License-Identifier: MIT
"""
Withdrawn trust: people, token keys and certificates that no node accepts any more.

Each node trusts what its own files name. What one node's files no longer name is
withdrawn from all: the database can take trust away, and it can't give any. The list is
one row; a change of the feed commits to it, so every node has it before it decides
under that revision.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Final

import msgspec

from hsm_core._internal.cluster.changes import Changes
from hsm_core._internal.keyring.key_ring import KeyRing
from hsm_core._internal.lib.cells import Cell
from hsm_core.errors import IntegrityError

_MARK_CHARACTERS: Final = 32
_MOST_SEEN: Final = 1024
"""Number of contents by which an older file is known again, for each kind."""

_NO_MARKS: Final = frozenset[str]()


class _Kind(msgspec.Struct):
    """
    What the cluster knows of one kind.

    Attributes:
        withdrawn: Marks of names, and the node that withdrew each.
        declared: Marks that the files of each node named last.
        seen: Digests of what any node's files have ever named, in the order in which
            the cluster came to know them.
    """

    withdrawn: dict[str, str] = {}
    declared: dict[str, frozenset[str]] = {}
    seen: list[str] = []

    def place_of(self, trusted: frozenset[str]) -> int:
        """Return the place of a content in `seen`; -1 if it is not known."""
        digest = _digest(trusted)
        return self.seen.index(digest) if digest in self.seen else -1


class _Declared(msgspec.Struct, frozen=True):
    """Marks that the files of this node name."""

    trusted: frozenset[str] = _NO_MARKS
    revoked: frozenset[str] = _NO_MARKS


_ENCODER: Final = msgspec.msgpack.Encoder(order="deterministic")
_DECODER: Final = msgspec.msgpack.Decoder(dict[str, _Kind])


class TrustRegister:
    """
    A `hsm_core.protocols.SharedTrust` in a cluster's database.

    Args:
        changes: Feed of the cluster.

        ring: Makes marks of names.

        node: Name of this node.

        changed: Bumped when something was withdrawn or restored.

        record: Records what this node has withdrawn and restored, in words; may raise
            `HSMError`.
    """

    def __init__(
        self,
        changes: Changes,
        ring: KeyRing,
        node: str,
        changed: Cell,
        record: Callable[[str], None],
    ) -> None:
        self._changes = changes
        self._ring = ring
        self._node = node
        self._cell = changed
        self._record = record
        self._lock = threading.Lock()
        # Of each kind what is noted, and behind it what may be noted, as its outcome is
        # unknown; and what is to be recorded then, also where nothing was noted before.
        self._mine: dict[str, list[_Declared]] = {}
        self._told: dict[str, dict[_Declared, str]] = {}
        self._owed: list[str] = []
        self._withdrawn: dict[str, Collection[str]] = {}
        self._listeners: list[Callable[[], None]] = []
        changes.on_trust(self._take)

    def on_change(self, call: Callable[[], None], /) -> None:
        """See `hsm_core.protocols.SharedTrust.on_change`."""
        self._listeners.append(call)

    def withdrawn(self, kind: str, names: Collection[str], /) -> frozenset[str]:
        """See `hsm_core.protocols.SharedTrust.withdrawn`."""
        marks = self._withdrawn.get(kind)
        if not marks:
            return frozenset()
        return frozenset(name for name in names if self._mark(name) in marks)

    def declare(
        self,
        kind: str,
        /,
        *,
        trusted: Collection[str] = (),
        revoked: Collection[str] = (),
    ) -> None:
        """See `hsm_core.protocols.SharedTrust.declare`."""
        now = _Declared(
            frozenset(map(self._mark, trusted)), frozenset(map(self._mark, revoked))
        )
        with self._lock:
            self._note(kind, now)
            self._write_owed()

    def _note(self, kind: str, now: _Declared) -> None:
        mine = self._mine.get(kind, [])
        if mine == [now]:
            return
        told = ""

        def revise(document: bytes) -> bytes:
            nonlocal told
            kinds = _decode(document)
            told = self._revise(kinds.setdefault(kind, _Kind()), mine, now)
            return _ENCODER.encode(kinds)

        try:
            self._changes.revise_trust(revise)
        except BaseException:
            if mine and now not in mine:
                mine.append(now)
            if told:
                self._told.setdefault(kind, {})[now] = told
            raise
        told = told or self._told.get(kind, {}).get(now, "")
        self._told.pop(kind, None)
        self._mine[kind] = [now]
        if told:
            self._owed.append(f"{kind}: {told}")

    def _write_owed(self) -> None:
        while self._owed:
            self._record(self._owed[0])
            del self._owed[0]

    def _revise(self, kind: _Kind, mine: Sequence[_Declared], now: _Declared) -> str:
        """
        Note what the files of this node name.

        Args:
            kind: Revised.

            mine: What is noted of this node, or may be; empty at its start.

            now: What its files name now.

        Returns:
            What that changes; empty if nothing.
        """
        place = kind.place_of(now.trusted)
        is_new = place < 0
        withdrawn, restored = now.revoked, _NO_MARKS
        for before in mine:
            withdrawn |= before.trusted - now.trusted
            restored |= now.trusted - before.trusted | before.revoked - now.revoked
        former = kind.declared.get(self._node, _NO_MARKS)
        if not mine and now.trusted and (is_new or place > kind.place_of(former)):
            # The file was edited while the node was down. An older one, that came back
            # with a backup or an image, was known before.
            withdrawn |= former - now.trusted
        # A file that comes late is no reason to trust what another node has withdrawn.
        may_restore = is_new and bool(now.trusted)
        restored = frozenset(
            mark
            for mark in restored & kind.withdrawn.keys()
            if may_restore or kind.withdrawn[mark] == self._node
        )
        withdrawn -= kind.withdrawn.keys()
        for mark in restored:
            del kind.withdrawn[mark]
        kind.withdrawn.update(dict.fromkeys(withdrawn, self._node))
        if now.trusted:
            kind.declared[self._node] = now.trusted
            if is_new:
                kind.seen = [*kind.seen, _digest(now.trusted)][-_MOST_SEEN:]
        if not withdrawn and not restored:
            return ""
        return f"{len(withdrawn)} withdrawn, {len(restored)} restored"

    def _take(self, document: bytes) -> None:
        kinds = _decode(document)
        self._withdrawn = {name: kind.withdrawn.keys() for name, kind in kinds.items()}
        for call in self._listeners:
            call()
        # Behind all of it: what is decided from now on is decided by the new list.
        self._cell.bump()

    def _mark(self, name: str) -> str:
        return self._ring.credential_mark(name)[:_MARK_CHARACTERS]


def without_node(document: bytes, node: str) -> bytes:
    """Return a document without what the files of a node named."""
    kinds = _decode(document)
    if not any(node in kind.declared for kind in kinds.values()):
        return document
    for kind in kinds.values():
        kind.declared.pop(node, None)
    return _ENCODER.encode(kinds)


def _digest(marks: frozenset[str]) -> str:
    text = "".join(sorted(marks)).encode()
    return hashlib.sha256(text).hexdigest()[:_MARK_CHARACTERS]


def _decode(document: bytes) -> dict[str, _Kind]:
    """
    Return the content of the document.

    Raises:
        IntegrityError: It is none, though a node wrote it.
    """
    try:
        return _DECODER.decode(document) if document else {}
    except msgspec.MsgspecError:
        raise IntegrityError("The list of withdrawn trust is not readable.") from None
