# SPDX-License-Identifier: MIT
"""
Certificate facts of callers in audit records, beyond id and fingerprint.

They are record parameters, like all facts that policy rules can match.
"""

from __future__ import annotations

from typing import Any, Final

from hsm_core.model import Caller, Parameters

_SUBJECT: Final = "caller_certificate_subject"
_NAMES: Final = "caller_certificate_names"
_SINGLE_USE: Final = "caller_single_use"


def audited_certificate(caller: Caller) -> Parameters:
    """Return the audit parameters for the caller's credentials."""
    found: Parameters = {}
    if caller.certificate_subject:
        found[_SUBJECT] = caller.certificate_subject
    if caller.certificate_names:
        found[_NAMES] = list(caller.certificate_names)
    if caller.single_use:
        found[_SINGLE_USE] = 1
    return found


def certificate_facts(parameters: Parameters) -> dict[str, Any]:
    """Return the same as fields of a `Caller` again."""
    subject, names = parameters.get(_SUBJECT, ""), parameters.get(_NAMES, [])
    found: dict[str, Any] = {}
    if isinstance(subject, str):
        found["certificate_subject"] = subject
    if isinstance(names, list):
        found["certificate_names"] = tuple(names)
    found["single_use"] = parameters.get(_SINGLE_USE) == 1
    return found
