# SPDX-License-Identifier: MIT
"""
Is this the store that the trail knows? Compared at every start.

The trail keeps a keyed digest over all keys; where every document can be read and no
intent is open, that one number decides. Where not, or where it differs, the trail is
walked from its beginning and each key is compared alone, so that neither a damaged
document nor a crash hides an older copy of another key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from hsm_core._internal.audit.events import verified_events
from hsm_core._internal.inventory import Inventory, Present
from hsm_core.errors import StoreMismatchError
from hsm_core.model import AuditEvent, KeyId, MessageDetail, Phase
from hsm_core.operations import AuditVerification
from hsm_core.protocols import AuditDraft, AuditLog

__all__ = ["ACCEPTED", "Difference", "compare", "refuse"]

ACCEPTED = "system.key-accepted"
"""Kind of the records that say which keys were accepted as they are."""

_COMMITTED = frozenset({"ok", "recovered-committed"})


@dataclass(frozen=True, slots=True)
class Difference:
    """A key that is not as the trail knows it; *present* is None if it is gone."""

    key_id: KeyId
    present: Present | None

    def draft(self, policy_hash: str) -> AuditDraft:
        """Return the record that accepts the key as it is."""
        found = self.present
        return AuditDraft(
            phase=Phase.SINGLE,
            kind=ACCEPTED,
            key_id=self.key_id,
            generation=found.generation if found else 0,
            document_after=found.digest if found else "",
            policy=policy_hash,
            detail=MessageDetail(text="accepted as it is" if found else "missing"),
        )


def compare(
    inventory: Inventory,
    present: Mapping[KeyId, Present],
    audit: AuditLog,
    verify: Callable[[int, int], AuditVerification],
) -> list[Difference]:
    """
    Return every key that is not as the trail knows it, unless it can't be read at all.

    What the trail knows of documents that can't be read is counted into the set digest,
    so that it is right again once they are put right.

    Args:
        inventory: Loaded.

        present: What loading found.

        audit: Open, before recovery.

        verify: Verifies a range of the trail.
    """
    known_digest, intents = audit.set_digest_at_open, audit.open_intents()
    if not known_digest:
        return []
    unreadable = inventory.unreadable
    if not unreadable and not intents and known_digest == inventory.set_digest:
        return []
    known = _known(verified_events(audit, verify))
    for key_id in unreadable & known.keys():
        inventory.count(key_id, known[key_id])
    open_ids = {intent.operation_id for intent in intents}
    return [
        Difference(key_id, present.get(key_id))
        for key_id in sorted((known.keys() | present.keys()) - unreadable)
        if not _agree(known.get(key_id), present.get(key_id), open_ids)
    ]


def refuse(differences: Iterable[Difference]) -> None:
    """
    Refuse a store that differs.

    Raises:
        StoreMismatchError: It does; the first key is named.
    """
    first = next(iter(differences), None)
    if first is not None:
        what = "is not the one that the trail knows" if first.present else "is missing"
        raise StoreMismatchError(
            f"The key store is not the one that the trail knows: key {first.key_id} "
            f"{what}. An older copy was put back, or keys were removed.",
            key_id=first.key_id,
        )


def _known(events: Iterable[AuditEvent]) -> dict[KeyId, Present]:
    found: dict[KeyId, Present] = {}
    for event in events:
        key_id = KeyId(event.key_id)
        committed = event.phase is Phase.OUTCOME and event.code in _COMMITTED
        if event.kind == ACCEPTED and not event.document_after:
            found.pop(key_id, None)
        elif event.document_after and (committed or event.kind == ACCEPTED):
            found[key_id] = Present(event.generation, event.document_after)
    return found


def _agree(known: Present | None, present: Present | None, open_ids: set[str]) -> bool:
    if present is None:
        return known is None
    if known is not None and known.digest == present.digest:
        return True
    # A change that was stored, and whose outcome a crash has swallowed.
    follows = present.generation == (known.generation if known else 0) + 1
    return follows and bool(open_ids & set(present.operations[-1:]))
