# SPDX-License-Identifier: MIT
"""Credentials of approvers: whether they still count, and the roles they give now."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence

from hsm_core._policies.known_people import KnownPerson
from hsm_core.identities import same_person
from hsm_core.model import ApprovalDecision, Caller, Role
from hsm_core.protocols import CredentialKeys


class CredentialCheck:
    """
    Remembers with each decision which key has vouched for its credential.

    Args:
        keys: Those that count now; None where who calls knows whom to trust.

        digest: Keyed digest of a name, hex: what is stored is to be no means to try
            whether a guessed key is right.

        people: Returns the people whom certificates alone name now.
    """

    def __init__(
        self,
        keys: CredentialKeys | None,
        digest: Callable[[str], str],
        people: Callable[[], Sequence[KnownPerson]] = tuple,
    ) -> None:
        self._keys = keys
        self._digest = digest
        self._people = people

    def mark(self, caller: Caller) -> str:
        """Return what is kept of the key; empty where none is known."""
        return self._digest(caller.credential_key) if caller.credential_key else ""

    def trusts(self, decision: ApprovalDecision) -> bool:
        """Return whether that key is still one of those that count."""
        if self._keys is None:
            return True
        names = (
            *self._keys.trusted(),
            *(person.credential_key for person in self._people()),
        )
        return any(self._is_marked(decision, name) for name in names)

    def roles(self, decision: ApprovalDecision) -> frozenset[Role]:
        """
        Return the roles that a decision was made with and that its author still has.

        A token says itself what its roles are. Where a certificate said who it was, the
        policy in force says it.
        """
        held = frozenset(decision.roles)
        for person in self._people():
            if self._is_marked(decision, person.credential_key) or (
                not decision.credential_key
                and same_person(decision.principal, person.principal)
            ):
                return held & person.roles
        return held

    def _is_marked(self, decision: ApprovalDecision, name: str) -> bool:
        kept = decision.credential_key.encode()
        return hmac.compare_digest(kept, self._digest(name).encode())
