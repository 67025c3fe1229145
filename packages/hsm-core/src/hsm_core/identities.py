# SPDX-License-Identifier: MIT
"""Identities: equivalence of principal names, reserved names, issuers of tokens."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from functools import lru_cache
from typing import Any, Final

from hsm_core.errors import InvalidInputError

__all__ = [
    "SYSTEM_PREFIX",
    "identity",
    "is_presentable",
    "is_reserved",
    "same_person",
    "shows_nothing",
    "token_issuer",
]

SYSTEM_PREFIX: Final = "system."
"""Prefix of names reserved for the HSM."""

_BLANK: Final = "\u2800"
"""BRAILLE PATTERN BLANK: a symbol that looks like a space."""

_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\ufe00-\ufe0f\uffa0"
    "\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
"""
Invisible characters that are not format characters (Default_Ignorable_Code_Point).
"""

_RESERVED: Final = frozenset({"system", "retention-scheduler", "unauthenticated"})


@lru_cache(maxsize=4096)
def identity(principal: str) -> str:
    """
    Return a form of a name that is the same for all names of one person.

    Case, compatibility forms (NFKC), characters that show nothing and spaces at the
    ends make no other person. Letters that only look alike do: who gives out names must
    keep them apart.
    """
    shown = _INVISIBLE.sub("", principal).replace(_BLANK, " ")
    shown = "".join(c for c in shown if unicodedata.category(c) != "Cf")
    folded = unicodedata.normalize("NFKC", shown).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def shows_nothing(text: str) -> bool:
    """Return whether a text has a character that nobody sees."""
    return (
        _INVISIBLE.search(text) is not None
        or _BLANK in text
        or any(unicodedata.category(c) == "Cf" for c in text)
    )


def is_presentable(name: str) -> bool:
    """
    Return whether a name is 1 to 128 characters that people can tell apart.

    Two names that look the same must be the same (NFC), nothing may be invisible, and
    no space may stand at an end.
    """
    return (
        1 <= len(name) <= 128
        and name.isprintable()
        and name == name.strip()
        and unicodedata.is_normalized("NFC", name)
        and not shows_nothing(name)
    )


def same_person(one: str, other: str) -> bool:
    """Return whether two principals may be one person."""
    return identity(one) == identity(other)


def is_reserved(principal: str) -> bool:
    """Return whether only the HSM itself acts under this name."""
    plain = identity(principal)
    return plain in _RESERVED or plain.startswith(SYSTEM_PREFIX)


_SPIFFE: Final = "spiffe:"
_SPIFFE_ID: Final = re.compile(
    r"(spiffe://[a-z0-9._-]{1,255})(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)+\Z"
)
_MOST_SPIFFE_BYTES: Final = 2048


def token_issuer(claims: Any, known: Collection[str]) -> str:
    """
    Return the known issuer that a token claims to be of, or an empty text.

    That is its ``iss``. A token of a SPIFFE trust domain need not have one, and if it
    does, it may be any: the trust domain of its ``sub`` is its issuer.

    Args:
        claims: Payload of the token, as a JSON value.

        known: Issuers, and SPIFFE trust domains as ``spiffe://NAME``.

    Raises:
        InvalidInputError: Its issuer is a trust domain, and its subject is not in it:
            no trust domain vouches for names of another one.

    Standard:
        SPIFFE JWT-SVID, section 3; SPIFFE ID, section 2.
    """
    if not isinstance(claims, dict):
        return ""
    issuer, subject = claims.get("iss"), claims.get("sub")
    domain = ""
    if isinstance(subject, str) and len(subject) <= _MOST_SPIFFE_BYTES:
        found = _SPIFFE_ID.match(subject)
        domain = found[1] if found is not None else ""
    if isinstance(issuer, str) and issuer in known:
        if issuer.startswith(_SPIFFE) and issuer != domain:
            raise InvalidInputError(
                "sub must be a SPIFFE ID of the trust domain in iss.",
                field="token_claims",
            )
        return issuer
    return domain if domain in known else ""
