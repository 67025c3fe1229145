# SPDX-License-Identifier: MIT
"""Dual control: asking for consent, giving it, and using it once, all on record."""

from hsm_core._internal.consents.care import Care
from hsm_core._internal.consents.consents import Asked, Consents
from hsm_core._internal.consents.opening import open_consents
from hsm_core._internal.consents.people import People
from hsm_core._internal.consents.signing import SignatureCheck, signature_check
from hsm_core._internal.consents.steps import Steps
from hsm_core._internal.consents.using import Hold, Users, step_of

__all__ = [
    "Asked",
    "Care",
    "Consents",
    "Hold",
    "People",
    "SignatureCheck",
    "Steps",
    "Users",
    "open_consents",
    "signature_check",
    "step_of",
]
