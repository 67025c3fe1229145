# SPDX-License-Identifier: MIT
"""Whether what somebody agreed with is still a credential that counts."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection

from hsm_core.model import ApprovalDecision, Caller
from hsm_core.protocols import CredentialKeys

__all__ = ["CredentialCheck"]


class CredentialCheck:
    """
    Remembers with each decision which key has vouched for its credential.

    Args:
        keys: Those that count now; None where who calls knows whom to trust.

        digest: Keyed digest of a name, hex: what is stored is to be no means to try
            whether a guessed key is right.

        besides: Returns names that count besides *keys*.
    """

    def __init__(
        self,
        keys: CredentialKeys | None,
        digest: Callable[[str], str],
        besides: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._keys = keys
        self._digest = digest
        self._besides = besides

    def mark(self, caller: Caller) -> str:
        """Return what is kept of the key; empty where none is known."""
        return self._digest(caller.credential_key) if caller.credential_key else ""

    def trusts(self, decision: ApprovalDecision) -> bool:
        """Return whether that key is still one of those that count."""
        if self._keys is None:
            return True
        kept = decision.credential_key.encode()
        names = (*self._keys.trusted(), *self._besides())
        trusted = [self._digest(name).encode() for name in names]
        return any(hmac.compare_digest(kept, mark) for mark in trusted)
