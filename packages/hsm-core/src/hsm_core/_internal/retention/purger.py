# SPDX-License-Identifier: MIT
"""
Purge of one material: ledger intent, key change, ledger outcome.

The version is unusable since it was scheduled. The intent is in the ledger, and
anchored in the audit log, before the key changes; so after a crash the next sweep finds
the intent and completes or closes it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from hsm_core._internal.handlers.context import code_of
from hsm_core._internal.handlers.destruction import PurgeVersion
from hsm_core._internal.keyring.documents import KeyDocument, audited_caller
from hsm_core._internal.keyring.purge_windows import Candidate
from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.policy.facts import SystemPrincipal, system_caller
from hsm_core._internal.retention.decisions import granted_at
from hsm_core._internal.retention.ledger import Attestation, Intent, RetentionLedger
from hsm_core.errors import (
    HSMError,
    KeyNotFoundError,
    StoreUnavailableError,
    UnavailableError,
)
from hsm_core.model import Approval, Integrity, KeyId, Parameters
from hsm_core.protocols import Entropy, Request

NOTE: Final = (
    "Backups, snapshots and what a medium, such as an SSD, keeps of overwritten data "
    "are not reached. Whoever has an old copy and the root key can still open it."
)
"""Note in every attestation: the limits of overwriting."""

_FILES: Final = (
    " A file that could not be overwritten, or has a second name, was only removed."
)
"""Additional note if files are overwritten; written before that."""

_CALLER: Final = system_caller(SystemPrincipal.RETENTION)


def note_of(method: str) -> str:
    """Return the note of an attestation on the limits of its method."""
    return NOTE + _FILES if method == "overwritten-and-removed" else NOTE


def purge_of(candidate: Candidate) -> PurgeVersion:
    """Return the operation that purges a candidate, and that is approved."""
    return PurgeVersion(
        key_id=candidate.document.key_id,
        version=candidate.newest.version,
        versions=candidate.numbers,
    )


@dataclass(frozen=True, slots=True)
class _Open:
    """Intent without outcome, and its material."""

    intent: Intent
    material_id: str


class Purger:
    """
    Purges material, and settles interrupted purges.

    Args:
        inventory: The keys.

        ledger: Attests each purge.

        execute: The pipeline.

        entropy: For ids.

        method: Removal method of sealed blobs, for the ledger.
    """

    def __init__(
        self,
        inventory: KeyRepository,
        ledger: RetentionLedger,
        execute: Callable[[Request], Any],
        entropy: Entropy,
        method: str,
    ) -> None:
        self._inventory = inventory
        self._ledger = ledger
        self._execute = execute
        self._entropy = entropy
        self._method = method

    @property
    def lock(self) -> threading.Lock:
        """Lock held while purging or settling."""
        return self._ledger.purging

    @property
    def is_usable(self) -> bool:
        """Whether the next purge could be attested."""
        return self._ledger.log.available and not self._ledger.problem

    def purge(self, candidate: Candidate, approval: Approval, policy: str) -> None:
        """
        Purge material; callers hold `lock` and have checked it since.

        Args:
            candidate: Due, scheduled, and past its grace period.

            approval: The consent.

            policy: SHA-256 of the retention policy, hex.

        Raises:
            HSMError: It was not purged, or its outcome is not known or not attested;
                the next sweep goes on with it.
        """
        document, material_id = candidate.document, candidate.material_id
        opened = self._find(document.key_id, material_id)
        if opened is None:
            told = self._attestation(candidate, approval, policy)
            self._ledger.begin(told)
            opened = self._find(document.key_id, material_id)
            if opened is None:
                raise AssertionError("an intent that was written is unfinished")
        else:
            self._ledger.resume(opened.intent)
        try:
            self._execute(Request(_CALLER, purge_of(candidate)))
        except UnavailableError:
            raise  # What became of it is found out by the next sweep.
        except HSMError as error:
            self._ledger.finish(
                opened.intent, {"material_id": material_id}, code=code_of(error)
            )
            raise
        failpoint("purge.after_mutation")
        self._attest(opened, self._inventory.document(document.key_id))

    def settle(self, is_ripe: Callable[[KeyDocument, str], bool]) -> int:
        """
        Close intents whose purge was done, or is cancelled; callers hold `lock`.

        Args:
            is_ripe: Whether material will be purged by this sweep, which then goes on
                with the intent.

        Returns:
            Number of intents that can't be closed yet.

        Raises:
            HSMError: Store or ledger can't be used now.
        """
        failures = 0
        for intent in self._ledger.unfinished():
            try:
                self._settle(intent, is_ripe)
            except HSMError:
                if not (self._inventory.store.available and self.is_usable):
                    raise
                failures += 1
        return failures

    def _settle(
        self, intent: Intent, is_ripe: Callable[[KeyDocument, str], bool]
    ) -> None:
        opened = _Open(intent, str(intent.parameters.get("material_id", "")))
        try:
            document = self._inventory.document(KeyId(intent.key_id))
        except KeyNotFoundError:
            self._abort(opened)
            return
        except HSMError:
            if self._inventory.integrity(KeyId(intent.key_id)) is Integrity.OK:
                raise
            return  # Nobody can tell before the key is recovered.
        if any(t.material_id == opened.material_id for t in document.tombstones):
            self._attest(opened, document)
        elif not is_ripe(document, opened.material_id):
            self._abort(opened)

    def _find(self, key_id: str, material_id: str) -> _Open | None:
        for intent in self._ledger.unfinished():
            about = intent.parameters.get("material_id")
            if (intent.key_id, about) == (key_id, material_id):
                return _Open(intent, material_id)
        return None

    def _attestation(
        self, candidate: Candidate, approval: Approval, policy: str
    ) -> Attestation:
        document = candidate.document
        agreed = [
            f"{d.principal} {d.at} {d.credential_id}".rstrip()
            for d in approval.decisions
            if d.counts
        ]
        parameters: Parameters = {
            "material_id": candidate.material_id,
            "versions": [str(number) for number in candidate.numbers],
            "blob_sha256": [v.blob_sha256 for v in candidate.versions],
            "blob_bytes": [str(self._size(document, n)) for n in candidate.numbers],
            "opened_at": candidate.opened_at,
            "window_days": candidate.window.days,
            "window_rule": candidate.window.rule,
            "due_at": candidate.due_at,
            "purge_at": max(v.purge_at for v in candidate.versions),
            "approval_id": approval.approval_id,
            "agreed": agreed,
            "granted_at": granted_at(approval),
            "method": self._method,
            "note": note_of(self._method),
        }
        return Attestation(
            purge_id=self._entropy.random_bytes(16).hex(),
            key_id=document.key_id,
            version=candidate.newest.version,
            caller=audited_caller(_CALLER),
            parameters=parameters,
            policy=policy,
        )

    def _size(self, document: KeyDocument, number: int) -> int:
        blob = self._inventory.store.get_blob(document.key_id, number)
        return len(blob) if blob is not None else 0

    def _attest(self, opened: _Open, document: KeyDocument) -> None:
        """
        Attest a purge, once all of its material is gone.

        Raises:
            StoreUnavailableError: A sealed blob can't be deleted now.
        """
        self._inventory.discard_blobs(document)
        if self._inventory.materials.returned_blobs(document):
            raise StoreUnavailableError("A purged sealed blob can't be deleted.")
        (destroyed_at,) = (
            stone.destroyed_at
            for stone in document.tombstones
            if stone.material_id == opened.material_id
        )
        self._ledger.finish(
            opened.intent,
            {
                "material_id": opened.material_id,
                "destroyed_at": destroyed_at,
                "document_generation": document.generation,
                "method": self._method,
                "note": note_of(self._method),
            },
        )

    def _abort(self, opened: _Open) -> None:
        self._ledger.finish(
            opened.intent, {"material_id": opened.material_id}, code="aborted"
        )
