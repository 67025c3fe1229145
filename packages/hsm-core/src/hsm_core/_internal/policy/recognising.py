# SPDX-License-Identifier: MIT
"""Identification of callers by client certificate, under the policy in force."""

from __future__ import annotations

from hsm_core._internal.policy.holder import PolicyHolder
from hsm_core._policies.known_people import KnownPerson, person_of
from hsm_core.model import Caller, CertificateIdentity


class Recogniser:
    """
    Knows the people whom certificates name.

    Args:
        policy: What is in force.

        is_on: Whether a certificate alone names anybody.
    """

    def __init__(self, policy: PolicyHolder, *, is_on: bool) -> None:
        self._policy = policy
        self._is_on = is_on

    @property
    def asks_for_single_use(self) -> bool:
        """Whether a rule in force distinguishes tokens that were used."""
        return self._policy.engine.policy.asks_for_single_use

    def identify(self, caller: Caller) -> CertificateIdentity | None:
        """
        Return whom a caller's certificate names; None if nobody.

        Raises:
            AuthenticationError: It names several.
        """
        if not self._is_on:
            return None
        person = person_of(self.people(), caller)
        if person is None:
            return None
        return CertificateIdentity(
            principal=person.principal,
            roles=person.roles,
            credential_key=person.credential_key,
        )

    def people(self) -> tuple[KnownPerson, ...]:
        """Return the people whom certificates alone name now."""
        return self._policy.engine.policy.people if self._is_on else ()
