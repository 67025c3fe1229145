# SPDX-License-Identifier: MIT
"""Client certificate conditions of a policy file."""

from __future__ import annotations

import re
from typing import Final

from hsm_core._policies.texts import Path, policy_fault

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_ALTERNATIVE_NAMES: Final = ("dns:", "email:", "ip:", "uri:")


def read_certificates(names: tuple[str, ...], path: Path) -> frozenset[str]:
    """
    Return fingerprints in lower case, without colons.

    Raises:
        InvalidInputError: One is none.
    """
    found = set()
    for number, name in enumerate(names):
        plain = plain_fingerprint(name)
        if _SHA256.fullmatch(plain) is None:
            raise policy_fault(
                "A SHA-256 fingerprint must be 64 hex digits.",
                (*path, number),
            )
        found.add(plain)
    return frozenset(found)


def plain_fingerprint(name: str) -> str:
    """Return a fingerprint as it is compared: in lower case, without colons."""
    return name.replace(":", "").lower()


def check_alternative_name(name: str, path: Path) -> None:
    """
    Check that an alternative name says of which kind it is.

    Raises:
        InvalidInputError: It does not.
    """
    if not name.startswith(_ALTERNATIVE_NAMES):
        raise policy_fault(
            f"A certificate name must begin with {', '.join(_ALTERNATIVE_NAMES)}.", path
        )
