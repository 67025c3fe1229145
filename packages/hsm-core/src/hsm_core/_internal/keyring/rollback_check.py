# SPDX-License-Identifier: MIT
"""
Rollback check: compares the store with the audit log at every start.

The audit log keeps a keyed set digest over all keys. If the store's digest matches it,
apart from changes that a crash left unrecorded, nothing more is read. Otherwise every
document is read and the audit log is walked once: each key that differs is reported,
and if the store as a whole is older than the audit log, or the other way round, the
whole HSM is locked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

import msgspec

from hsm_core._internal.audit.reading import AuditWalk
from hsm_core._internal.keyring.dependencies import Dependencies
from hsm_core._internal.keyring.documents import document_digest, read_index
from hsm_core._internal.keyring.journal import state_before
from hsm_core._internal.keyring.repository import KeyRepository, Present
from hsm_core._internal.keyring.set_digest import Sums
from hsm_core._internal.keyring.stored_keys import tampering
from hsm_core._internal.time.clock import instant
from hsm_core.errors import Fact, KeyNotFoundError, KeyTamperedError
from hsm_core.model import Integrity, KeyId
from hsm_core.protocols import AuditLog, KeyDigest, KnownKey, bucket_of

_AHEAD: Final = frozenset({"newer", "foreign"})
"""Problems of an authentic document that no audit record explains."""

_BEHIND: Final = frozenset({"older", "missing"})
"""Problems of a key that was rolled back."""

_KEYS: Final = 64
"""Length of the part of a set digest that covers keys; the rest covers approvals."""

_BEFORE_ALL: Final = (-1, 0)
"""Position of a store that is older than all remaining records."""

_REASONS: Final[Mapping[str, str]] = {
    "older": "An older document was restored.",
    "newer": "It is newer than its last audit record.",
    "missing": "It is missing.",
    "foreign": "No audit record names this key.",
    "document": "Its document was altered.",
    "destroyed": "It was destroyed, and an older document was restored.",
}


class RollbackCheck(msgspec.Struct, frozen=True):
    """
    Result of a rollback check.

    Attributes:
        problems: Problem of each key that differs.
        lock: Why the whole HSM is locked, or empty.
        facts: The same for programs.
    """

    problems: Mapping[KeyId, str] = msgspec.field(default_factory=dict)
    lock: str = ""
    facts: Mapping[str, Fact] = msgspec.field(default_factory=dict)


def compare(ground: Dependencies) -> RollbackCheck:
    """
    Compare the store with the audit log, and disable the keys that differ.

    Afterwards the set digest follows the audit log, whatever the store holds.

    Args:
        ground: Over a store that was just opened, before recovery.

    Raises:
        AuditTamperedError: A record is bad.
        UnavailableError: Store or audit log can't be read.
    """
    inventory, audit = ground.inventory, ground.audit
    store, census = inventory.store, inventory.census
    recorded = f"{int(audit.set_digest_at_open[:_KEYS] or '0', 16):064x}"
    kept = store.read_account()
    counted = census.read(kept) if kept is not None else None
    if counted is not None and _is_recorded(inventory, audit, counted, recorded, False):
        return RollbackCheck()
    if kept is not None or not _counts_equal(inventory, audit, recorded):
        false = set(_false_rows(inventory))
        store.rebuild()
        judgement = RollbackCheck()
        if not _counts_equal(inventory, audit, recorded):
            judgement = _judge(ground, recorded)
        for key_id in sorted(false - judgement.problems.keys()):
            inventory.note_corrected(key_id)
        if judgement.problems:
            # No account is kept of what is not there: the next start looks again.
            return judgement
    store.write_account(census.account())
    return RollbackCheck()


def _false_rows(inventory: KeyRepository) -> Iterable[KeyId]:
    """Return the keys with index entries that no document supports."""
    for stored in inventory.store.scan():
        true = read_index(stored.key_id, stored.document)
        try:
            is_true = inventory.store.entry(stored.key_id) == true
        except KeyTamperedError:
            is_true = False
        if not (is_true and stored.is_listed):
            yield stored.key_id


def _counts_equal(inventory: KeyRepository, audit: AuditLog, recorded: str) -> bool:
    counted = inventory.census.sums(inventory.store.digests())
    return _is_recorded(inventory, audit, counted, recorded, True)


def _is_recorded(
    inventory: KeyRepository,
    audit: AuditLog,
    counted: Sums,
    recorded: str,
    verified: bool,
) -> bool:
    """Adopt what was counted, without what was stored and not recorded; compare it."""
    census = inventory.census
    census.adopt(counted, verified=verified)
    for intent in audit.open_intents():
        entry = inventory.refresh(KeyId(intent.key_id)) if intent.key_id else None
        if entry is not None and entry.operations[-1:] == (intent.operation_id,):
            after = KeyDigest(entry.key_id, entry.generation, entry.digest)
            census.replace(after, state_before(intent))
    return census.set_digest == recorded


def _judge(ground: Dependencies, recorded: str) -> RollbackCheck:
    inventory, audit = ground.inventory, ground.audit
    census, store = inventory.census, inventory.store
    raw = f"{census.sums(store.digests()).total:064x}"
    loaded = inventory.load()
    present, unreadable = loaded.present, loaded.unreadable
    readable = f"{census.sums(_counted(present)).total:064x}"
    walk = AuditWalk(audit, ground.verify, {raw, readable} - {recorded})
    known = walk.known()
    open_ids = {intent.operation_id for intent in audit.open_intents()}
    census.adopt(census.sums(known.values()), verified=True)
    problems = dict(_unreadable_problems(unreadable, known))
    for key_id in sorted((known.keys() | present.keys()) - unreadable.keys()):
        there = present.get(key_id) or _look_again(inventory, key_id)
        problem = _problem(known.get(key_id), there, open_ids)
        if problem:
            problems[key_id] = problem
    # A folder that is no key of ours must not hide that all the rest is older.
    strangers = unreadable.keys().isdisjoint(known)
    met = walk.met.get(raw) or (walk.met.get(readable) if strangers else None)
    if met is None and _is_before(walk, audit, problems):
        met = _BEFORE_ALL
    lock, facts = _lock_of(problems, present, walk.destroyed, met)
    for key_id, problem in problems.items():
        reason = _reason(problem, key_id, walk.destroyed)
        condemn(inventory, key_id, problem, known.get(key_id), reason)
    for key_id, error in loaded.blobs.items():
        inventory.tampered.condemn(key_id, error)
    return RollbackCheck(problems, lock, facts)


def _is_before(walk: AuditWalk, audit: AuditLog, problems: Mapping[KeyId, str]) -> bool:
    """Return whether the store is older than all records of a pruned audit log."""
    behind = {key_id for key_id, problem in problems.items() if problem in _BEHIND}
    return bool(audit.first_seq and walk.changed) and walk.changed <= behind


def _counted(present: Mapping[KeyId, Present]) -> Iterable[KeyDigest]:
    return (KeyDigest(p.key_id, p.generation, p.digest) for p in present.values())


def _unreadable_problems(
    unreadable: Mapping[KeyId, Integrity], known: Mapping[KeyId, KnownKey]
) -> Iterable[tuple[KeyId, str]]:
    for key_id, found in unreadable.items():
        if key_id not in known:
            yield key_id, "foreign"
        else:
            yield key_id, "missing" if found is Integrity.MISSING else "document"


def _look_again(inventory: KeyRepository, key_id: KeyId) -> Present | None:
    """Look for a key that no list has; the list of a remote store may be old."""
    entry = inventory.refresh(key_id)
    if entry is None:
        return None
    try:
        stored = inventory.store.get(key_id)
        document = inventory.decode(stored)
    except (KeyTamperedError, KeyNotFoundError):
        return None
    digest = document_digest(stored.document)
    return Present(key_id, document.generation, digest, entry.operations)


def _problem(known: KnownKey | None, there: Present | None, open_ids: set[str]) -> str:
    if there is None:
        return "missing" if known else ""
    generation, digest = (known.generation, known.digest) if known else (0, "")
    if (generation, digest) == (there.generation, there.digest):
        return ""
    # A change that was stored, and whose outcome a crash has swallowed.
    follows = there.generation == generation + 1
    if follows and open_ids & set(there.operations[-1:]):
        return ""
    if known is None:
        return "foreign"
    return "older" if there.generation < generation else "newer"


def _lock_of(
    problems: Mapping[KeyId, str],
    present: Collection[KeyId],
    destroyed: set[KeyId],
    met: tuple[int, int] | None,
) -> tuple[str, Mapping[str, Fact]]:
    """Return the reason to lock the whole HSM, or nothing."""
    ahead = [
        key_id
        for key_id, problem in problems.items()
        if problem in _AHEAD and key_id in present and key_id not in destroyed
    ]
    if met is not None and not problems.keys() <= destroyed:
        seq, time = met
        if met == _BEFORE_ALL:
            return (
                "The key store is an older copy, from before the first remaining "
                "audit record.",
                {"reason": "store_older"},
            )
        return (
            f"The key store is an older copy: it matches audit record {seq}, of "
            f"{instant(time):%Y-%m-%dT%H:%M:%SZ}.",
            {"reason": "store_older", "seq": seq, "time": time},
        )
    if ahead:
        return (
            "The audit log is older than the key store: it has no record of the "
            f"stored state of key {ahead[0]}.",
            {"reason": "trail_older", "key_id": ahead[0]},
        )
    return "", {}


def _reason(problem: str, key_id: KeyId, destroyed: set[KeyId]) -> str:
    returned = problem == "older" and key_id in destroyed
    return _REASONS["destroyed" if returned else problem]


def condemn(
    inventory: KeyRepository,
    key_id: KeyId,
    problem: str,
    known: KnownKey | None,
    why: str,
) -> None:
    """Lock a key that differs; *known* is what is counted of it nevertheless."""
    kind = Integrity.MISSING if problem == "missing" else Integrity.TAMPERED
    inventory.condemn(key_id, tampering(key_id, why, kind, problem))
    inventory.census.pin(key_id, known)


def judge_doubtful(ground: Dependencies, settle: Callable[[], None]) -> None:
    """
    Compare the keys of buckets with wrong sums with the audit log.

    Args:
        ground: Over the store.

        settle: Records all committed changes in the audit log, durably.

    Raises:
        AuditTamperedError: A record is bad.
        UnavailableError: Store or audit log can't be read or written.
    """
    inventory = ground.inventory
    if not inventory.doubtful:
        return
    if inventory.feed is not None:
        inventory.feed.known()  # What takes long keeps no node from changing keys.
        with inventory.quiet():
            _judge_buckets(inventory, inventory.feed.known(), set())
        return
    walk = AuditWalk(ground.audit, ground.verify)
    with inventory.committing:
        # What nobody has recorded yet would look as if somebody else had made it.
        settle()
        walk.advance()
        _judge_buckets(inventory, walk.known(), walk.destroyed)


def _judge_buckets(
    inventory: KeyRepository, known: Mapping[KeyId, KnownKey], destroyed: set[KeyId]
) -> None:
    buckets = set(inventory.doubtful)
    here = {k: v for k, v in known.items() if bucket_of(k) in buckets}
    there = {
        key.key_id: Present(key.key_id, key.generation, key.digest)
        for bucket in buckets
        for key in inventory.store.digests(bucket)
    }
    pinned = inventory.census.pinned().keys()
    for key_id in sorted((here.keys() | there.keys()) - pinned):
        counted, listed = here.get(key_id), there.get(key_id)
        if not _problem(counted, listed, set()):
            continue
        # Or the index says what no document does.
        found = _look_again(inventory, key_id) or listed
        if problem := _problem(counted, found, set()):
            reason = _reason(problem, key_id, destroyed)
            condemn(inventory, key_id, problem, counted, reason)
        else:
            inventory.note_corrected(key_id)
    inventory.note_rewritten(there.keys())
    inventory.census.unverified -= buckets
    inventory.doubtful -= buckets
