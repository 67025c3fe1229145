# SPDX-License-Identifier: MIT
"""Signature check against the approver keys of the policy in force."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from hsm_core._internal.approvals.signatures import verify_consent
from hsm_core._internal.policy import PolicyHolder
from hsm_core.approver_keys import ApproverKey, read_approver_key
from hsm_core.errors import InvalidInputError
from hsm_core.identities import identity

SignatureCheck: TypeAlias = Callable[[str, bytes, bytes, str], str]
"""
Verifies an approver's signature, given principal, statement, signature and key name.

Returns the fingerprint of the verifying key, or raises an `HSMError`.
"""


def signature_check(policy: PolicyHolder) -> SignatureCheck:
    """Return a check against the keys that the policy in force names for a person."""

    def check(principal: str, statement: bytes, signature: bytes, signer: str) -> str:
        keys = [
            key
            for key in _keys_of(policy, principal)
            if signer in {"", key.fingerprint}
        ]
        if not keys:
            raise InvalidInputError(
                "signature: the policy registers no such key for you.",
                field="signature",
            )
        return verify_consent(signature, statement, keys).fingerprint

    return check


def _keys_of(policy: PolicyHolder, principal: str) -> list[ApproverKey]:
    texts = policy.engine.policy.approver_keys.get(identity(principal), ())
    return list(map(read_approver_key, texts))
