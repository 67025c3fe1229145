# SPDX-License-Identifier: MIT
"""
Recovery: an operator accepts the store, or one key, in its stored state.

The decision for each key is durable in the audit log before it takes effect. Destroyed
or purged material stays so even if an older copy was restored: nothing of a destroyed
key is accepted, and material that the ledger records as purged is destroyed again. The
use counts of accepted material are unknown, so it can't protect new data until the key
is rotated.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol

import msgspec
from msgspec.structs import replace

from hsm_core import operations as ops
from hsm_core._internal.audit.baseline import ACCEPTED
from hsm_core._internal.audit.reading import AuditWalk
from hsm_core._internal.audit.reasons import faults_of
from hsm_core._internal.keyring.dependencies import Dependencies
from hsm_core._internal.keyring.documents import (
    KeyDocument,
    OperationRecord,
    document_digest,
    index_of,
    remember,
)
from hsm_core._internal.keyring.journal import KeyJournal
from hsm_core._internal.keyring.repository import destroyed_by
from hsm_core._internal.keyring.rollback_check import RollbackCheck, condemn
from hsm_core._internal.keyring.stored_keys import AuthenticatedReader, FollowedFeed
from hsm_core._internal.keyring.use_counters import UseAccounts
from hsm_core._internal.keyring.versions import destroy_material, living
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core.errors import KeyNotFoundError, KeyTamperedError
from hsm_core.model import Integrity, KeyId, MessageDetail, Phase
from hsm_core.protocols import AuditDraft, KeyChange, KnownKey, StoredKey

_AT_ONCE: Final = 500
"""Number of records appended together."""

_DIFFERS: Final = "It differs from what the changes and audit logs say of it."


class PurgeEvidence(Protocol):
    """Retention ledger as evidence of purges."""

    def compare(self, found: RollbackCheck, /) -> RollbackCheck:
        """Extend the rollback check of keys and audit log by the ledger."""
        ...

    def purged(
        self, done: Collection[tuple[KeyId, int]], /
    ) -> Mapping[KeyId, set[str]]:
        """
        Return the material of each key that was purged.

        Args:
            done: Purges that the audit log knows: the key's id, and the newest version
                of the material.
        """
        ...

    def anchor(self) -> None:
        """Record in the audit log an accepted ledger that was ahead of it."""
        ...


class _Decision(msgspec.Struct, frozen=True):
    """
    Decision for one key: counted as *before* until now, and as *after* from now on.

    Attributes:
        document: What is accepted; None if the key is forgotten.
        former: What is stored, where *document* is that without what was purged.
    """

    key_id: KeyId
    before: KnownKey | None
    after: KnownKey | None
    document: KeyDocument | None = None
    former: KeyDocument | None = None

    @property
    def operation_id(self) -> str:
        """The operation that stores another document; empty if none does."""
        if self.document is None or self.former is None:
            return ""
        return self.document.operations[-1].id


class _Count:
    """
    Count of all keys of a cluster. They are read before any node has to wait for it.

    Attributes:
        left: Keys that are to be decided on.
        missing: Keys that are gone, and counted nevertheless until that is recorded.
    """

    def __init__(
        self,
        inventory: AuthenticatedReader,
        destroyed: Collection[KeyId],
        purged: Mapping[KeyId, set[str]],
    ) -> None:
        self._inventory = inventory
        self._destroyed = destroyed
        self._purged = purged
        self.left: Collection[KeyId] = ()
        self.missing: Mapping[KeyId, KnownKey] = {}
        store = inventory.store
        self._listed = {key.key_id: key for key in store.digests()}
        self._found = {key.key_id: self._sound(key) for key in store.scan()}

    def __call__(self, known: Mapping[KeyId, KnownKey]) -> Mapping[KeyId, KnownKey]:
        """Return the keys to be counted; those that have changed are read again."""
        before = self._listed
        self._listed = {key.key_id: key for key in self._inventory.store.digests()}
        for key_id in before.keys() | self._listed.keys():
            if before.get(key_id) != self._listed.get(key_id):
                self._read_again(key_id)
        counted = {
            key_id: found
            for key_id, found in self._found.items()
            if found is not None and known.get(key_id) == found
        }
        self.left = self._found.keys() - counted.keys()
        self.missing = {k: known[k] for k in known.keys() - self._found.keys()}
        return counted | self.missing

    def _read_again(self, key_id: KeyId) -> None:
        self._found[key_id] = None
        try:
            self._found[key_id] = self._sound(self._inventory.store.get(key_id))
        except KeyNotFoundError:
            del self._found[key_id]
        except KeyTamperedError:
            pass

    def _sound(self, stored: StoredKey) -> KnownKey | None:
        """Return an authentic key as it is stored, if nothing in it was destroyed."""
        key_id = stored.key_id
        try:
            document = self._inventory.decode(stored)
        except KeyTamperedError:
            return None
        is_back = key_id in self._destroyed and not document.is_destroyed
        if is_back or living(document) & self._purged.get(key_id, set()):
            return None
        digest = document_digest(stored.document)
        return KnownKey(key_id, document.generation, digest)


class StoreRecovery:
    """
    Recovery of keys that differ from the audit log.

    Args:
        ground: Its keys were compared with the audit log.

        uses: Accounts of the materials.

        journal: Settles open intents of accepted keys.

        ledger: Says what was purged.
    """

    def __init__(
        self,
        ground: Dependencies,
        uses: UseAccounts,
        journal: KeyJournal,
        ledger: PurgeEvidence,
    ) -> None:
        self._ground = ground
        self._inventory = ground.inventory
        self._uses = uses
        self._audit = ground.audit
        self._journal = journal
        self._ledger = ledger

    def recover_store(self, reason: str) -> ops.Recovered:
        """
        Accept every key as it is stored, and unlock.

        Raises:
            HSMError: Store or audit log can't be read or written; what was recorded
                until then is accepted at the next try.
        """
        lock, feed = self._inventory.lock, self._inventory.feed
        counts_anew = feed is not None and bool(lock.reason)
        walk = self._walk() if counts_anew or self._wanted() else None
        with self._inventory.committing:
            is_locked = bool(lock.reason)
            if is_locked and feed is not None:
                walk = walk or self._walk()
                self._count_anew(feed, walk)
            done = self._accept(self._wanted(), reason, walk, with_all_uses=is_locked)
            self._ledger.anchor()
            lock.open()
            self._journal.heal()
        return done

    def _count_anew(self, feed: FollowedFeed, walk: AuditWalk) -> None:
        """Count the keys of a cluster, and disable those that are to be decided on."""
        purged = self._ledger.purged(walk.purged)
        count = _Count(self._inventory, walk.destroyed, purged)
        feed.recover(count)
        for key_id in count.left:
            condemn(self._inventory, key_id, "foreign", None, _DIFFERS)
        for key_id, known in count.missing.items():
            condemn(self._inventory, key_id, "missing", known, _DIFFERS)

    def recover_key(self, reference: str, reason: str) -> ops.Recovered:
        """
        Accept one key; nothing happens where nothing was found wrong with it.

        Raises:
            KeyNotFoundError: There is no such key, and none is missing.
            HSMError: See `recover_store`.
        """
        entry = None
        with suppress(KeyTamperedError):
            entry = self._inventory.entry(reference)
        key_id = entry.key_id if entry else KeyId(reference)
        if self._inventory.integrity(key_id) is Integrity.OK:
            if entry is None:
                raise KeyNotFoundError
            return ops.Recovered()
        walk = self._walk()
        with self._inventory.committing:
            if self._inventory.integrity(key_id) is Integrity.OK:
                return ops.Recovered()
            done = self._accept([key_id], reason, walk)
            if not self._inventory.lock.reason:
                self._journal.heal()
        return done

    def _wanted(self) -> list[KeyId]:
        problems = self._inventory.tampered.problems()
        return [
            key_id
            for key_id, problem in problems.items()
            if problem not in {"counter", "index", "kept"}
        ]

    def _walk(self) -> AuditWalk:
        """Read the audit log, which may take long, while others go on changing keys."""
        walk = AuditWalk(self._audit, self._ground.verify)
        for log in self._ground.other_logs():
            with faults_of(log.log_id):
                walk.include(AuditWalk(log, log.verify))
        return walk

    def _accept(
        self,
        key_ids: Sequence[KeyId],
        reason: str,
        walk: AuditWalk | None,
        *,
        with_all_uses: bool = False,
    ) -> ops.Recovered:
        decisions = self._decisions(key_ids, walk)
        changed = [d for d in decisions if d.before != d.after]
        if with_all_uses:
            self._forfeit_all()
        else:
            for document in filter(None, (d.document for d in changed)):
                self._uses.forfeit(document)
        failpoint("acceptance.before_record")
        self._record(changed, reason)
        failpoint("acceptance.after_record")
        for decision in decisions:
            self._make(decision)
        if self._inventory.feed is None and not self._inventory.census.pinned():
            self._inventory.store.write_account(self._inventory.census.account())
        failpoint("acceptance.after_account")
        settled = {decision.key_id for decision in decisions}
        return ops.Recovered(
            accepted=tuple(d.key_id for d in decisions if d.after),
            forgotten=tuple(d.key_id for d in decisions if not d.after),
            left=tuple(key_id for key_id in key_ids if key_id not in settled),
        )

    def _decisions(
        self, key_ids: Sequence[KeyId], walk: AuditWalk | None
    ) -> list[_Decision]:
        if not key_ids:
            return []
        walk = walk or self._walk()
        walk.advance()
        pinned, purged = (
            self._inventory.census.pinned(),
            self._ledger.purged(walk.purged),
        )
        found = (
            self._decide(key_id, pinned, walk.destroyed, purged.get(key_id, set()))
            for key_id in key_ids
        )
        return [decision for decision in found if decision is not None]

    def _decide(
        self,
        key_id: KeyId,
        pinned: Mapping[KeyId, KnownKey | None],
        destroyed: set[KeyId],
        purged: set[str],
    ) -> _Decision | None:
        """Return what becomes of a key; None if it can't be accepted."""
        try:
            stored = self._stored(key_id)
            if stored is None:
                return _Decision(key_id, pinned.get(key_id), None)
            document = self._inventory.decode(stored)
        except KeyTamperedError:
            return None
        if key_id in destroyed and not document.is_destroyed:
            versions = [version.version for version in document.versions]
            self._inventory.discard_versions(key_id, versions)
            return None
        digest = document_digest(stored.document)
        after = KnownKey(key_id, document.generation, digest)
        before = pinned.get(key_id) if key_id in pinned else after
        if before is not None:
            before = replace(before, destroyed=False)
        if before == after and self._inventory.materials.find_changed(document):
            return None
        self._inventory.store.refresh(key_id)
        self._inventory.store.correct(index_of(document, digest))
        gone = living(document) & purged
        if gone:
            return self._buried(before, document, gone)
        if self._inventory.feed is None and self._follows(before, document):
            # It is an open intent that was stored; settling that one counts it.
            return _Decision(key_id, after, after, document)
        return _Decision(key_id, before, after, document)

    def _buried(
        self, before: KnownKey | None, stored: KeyDocument, gone: set[str]
    ) -> _Decision:
        """Return the decision for a key of which something was purged."""
        after = destroy_material(stored, gone, self._ground.clock_guard.now())
        record = OperationRecord(
            id=self._ground.entropy.random_bytes(16).hex(),
            digest="",
            kind=ACCEPTED,
            generation=after.generation,
            version=after.current,
            at=after.updated_at,
        )
        operations = remember(after.operations, record)
        after = msgspec.structs.replace(after, operations=operations)
        digest = document_digest(self._inventory.encode(after))
        known = KnownKey(after.key_id, after.generation, digest)
        return _Decision(after.key_id, before, known, after, former=stored)

    def _stored(self, key_id: KeyId) -> StoredKey | None:
        """Return what is stored of a key, whatever the index says of it."""
        store = self._inventory.store
        with suppress(KeyNotFoundError, KeyTamperedError):
            return store.get(key_id)
        return store.get(key_id) if store.refresh(key_id) else None

    def _follows(self, before: KnownKey | None, document: KeyDocument) -> bool:
        last = document.operations[-1].id if document.operations else ""
        generation = before.generation if before else 0
        return last in self._journal.open and document.generation == generation + 1

    def _forfeit_all(self) -> None:
        """Of an older store every counter may be older, whatever else differs."""
        for stored in self._inventory.store.scan():
            try:
                self._uses.forfeit(self._inventory.decode(stored))
            except KeyTamperedError:
                continue

    def _record(self, decisions: Sequence[_Decision], reason: str) -> None:
        changes = [(decision.before, decision.after) for decision in decisions]
        totals = self._inventory.census.preview(changes)
        drafts = [
            self._draft(decision, total, reason)
            for decision, total in zip(decisions, totals, strict=True)
        ]
        for start in range(0, len(drafts), _AT_ONCE):
            some = drafts[start : start + _AT_ONCE]
            self._audit.append(some, durable=True, reserved=True).wait()

    def _draft(self, decision: _Decision, total: str, reason: str) -> AuditDraft:
        after = decision.after
        what = "accepted in its current state" if after else "missing"
        if decision.former is not None:
            what = "accepted without its purged versions"
        return AuditDraft(
            phase=Phase.SINGLE,
            kind=ACCEPTED,
            operation_id=decision.operation_id,
            key_id=decision.key_id,
            generation=after.generation if after else 0,
            document_after=after.digest if after else "",
            set_digest=total + self._inventory.beside(),
            policy=self._ground.policy.policy_hash(),
            detail=MessageDetail(text=f"{what}: {reason}"),
        )

    def _make(self, decision: _Decision) -> None:
        inventory, document = self._inventory, decision.document
        if inventory.feed is not None:
            self._make_on_all_nodes(decision, inventory.feed)
            return
        if document is not None and decision.former is not None:
            self._store(decision.former, document)
            failpoint("acceptance.after_burial")
        if decision.before != decision.after:
            inventory.census.replace(decision.before, decision.after)
        inventory.accept(decision.key_id, document)
        if document is not None:
            inventory.materials.check_blobs(document)

    def _make_on_all_nodes(self, decision: _Decision, feed: FollowedFeed) -> None:
        inventory, document = self._inventory, decision.document
        former = decision.former or document
        counted = None
        if former is not None:
            digest = document_digest(inventory.encode(former))
            counted = KnownKey(former.key_id, former.generation, digest)
        if decision.before != counted:
            feed.accept(decision.key_id, decision.before, counted)
        inventory.accept(decision.key_id, former)
        if document is not None and decision.former is not None:
            stored, operation = inventory.encode(document), document.operations[-1].id
            inventory.commit(former, document, stored, operation, {})
        if document is not None:
            inventory.materials.check_blobs(document)

    def _store(self, former: KeyDocument, document: KeyDocument) -> None:
        stored = self._inventory.encode(document)
        self._inventory.store.commit(
            KeyChange(
                entry=index_of(document, document_digest(stored)),
                document=stored,
                expected_generation=former.generation,
                operation_id=document.operations[-1].id,
                removed_blobs=destroyed_by(former, document),
            )
        )
        self._inventory.materials.forget(former, document)
