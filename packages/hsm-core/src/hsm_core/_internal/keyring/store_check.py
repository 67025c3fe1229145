# SPDX-License-Identifier: MIT
"""
Store check: compares the store with the audit log, at startup and continuously.

Keys that differ are disabled before the first operation, and open intents are settled.
Later failures are healed, and the scrubber checks everything repeatedly.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Final

from hsm_core._internal.keyring.dependencies import Dependencies
from hsm_core._internal.keyring.recovery import PurgeEvidence, StoreRecovery
from hsm_core._internal.keyring.rollback_check import (
    RollbackCheck,
    compare,
    judge_doubtful,
)
from hsm_core._internal.keyring.scrubber import Scrubber
from hsm_core._internal.keyring.settlement import key_intents, recover
from hsm_core._internal.keyring.store_healing import Healer
from hsm_core._internal.keyring.use_counters import UseAccounts
from hsm_core._internal.lib.worker import BackgroundWorker
from hsm_core.model import AuditEvent, MessageDetail, Phase
from hsm_core.protocols import AuditDraft
from hsm_core.settings import KeyStoreKind

_HEALING_SECONDS: Final = 1.0
"""Seconds between attempts to heal a store after a failed write."""

_SCRUBBING_SECONDS: Final = 5.0
"""Seconds before a scrub restarts after the store could not be read."""


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
        UnavailableError: Store or trail can't be read or written.

    Attributes:
        healer: Settles what the store did not tell the outcome of.
        acceptance: Accepts what differs.
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
        self._pay: Callable[[], None] = lambda: None
        self._judge = partial(
            judge_doubtful, inventory, audit, ground.verify, self._settle_all
        )
        self.healer = Healer(inventory, audit)
        self.scrubber = Scrubber(
            inventory,
            uses,
            ground.clock,
            self._judge,
            share=settings.scrub_share,
            interval_seconds=settings.scrub_interval_seconds,
        )
        self.acceptance = StoreRecovery(
            ground, uses, self.healer, ledger, self._compare()
        )
        if settings.accept_changed_store and self._is_lasting:
            # What is to be accepted must be found first, which a start alone need not.
            self.scrubber.verify(threading.Event())
            if inventory.tampered.problems() or inventory.lock.reason:
                self.acceptance.recover_store("accept_changed_store")

    def _compare(self) -> list[AuditEvent]:
        """Compare keys and audit log; return the intents that a lock leaves open."""
        inventory, audit = self._ground.inventory, self._ground.audit
        judgement = RollbackCheck()
        if self._is_lasting:
            judgement = self._ledger.compare(
                compare(inventory, audit, self._ground.verify)
            )
        else:
            inventory.census.adopt(inventory.census.sums(()), verified=True)
        if not judgement.lock:
            return recover(inventory, audit)
        self._ground.lock(judgement.lock, judgement.facts)
        return key_intents(audit)

    def begin(self, caretaker: BackgroundWorker, pay: Callable[[], None]) -> None:
        """
        Start the background jobs.

        Args:
            caretaker: Does it.

            pay: Appends pending outcomes to the audit log.
        """
        self._pay = pay
        caretaker.every(_HEALING_SECONDS, self.healer.heal)
        caretaker.every(_HEALING_SECONDS, self._judge)
        if self._is_lasting:
            caretaker.every(_SCRUBBING_SECONDS, self.scrubber.step)

    def _settle_all(self) -> None:
        """Record all committed changes in the audit log; callers hold `committing`."""
        self.healer.heal()
        self._pay()
        draft = AuditDraft(
            phase=Phase.SINGLE,
            kind="system.store-compared",
            policy=self._ground.policy.policy_hash(),
            detail=MessageDetail(text="A part of it is not as it was counted."),
        )
        # Once this is durable, all that was appended before it is.
        self._ground.audit.append([draft], durable=True, reserved=True).wait()
