# SPDX-License-Identifier: MIT
"""What a trail says of each key: the state after its last change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from hsm_core.model import AuditEvent, KeyId, Phase
from hsm_core.protocols import KnownKey

ACCEPTED: Final = "system.key-accepted"
"""Kind of the records that say which keys were accepted as they are."""

_ASKED: Final = "DestroyKey"
_COMPLETED: Final = "CompleteDestruction"
_COMMITTED: Final = frozenset({"ok", "recovered-committed"})


class KnownKeys:
    """
    The last state of each key, gathered from events in their order.

    Of a key that was destroyed and then forgotten, that it was destroyed stays known:
    with generation 0 and no digest, as nothing of it should be there.

    Args:
        before: What is known from records before them.
    """

    def __init__(self, before: Iterable[KnownKey] = ()) -> None:
        self._keys = {known.key_id: known for known in before}

    def note(self, event: AuditEvent) -> bool:
        """Take one event into account, and return whether a key was changed by it."""
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
        """Walk the keys by id."""
        return iter([self._keys[key_id] for key_id in sorted(self._keys)])


def _destroys(event: AuditEvent) -> bool:
    """Return whether a change ended its key, and did not only say when it will end."""
    if event.kind == _ASKED:
        return not event.parameters.get("waiting_days", 0)
    return event.kind == _COMPLETED
