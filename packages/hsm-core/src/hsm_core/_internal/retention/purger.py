# SPDX-License-Identifier: MIT
"""
Purge of one material: ledger intent, key change, ledger outcome.

The version is unusable since it was scheduled. The intent is in the ledger, and
anchored in the audit log, before the key changes. The key's tombstone is the commit.
From then on the purge is rolled forward: its sealed blobs are deleted before it is
attested. Until then the next sweep goes on with it, or gives it up.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from hsm_core._internal.handlers.context import code_of
from hsm_core._internal.handlers.destruction import PurgeVersion
from hsm_core._internal.keyring.documents import KeyDocument, audited_caller
from hsm_core._internal.keyring.journal import Journal, intent_of
from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core._internal.keyring.versions import Candidate
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.policy.facts import SystemPrincipal, system_caller
from hsm_core._internal.retention.decisions import granted_at
from hsm_core._internal.retention.ledger import PURGE_KIND, RetentionLedger
from hsm_core.errors import (
    HSMError,
    KeyNotFoundError,
    StoreUnavailableError,
    UnavailableError,
)
from hsm_core.model import Approval, Integrity, KeyId, Parameters, Phase
from hsm_core.protocols import AuditDraft, Entropy, Request

NOTE: Final = (
    "Deletion does not reach backups, snapshots, or remnants on media such as SSDs. "
    "Anyone with an old copy and the root key can still decrypt it."
)
"""Note in every attestation: the limits of deletion."""

_FILES: Final = (
    " A file that could not be overwritten, or has another hard link, was only removed."
)
"""Additional note if files are overwritten; written before that."""

_MOST_LISTED: Final = 256
"""Most versions whose blobs a record lists one by one."""

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


class Purger(Journal):
    """
    Purges material; the journal of purges, in the retention ledger.

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
        super().__init__(ledger.log, threading.RLock())
        self._inventory = inventory
        self._ledger = ledger
        self._execute = execute
        self._entropy = entropy
        self._method = method
        self._is_ripe: Callable[[KeyDocument, str], bool] = lambda *_: False
        self._unanchored = set[str]()
        for event in ledger.log.open_intents():
            if event.kind == PURGE_KIND:
                self.doubt(intent_of(event))

    # The three questions

    def decided(self, intent: AuditDraft) -> bool | None:
        """Return whether the key has the tombstone; None if it will be purged yet."""
        key_id = KeyId(intent.key_id)
        try:
            document = self._inventory.document(key_id)
        except KeyNotFoundError:
            return False
        except HSMError:
            if self._inventory.integrity(key_id) is Integrity.OK:
                raise
            return None  # It can't be told before the key is recovered.
        material_id = _material_of(intent)
        if any(stone.material_id == material_id for stone in document.tombstones):
            return True
        return None if self._is_ripe(document, material_id) else False

    def forbid(self, intent: AuditDraft) -> bool:
        """Do nothing: `lock` is held, and no purge is running."""
        return True

    def finish(self, intent: AuditDraft, *, committed: bool) -> AuditDraft:
        """
        Return the attestation of a purge, once all of its material is gone.

        Raises:
            StoreUnavailableError: A sealed blob can't be deleted now.
        """
        material_id = _material_of(intent)
        if not committed:
            return _outcome(intent, "aborted", {"material_id": material_id})
        document = self._inventory.document(KeyId(intent.key_id))
        self._inventory.discard_blobs(document)
        if self._inventory.materials.returned_blobs(document):
            raise StoreUnavailableError("A purged sealed blob can't be deleted.")
        (destroyed_at,) = (
            stone.destroyed_at
            for stone in document.tombstones
            if stone.material_id == material_id
        )
        return _outcome(
            intent,
            "ok",
            {
                "material_id": material_id,
                "destroyed_at": destroyed_at,
                "document_generation": document.generation,
                "method": self._method,
                "note": note_of(self._method),
            },
        )

    # Purges

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
        intent = self._find(candidate.document.key_id, candidate.material_id)
        if intent is not None and self.is_pending(intent.operation_id):
            # It was refused, which is not attested yet; this is another one.
            self._settle_purge(intent)
            intent = None
        if intent is None:
            intent = self._intent(candidate, approval, policy)
            self._begin(intent)
        else:
            self._resume(intent)
        try:
            self._execute(Request(_CALLER, purge_of(candidate)))
        except UnavailableError:
            raise  # The next sweep determines the outcome.
        except HSMError as error:
            told: Parameters = {"material_id": candidate.material_id}
            self.wait(self.conclude(_outcome(intent, code_of(error), told)))
            self._end(intent)
            raise
        failpoint("purge.after_mutation")
        if not self._settle_purge(intent):
            raise StoreUnavailableError("A purge can't be attested now.")

    def settle_purges(self, is_ripe: Callable[[KeyDocument, str], bool]) -> int:
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
        self._is_ripe = is_ripe
        failures = 0
        for intent in list(self.open.values()):
            try:
                self._settle_purge(intent)
            except HSMError:
                if not (self._inventory.store.available and self.is_usable):
                    raise
                failures += 1
        return failures

    def _settle_purge(self, intent: AuditDraft) -> bool:
        if self.is_appended(intent.operation_id):
            self._wait_for_all(reserved=True)
        if not self.settle_one(intent.operation_id):
            return False
        self._end(intent)
        return True

    def _find(self, key_id: str, material_id: str) -> AuditDraft | None:
        for intent in self.open.values():
            if (intent.key_id, _material_of(intent)) == (key_id, material_id):
                return intent
        return None

    def _begin(self, intent: AuditDraft) -> None:
        """Write the intent durably, and anchor it in the audit log."""
        self._ledger.check_usable()
        self._unanchored.add(intent.operation_id)
        self.begin(intent, rolls_forward=True)
        failpoint("purge.after_ledger_intent")
        self._ledger.anchor(intent)
        self._unanchored.discard(intent.operation_id)
        failpoint("purge.after_intent_anchor")

    def _resume(self, intent: AuditDraft) -> None:
        """Ensure that an open intent is durable, and anchored in the audit log."""
        self._ledger.check_usable()
        if intent.operation_id in self._unanchored:
            self._wait_for_all(reserved=False)
        self._ledger.anchor(intent)
        self._unanchored.discard(intent.operation_id)

    def _wait_for_all(self, *, reserved: bool) -> None:
        """Wait until all that was appended to the ledger is durable."""
        draft = AuditDraft(phase=Phase.SINGLE, kind="system.resumed")
        self.wait(self.log.append([draft], durable=True, reserved=reserved))

    def _end(self, intent: AuditDraft) -> None:
        """Anchor a durable outcome in the audit log."""
        self.close(intent.operation_id)
        failpoint("purge.after_ledger_outcome")
        self._ledger.anchor(intent)
        failpoint("purge.after_outcome_anchor")

    def _intent(
        self, candidate: Candidate, approval: Approval, policy: str
    ) -> AuditDraft:
        document = candidate.document
        agreed = [
            f"{d.principal} {d.at} {d.credential_id}".rstrip()
            for d in approval.decisions
            if d.counts
        ]
        parameters: Parameters = {
            "material_id": candidate.material_id,
            "versions": [str(number) for number in candidate.numbers],
            **self._blob_facts(candidate),
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
        return AuditDraft(
            phase=Phase.INTENT,
            kind=PURGE_KIND,
            operation_id=self._entropy.random_bytes(16).hex(),
            key_id=document.key_id,
            version=candidate.newest.version,
            caller=audited_caller(_CALLER),
            parameters=parameters,
            policy=policy,
        )

    def _blob_facts(self, candidate: Candidate) -> Parameters:
        """Return digests and lengths of all blobs; of many blobs, one digest."""
        key_id, versions = candidate.document.key_id, candidate.versions
        digests = [v.blob_sha256 for v in versions]
        blobs = (self._inventory.store.get_blob(key_id, v.version) for v in versions)
        sizes = [str(len(blob or b"")) for blob in blobs]
        if len(versions) <= _MOST_LISTED:
            return {"blob_sha256": digests, "blob_bytes": sizes}
        lines = zip(candidate.numbers, digests, sizes, strict=True)
        text = "".join(f"{number} {digest} {size}\n" for number, digest, size in lines)
        return {"blobs_sha256": hashlib.sha256(text.encode()).hexdigest()}


def _material_of(intent: AuditDraft) -> str:
    return str(intent.parameters.get("material_id", ""))


def _outcome(intent: AuditDraft, code: str, parameters: Parameters) -> AuditDraft:
    return replace(intent, phase=Phase.OUTCOME, code=code, parameters=parameters)
