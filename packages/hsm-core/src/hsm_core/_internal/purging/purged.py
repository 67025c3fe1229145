# SPDX-License-Identifier: MIT
"""Which material was purged, as a ledger tells it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import partial

from hsm_core._internal.audit.events import verified_events
from hsm_core._internal.audit.ranges import verify_range
from hsm_core._internal.purging.ledger import PURGE_KIND
from hsm_core.errors import AuditTamperedError
from hsm_core.model import AuditEvent, KeyId, Phase
from hsm_core.protocols import AuditLog

__all__ = ["purged_materials"]


def purged_materials(
    log: AuditLog, hmac_key: bytes, done: Collection[tuple[KeyId, int]]
) -> Mapping[KeyId, set[str]]:
    """
    Return the material of each key that was purged.

    A ledger that is damaged is believed up to there.

    Args:
        log: The ledger.

        hmac_key: Its key.

        done: Purges that the trail knows: the key, and the newest version of the
            material. Those whose outcome the ledger lacks are told by them.

    Raises:
        AuditUnavailableError: It can't be read now.
    """
    found, begun = defaultdict[KeyId, set[str]](set), dict[str, AuditEvent]()
    with suppress(AuditTamperedError):
        for event in verified_events(log, partial(verify_range, log, hmac_key), 0):
            if event.kind != PURGE_KIND:
                continue
            if event.phase is Phase.INTENT:
                begun[event.operation_id] = event
                continue
            begun.pop(event.operation_id, None)
            if event.code == "ok":
                found[KeyId(event.key_id)].add(_material_of(event))
    for event in begun.values():
        if (KeyId(event.key_id), event.version) in done:
            found[KeyId(event.key_id)].add(_material_of(event))
    return found


def _material_of(event: AuditEvent) -> str:
    return str(event.parameters.get("material_id", ""))
