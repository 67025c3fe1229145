# SPDX-License-Identifier: MIT
"""
The keeper of a store: compares it with the trail at the start, and from then on.

What differs is locked before the first operation; open intents are settled; what fails
later is healed, and everything is looked at again and again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Final

from hsm_core._internal.acceptance import Acceptance
from hsm_core._internal.caretaker import Caretaker
from hsm_core._internal.comparison import Judgement, compare, judge_doubtful
from hsm_core._internal.healing import Healer
from hsm_core._internal.inventory import Inventory
from hsm_core._internal.recovery import key_intents, recover
from hsm_core._internal.scrubber import Scrubber
from hsm_core._internal.uses import UseAccounts
from hsm_core.errors import HSMLockedError
from hsm_core.model import MessageDetail, Phase
from hsm_core.operations import AuditVerification
from hsm_core.protocols import AuditDraft, AuditLog, Clock
from hsm_core.settings import KeyStoreKind, Settings

__all__ = ["Keeper"]

_HEALING_SECONDS: Final = 1.0
"""How often it is tried to heal a store whose write failed."""

_SCRUBBING_SECONDS: Final = 5.0
"""How soon a scrub is begun anew that could not read the store."""


class Keeper:
    """
    Opens a store for an HSM.

    Args:
        settings: How often to scrub, and whether to accept what differs.

        inventory: Over a store that was just opened.

        uses: Accounts of its materials.

        audit: The trail.

        clock: Time.

        verify: Verifies a range of the trail.

        policy_hash: Tells the hash of the policy in force.

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
        settings: Settings,
        inventory: Inventory,
        uses: UseAccounts,
        audit: AuditLog,
        clock: Clock,
        verify: Callable[[int, int], AuditVerification],
        policy_hash: Callable[[], str],
    ) -> None:
        self._inventory = inventory
        self._is_lasting = settings.key_store != KeyStoreKind.MEMORY
        self._audit = audit
        self._policy_hash = policy_hash
        self._pay: Callable[[], None] = lambda: None
        self._judge = partial(
            judge_doubtful, inventory, audit, verify, self._settle_all
        )
        self.healer = Healer(inventory, audit)
        self.scrubber = Scrubber(
            inventory,
            uses,
            clock,
            self._judge,
            share=settings.scrub_share,
            interval_seconds=settings.scrub_interval_seconds,
        )
        judgement = Judgement()
        if self._is_lasting:
            judgement = compare(inventory, audit, verify)
        else:
            inventory.census.adopt(inventory.census.sums(()), verified=True)
        if judgement.lock:
            inventory.lock.set(judgement.lock, judgement.facts)
            waiting = key_intents(audit)
            draft = _lock_draft(judgement.lock, policy_hash)
            audit.append([draft], durable=True, reserved=True).wait()
        else:
            waiting = recover(inventory, audit)
        self.acceptance = Acceptance(
            inventory, uses, audit, self.healer, verify, policy_hash, waiting
        )
        if settings.accept_changed_store and self._is_lasting:
            # What is to be accepted must be found first, which a start alone need not.
            self.scrubber.verify(threading.Event())
            if inventory.tampered.problems():
                self.acceptance.recover_store("accept_changed_store")

    def begin(self, caretaker: Caretaker, pay: Callable[[], None]) -> None:
        """
        Begin the recurring work.

        Args:
            caretaker: Does it.

            pay: Appends outcomes that are owed to the trail.
        """
        self._pay = pay
        caretaker.every(_HEALING_SECONDS, self.healer.heal)
        caretaker.every(_HEALING_SECONDS, self._judge)
        if self._is_lasting:
            caretaker.every(_SCRUBBING_SECONDS, self.scrubber.step)

    def _settle_all(self) -> None:
        """Let the trail know all that was committed; callers hold `committing`."""
        self.healer.heal()
        self._pay()
        draft = AuditDraft(
            phase=Phase.SINGLE,
            kind="system.store-compared",
            policy=self._policy_hash(),
            detail=MessageDetail(text="A part of it is not as it was counted."),
        )
        # Once this is durable, all that was appended before it is.
        self._audit.append([draft], durable=True, reserved=True).wait()


def _lock_draft(reason: str, policy_hash: Callable[[], str]) -> AuditDraft:
    return AuditDraft(
        phase=Phase.SINGLE,
        kind="system.locked",
        code=HSMLockedError.code,
        policy=policy_hash(),
        detail=MessageDetail(text=reason),
    )
