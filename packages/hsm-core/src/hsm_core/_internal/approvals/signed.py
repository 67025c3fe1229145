# SPDX-License-Identifier: MIT
"""
Signed consents in the trail: written there, and checked by whoever reads it.

A consent is one line of text, ``DIGEST SIGNATURE PRINCIPAL``: the digest of what was
shown in hex, the signature in base64, and who signed. Its record says which approval it
is about.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from hsm_core._internal.approvals.signatures import verify_consent
from hsm_core.approver_keys import ApproverKeys
from hsm_core.consent import statement
from hsm_core.errors import (
    AuditTamperedError,
    InvalidInputError,
    SignatureMismatchError,
)
from hsm_core.identities import identity, same_person
from hsm_core.model import AuditEvent

__all__ = ["ConsentAudit", "check_consent", "consent_text"]

_TEXT: Final = re.compile(r"([0-9a-f]{64}) ([A-Za-z0-9+/]+={0,2}) (.+)")
_APPROVE: Final = "Approve"
_REASON: Final = "approval_signature"


def consent_text(principal: str, digest: str, signature: bytes) -> str:
    """
    Return what the trail keeps of a signed consent.

    Args:
        principal: Who signed.

        digest: `hsm_core.consent.shown_sha256` of what they were shown.

        signature: As they sent it.
    """
    return f"{digest} {base64.b64encode(signature).decode()} {principal}"


def check_consent(
    keys: ApproverKeys,
    principal: str,
    signature: bytes,
    *,
    approval_id: str,
    digest: str,
) -> str:
    """
    Check the signature of somebody who agrees.

    Returns:
        Fingerprint of the key that made it.

    Raises:
        SignatureMismatchError: It was made by none of their keys, or over something
            else.
        InvalidInputError: It is in no form that a signature has.
    """
    message = statement(approval_id, digest, granted=True)
    key = verify_consent(signature, message, keys.get(identity(principal), ()))
    return key.fingerprint


class ConsentAudit:
    """
    Checks every signed consent of a trail.

    Args:
        keys: Of everybody who has ever signed one.
    """

    def __init__(self, keys: ApproverKeys) -> None:
        self._keys = keys
        self._counts: dict[int, int] = {}

    @property
    def checked(self) -> int:
        """How many consents were checked."""
        return sum(self._counts.values())

    def look(self, event: AuditEvent) -> None:
        """
        Check the consents of one record; the record itself was checked before.

        Raises:
            AuditTamperedError: A consent is in no form, or its signature is not one of
                that person over that approval; or a record of somebody who agrees holds
                the consent of another. ``facts`` name ``seq`` and ``reason``.
        """
        for text in event.approval_signatures:
            self._check(event, text)
        if event.approval_signatures:
            self._counts[event.seq] = len(event.approval_signatures)

    def _check(self, event: AuditEvent, text: str) -> None:
        parts = _TEXT.fullmatch(text)
        if parts is None:
            raise _wrong(event, "it is in no form that one has")
        digest, encoded, principal = parts.groups()
        caller = event.caller.principal if event.caller else ""
        if event.kind == _APPROVE and not same_person(caller, principal):
            raise _wrong(event, "it is another person's")
        try:
            signature = base64.b64decode(encoded, validate=True)
            check_consent(
                self._keys,
                principal,
                signature,
                approval_id=event.approval_id,
                digest=digest,
            )
        except (binascii.Error, InvalidInputError, SignatureMismatchError):
            known = identity(principal) in self._keys
            raise _wrong(
                event,
                "it does not match a key of this person"
                if known
                else "no key of this person is given",
            ) from None


def _wrong(event: AuditEvent, why: str) -> AuditTamperedError:
    return AuditTamperedError(
        f"Record {event.seq} holds a signed consent that is not good: {why}.",
        seq=event.seq,
        reason=_REASON,
    )
