# SPDX-License-Identifier: MIT
"""Dual control: asking for consent, giving it, and using it once, all on record."""

from hsm_core._internal.consents.care import Care
from hsm_core._internal.consents.consents import Asked, Consents
from hsm_core._internal.consents.dual_control import DualControl, open_dual_control
from hsm_core._internal.consents.signing import SignatureCheck, signature_check
from hsm_core._internal.consents.using import Hold

__all__ = [
    "Asked",
    "Care",
    "Consents",
    "DualControl",
    "Hold",
    "SignatureCheck",
    "open_dual_control",
    "signature_check",
]
