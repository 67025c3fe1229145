# SPDX-License-Identifier: MIT
"""
Signed approvals in the audit log, verified by its readers.

The record of an `Approve` or `Deny` names the approval, who decided and the digest of
what they were shown; ``approval_signatures`` holds one line of text, ``KEY SIGNATURE``:
the fingerprint of the key, and the signature in base64.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from hsm_core._internal.approvals.signatures import verify_consent
from hsm_core.approver_keys import ApproverKey, ApproverKeys
from hsm_core.consent import statement
from hsm_core.errors import (
    AuditTamperedError,
    InvalidInputError,
    SignatureMismatchError,
)
from hsm_core.identities import identity
from hsm_core.model import AuditEvent

CONSENT_DIGEST: Final = "shown_sha256"
"""Parameter that holds the digest of the operation as shown to an approver."""

_TEXT: Final = re.compile(r"(SHA256:[A-Za-z0-9+/]{43}) ([A-Za-z0-9+/]+={0,2})")
_IS_GRANT: Final = {"Approve": True, "Deny": False}
_REASON: Final = "approval_signature"


def consent_text(signer: str, signature: bytes) -> str:
    """Return what the trail keeps of a signature: key and signature."""
    return f"{signer} {base64.b64encode(signature).decode()}"


class ConsentAudit:
    """
    Checks every signed consent of a trail.

    Args:
        keys: Of everybody who has ever signed one.
    """

    def __init__(self, keys: ApproverKeys) -> None:
        self._keys = keys
        self._seen: set[tuple[str, str]] = set()

    @property
    def checked(self) -> int:
        """How many signatures were checked; intent and outcome have the same one."""
        return len(self._seen)

    def look(self, event: AuditEvent) -> None:
        """
        Check the signatures of one record; the record itself was checked before.

        Raises:
            AuditTamperedError: A signature is malformed, or was not made by a key of
                the approver. ``facts`` name ``seq`` and ``reason``.
        """
        if not event.approval_signatures:
            return
        if event.kind not in _IS_GRANT or event.caller is None:
            raise _wrong(event, "the record is no decision")
        keys = self._keys.get(identity(event.caller.principal), ())
        for text in event.approval_signatures:
            self._check(event, keys, text)
            self._seen.add((event.approval_id, text))

    def _check(
        self, event: AuditEvent, keys: tuple[ApproverKey, ...], text: str
    ) -> None:
        parts = _TEXT.fullmatch(text)
        if parts is None:
            raise _wrong(event, "malformed")
        signers = [key for key in keys if key.fingerprint == parts[1]]
        if not signers:
            raise _wrong(event, f"key {parts[1]} is not registered for this approver")
        digest = str(event.parameters.get(CONSENT_DIGEST, ""))
        granted = _IS_GRANT[event.kind]
        try:
            message = statement(event.approval_id, digest, granted=granted)
            signature = base64.b64decode(parts[2], validate=True)
            verify_consent(signature, message, signers)
        except (binascii.Error, InvalidInputError, SignatureMismatchError):
            raise _wrong(event, "it does not verify over this approval") from None


def _wrong(event: AuditEvent, why: str) -> AuditTamperedError:
    return AuditTamperedError(
        f"Audit record {event.seq} holds an invalid approver signature: {why}.",
        seq=event.seq,
        reason=_REASON,
    )
