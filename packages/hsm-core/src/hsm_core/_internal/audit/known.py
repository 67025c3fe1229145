# SPDX-License-Identifier: MIT
"""Known keys: the recorded state of each key after its last change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from hsm_core.model import AuditEvent, KeyId, Phase
from hsm_core.protocols import KnownKey

ACCEPTED: Final = "system.key-accepted"
"""Record kind of keys accepted in their stored state."""

_ASKED: Final = "DestroyKey"
_COMPLETED: Final = "CompleteDestruction"
_COMMITTED: Final = frozenset({"ok", "recovered-committed"})


class KnownKeys:
    """
    Last recorded state of each key, collected from events in order.

    A destroyed key that the store no longer holds stays known as destroyed, with
    generation 0 and no digest.

    Args:
        before: Known keys from earlier records.
    """

    def __init__(self, before: Iterable[KnownKey] = ()) -> None:
        self._keys = {known.key_id: known for known in before}

    def note(self, event: AuditEvent) -> bool:
        """Update the state with one event, and return whether it changed a key."""
        key_id = KeyId(event.key_id)
        accepted = event.kind == ACCEPTED
        if accepted and not event.document_after:
            self._forget(key_id)
            return True
        committed = event.phase is Phase.OUTCOME and event.code in _COMMITTED
        changed = bool(event.document_after) and (committed or accepted)
        if changed:
            before = self._keys.get(key_id)
            # What was destroyed stays so, even if an older document is accepted.
            destroyed = _destroys(event) or bool(before and before.destroyed)
            self._keys[key_id] = KnownKey(
                key_id, event.generation, event.document_after, destroyed
            )
        return changed

    def _forget(self, key_id: KeyId) -> None:
        before = self._keys.pop(key_id, None)
        if before is not None and before.destroyed:
            self._keys[key_id] = KnownKey(key_id, 0, "", destroyed=True)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[KnownKey]:
        """Iterate over the keys by id."""
        return iter([self._keys[key_id] for key_id in sorted(self._keys)])


def _destroys(event: AuditEvent) -> bool:
    """Return whether a change destroyed its key, rather than scheduling that."""
    if event.kind == _ASKED:
        return not event.parameters.get("waiting_days", 0)
    return event.kind == _COMPLETED
