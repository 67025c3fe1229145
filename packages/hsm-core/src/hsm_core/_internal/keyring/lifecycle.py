# SPDX-License-Identifier: MIT
"""
Key version states: allowed transitions, and the operations of each state.

Two tables decide; no other code does.
"""

from __future__ import annotations

from typing import Final

from hsm_core.errors import KeyStateError
from hsm_core.model import KeyState

_S: Final = KeyState

MOVES: Final[dict[KeyState, frozenset[KeyState]]] = {
    _S.STAGED: frozenset({_S.ACTIVE, _S.REVOKED, _S.PURGE_SCHEDULED, _S.DESTROYED}),
    _S.ACTIVE: frozenset({_S.RETIRED, _S.SUSPENDED, _S.REVOKED}),
    _S.RETIRED: frozenset({_S.REVOKED, _S.PURGE_SCHEDULED}),
    _S.SUSPENDED: frozenset({_S.ACTIVE, _S.REVOKED}),
    _S.REVOKED: frozenset({_S.PURGE_SCHEDULED}),
    _S.PURGE_SCHEDULED: frozenset(
        {_S.STAGED, _S.ACTIVE, _S.SUSPENDED, _S.RETIRED, _S.REVOKED, _S.DESTROYED}
    ),
    _S.DESTROYED: frozenset(),
}
"""
Allowed transitions of each state (SP 800-57 part 1, section 7).

purge_scheduled returns only to the state it came from, an argument of `check_move`.
When a whole key is scheduled for destruction, active and suspended versions are retired
first, and return to the state before that.
"""

_PROTECT: Final = frozenset(
    {
        "ComputeMac",
        "Encapsulate",
        "Encrypt",
        "GenerateDataKey",
        "Seal",
        "Sign",
        "derive",
        "wrap",
    }
)
_PROCESS: Final = frozenset(
    {
        "Decapsulate",
        "Decrypt",
        "ExportKey",
        "Open",
        "Rewrap",
        "Verify",
        "VerifyMac",
        "unwrap",
    }
)
_PUBLIC: Final = frozenset({"GetPublicKey"})

PERMITTED: Final[dict[KeyState, frozenset[str]]] = {
    _S.STAGED: _PUBLIC,
    _S.ACTIVE: _PROTECT | _PROCESS | _PUBLIC,
    _S.RETIRED: _PROCESS | _PUBLIC,
    _S.SUSPENDED: _PUBLIC,
    _S.REVOKED: frozenset(),
    _S.PURGE_SCHEDULED: frozenset(),
    _S.DESTROYED: frozenset(),
}
"""
Permitted uses of a version by state (SP 800-57 part 1, section 7): operations on its
key, and usages of a key that an operation on another key names.
"""

REVOKED_BY_POLICY: Final = frozenset({"Verify", "VerifyMac", "GetPublicKey"})
"""The only operations that a policy may allow for a revoked version."""


def check_move(
    before: KeyState, after: KeyState, *, came_from: KeyState | None = None
) -> None:
    """
    Check one state transition of a version.

    Args:
        before: Present state.

        after: State wanted.

        came_from: The state before purge_scheduled, the only one to go back to.

    Raises:
        KeyStateError: The transition is not allowed.
    """
    back = before is _S.PURGE_SCHEDULED and after is not _S.DESTROYED
    if after not in MOVES[before] or (back and after is not came_from):
        raise KeyStateError(
            f"A version that is {before} can't become {after}.",
            state=before.value,
            wanted=after.value,
        )


def permits(state: KeyState, kind: str, *, revoked_allowed: bool) -> bool:
    """
    Return whether a version in *state* may serve *kind*.

    Args:
        state: State of the version.

        kind: Name of an operation, or a usage where the key is not its first.

        revoked_allowed: Whether the policy allows *kind* for revoked versions.
    """
    if state is _S.REVOKED:
        return revoked_allowed and kind in REVOKED_BY_POLICY
    return kind in PERMITTED[state]
