# SPDX-License-Identifier: MIT
"""
Store check: compares the store with the audit log, at startup and continuously.

Keys that differ are disabled before the first operation, and open intents are settled.
Later failures are healed, and the scrubber checks everything repeatedly.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Final, TypeVar

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.keyring.dependencies import Dependencies
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.keyring.journal import KeyJournal
from hsm_core._internal.keyring.recovery import PurgeEvidence, StoreRecovery
from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core._internal.keyring.rollback_check import (
    RollbackCheck,
    compare,
    judge_doubtful,
)
from hsm_core._internal.keyring.stored_keys import tampering
from hsm_core._internal.keyring.use_counters import UseAccounts
from hsm_core._internal.keyring.versions import living
from hsm_core._internal.lib.concurrency import BackgroundWorker
from hsm_core._internal.time.clock import instant
from hsm_core.errors import (
    KeyNotFoundError,
    KeyTamperedError,
    StoreUnavailableError,
    UnavailableError,
)
from hsm_core.model import Integrity
from hsm_core.protocols import AuditDraft, Clock, StoredKey, bucket_of
from hsm_core.settings import KeyStoreKind

Result = TypeVar("Result")

_SLICE_SECONDS: Final = 0.001
"""Duration of one step; other threads wait for the interpreter that long."""

_SHOWN: Final = 100
_WITH_DOCUMENT: Final = frozenset({"blob", "counter", "index", "kept"})
"""Problems of keys with an authentic document."""

_HEALING_SECONDS: Final = 1.0
"""Seconds between attempts to heal a store after a failed write."""

_SCRUBBING_SECONDS: Final = 5.0
"""Seconds before a scrub restarts after the store could not be read."""


class _Progress(msgspec.Struct):
    compared: int = 0
    to_compare: int = 0


class Scrubber:
    """
    Scrubber of every key, in the background or on demand.

    Args:
        inventory: Compared with the audit log at the start.

        uses: Accounts, of which those of no key are removed.

        clock: For the instant of the last scrub.

        judge: Compares doubtful buckets with the audit log.

        share: Share of one processor's time that the background may take.

        interval_seconds: From the end of a scrub to the begin of the next.
    """

    def __init__(
        self,
        inventory: KeyRepository,
        uses: UseAccounts,
        clock: Clock,
        judge: Callable[[], None],
        *,
        share: float,
        interval_seconds: float,
    ) -> None:
        self._inventory = inventory
        self._uses = uses
        self._clock = clock
        self._judge = judge
        self._share = share
        self._interval = interval_seconds
        self._walk: Iterator[None] | None = None
        self._progress = _Progress()
        self._compared_at: datetime | None = None

    def step(self) -> float:
        """
        Do one step of a scrub, and return the seconds until the next.

        Raises:
            HSMError: The store can't be read; the scrub restarts.
        """
        started = time.perf_counter()
        if self._walk is None:
            self._progress = _Progress()
            self._walk = self._compare_all(self._progress)
        try:
            for _ in self._walk:
                spent = time.perf_counter() - started
                if spent >= _SLICE_SECONDS:
                    return spent / self._share - spent
        except BaseException:
            self._walk = None
            raise
        self._walk = None
        return self._interval

    def verify(self, closing: threading.Event) -> ops.StoreVerification:
        """
        Check everything now.

        Raises:
            UnavailableError: The HSM is closed, or the store can't be read.
        """
        progress = _Progress()
        for _ in self._compare_all(progress):
            if closing.is_set():
                raise UnavailableError("The HSM is closed.")
        return ops.StoreVerification(keys=progress.compared, findings=self._findings())

    def status(self) -> ops.StoreStatus:
        """Return the known state of the store, without reading it."""
        return ops.StoreStatus(
            available=self._inventory.store.available,
            locked=self._inventory.lock.reason,
            findings=self._findings(_SHOWN),
            compared=self._progress.compared,
            to_compare=self._progress.to_compare,
            compared_at=self._compared_at,
        )

    def _findings(self, most: int | None = None) -> tuple[ops.KeyFinding, ...]:
        problems = self._inventory.tampered.problems()
        return tuple(
            ops.KeyFinding(key_id=key_id, problem=problem)
            for key_id, problem in islice(problems.items(), most)
        )

    def _compare_all(self, progress: _Progress) -> Iterator[None]:
        inventory = self._inventory
        progress.to_compare = inventory.census.keys
        orphans, materials = self._uses.orphans(), set[str]()
        if inventory.feed is not None:
            # Rows of a database that nodes share may be removed while it is open.
            inventory.census.doubt_all_but(inventory.store.digests())
        for bucket in sorted(inventory.census.unverified):
            self._judged(bucket, partial(inventory.check_bucket, bucket))
            yield
        for stored in inventory.store.scan():
            look = partial(self._compare, stored)
            document = self._judged(bucket_of(stored.key_id), look)
            if document is not None:
                materials |= living(document)
            progress.compared += 1
            yield
        problems = set(inventory.tampered.problems().values())
        if problems <= _WITH_DOCUMENT:
            # A document that is put right later must find its materials' counters.
            self._uses.tidy(orphans - materials)
        self._compared_at = instant(self._clock.now())

    def _judged(self, bucket: int, look: Callable[[], Result]) -> Result:
        """Compare keys, again after their bucket was compared with the audit log."""
        try:
            return look()
        except StoreUnavailableError:
            if bucket not in self._inventory.doubtful:
                raise
            self._judge()
            return look()

    def _compare(self, stored: StoredKey) -> KeyDocument | None:
        """Check one key, and register its fault."""
        inventory, key_id = self._inventory, stored.key_id
        if inventory.census.is_pinned(key_id):
            return None
        try:
            document = inventory.examine(stored)
        except KeyTamperedError:
            return None
        except KeyNotFoundError:
            self._compare_stranger(stored)
            return None
        inventory.materials.check_blobs(document)
        inventory.discard_blobs(document)
        return document

    def _compare_stranger(self, stored: StoredKey) -> None:
        """Check a stored key without an index entry."""
        inventory, key_id = self._inventory, stored.key_id
        with inventory.quiet():
            counted = inventory.compare_bucket(bucket_of(key_id))
            if counted is not None and key_id not in counted:
                reason = "No audit record names this key."
                error = tampering(key_id, reason, Integrity.TAMPERED, "foreign")
                inventory.condemn(key_id, error)
                inventory.census.pin(key_id, None)


class StoreCheck:
    """
    Opens a store for an HSM.

    Args:
        ground: Its keys lie in a store that was just opened. The settings say how often
            to scrub, and whether to accept what differs.

        uses: Accounts of the keys' materials.

        ledger: Compared with keys and trail.

    Raises:
        AuditTamperedError: A record is bad.
        UnavailableError: Store or audit log can't be read or written.

    Attributes:
        journal: Journal of the key changes.
        recovery: Accepts keys that differ.
        scrubber: Compares everything.
    """

    def __init__(
        self,
        ground: Dependencies,
        uses: UseAccounts,
        ledger: PurgeEvidence,
    ) -> None:
        settings, inventory, audit = ground.settings, ground.inventory, ground.audit
        self._ground = ground
        self._is_lasting = settings.key_store != KeyStoreKind.MEMORY
        self._ledger = ledger
        self._judge = partial(judge_doubtful, ground, self._settle_all)
        self.journal = KeyJournal(inventory, audit)
        self.scrubber = Scrubber(
            inventory,
            uses,
            ground.clock,
            self._judge,
            share=settings.scrub_share,
            interval_seconds=settings.scrub_interval_seconds,
        )
        self._compare()
        self.recovery = StoreRecovery(ground, uses, self.journal, ledger)
        if settings.accept_changed_store and self._is_lasting:
            # What is to be accepted must be found first, which a start alone need not.
            self.scrubber.verify(threading.Event())
            if inventory.tampered.problems() or inventory.lock.reason:
                self.recovery.recover_store("accept_changed_store")

    def _compare(self) -> None:
        """Compare keys and audit log; settle open intents, or lock the HSM."""
        judgement = RollbackCheck()
        feed = self._ground.inventory.feed
        if feed is not None:
            problem = feed.start()
            judgement = RollbackCheck(lock=problem, facts={"reason": "feed_altered"})
            if not problem:
                lock, facts = self._ground.why_older()
                judgement = RollbackCheck(lock=lock, facts=facts)
        elif self._is_lasting:
            judgement = self._ledger.compare(compare(self._ground))
        else:
            inventory = self._ground.inventory
            inventory.census.adopt(inventory.census.sums(()), verified=True)
        if judgement.lock:
            self._ground.lock(judgement.lock, judgement.facts)
        else:
            self.journal.settle()

    def begin(self, worker: BackgroundWorker) -> None:
        """Start the background jobs."""
        feed = self._ground.inventory.feed
        if feed is not None:
            feed.begin_following()
        worker.every(_HEALING_SECONDS, self.journal.heal)
        worker.every(_HEALING_SECONDS, self._judge)
        if self._is_lasting:
            step = self._ground.job_guard("scrubbing", self.scrubber.step)
            lock, alone = self._ground.inventory.lock, self.scrubber.step
            # A locked node has no lease, and finds by itself what is to be recovered.
            worker.every(_SCRUBBING_SECONDS, lambda: alone() if lock.reason else step())

    def _settle_all(self) -> None:
        """Record all committed changes in the audit log; callers hold `committing`."""
        self.journal.heal()
        self.journal.append_pending()
        draft = AuditDraft.system(
            "system.store-compared",
            "Part of the store does not match its set digest.",
            policy=self._ground.policy.policy_hash(),
        )
        # Once this is durable, all that was appended before it is.
        self._ground.audit.append([draft], durable=True, reserved=True).wait()
