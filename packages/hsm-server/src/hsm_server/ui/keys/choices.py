# SPDX-License-Identifier: MIT
"""Algorithms to choose from, by what they are for, and what each choice means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from hsm_core.algorithms import ALGORITHMS, Algorithm, AlgorithmSpec, Cost, Family
from hsm_core.operations import AlgorithmInfo

_BROKEN: Final = "A quantum computer would break it."
CATEGORIES: Final = {
    0: _BROKEN,
    1: "At least as hard to break as AES-128, for a quantum computer too.",
    2: "At least as hard to break as finding a collision of SHA-256.",
    3: "At least as hard to break as AES-192, for a quantum computer too.",
    5: "At least as hard to break as AES-256, for a quantum computer too.",
}
"""NIST's security categories in words."""

_FAMILIES: Final = {
    Family.AEAD: "Encrypts data, and shows whether it was changed. Who encrypts can "
    "also decrypt.",
    Family.RSA: "Understood everywhere; signs, and encrypts or wraps what is short. "
    "Large keys, and slow to make.",
    Family.ECDSA: "Short signatures that most programs understand.",
    Family.EDDSA: "Short and fast signatures, with nothing to choose and so nothing "
    "to choose wrongly.",
    Family.ECDH: "Agrees with somebody else on a key, from which others are derived.",
    Family.MAC: "Shows that a message was not changed, to whoever has the same key.",
    Family.KEY_WRAP: "Wraps other keys, so that they can leave this HSM or enter it.",
    Family.KDF: "Other keys are derived from it.",
    Family.ML_KEM: "Encapsulates keys, and encrypts data, for whoever holds the "
    "private key. Made to withstand quantum computers.",
    Family.ML_DSA: "Fast signatures of a few kilobytes. Made to withstand quantum "
    "computers.",
    Family.SLH_DSA: "Signatures that rest on a hash function and on nothing else: the "
    "most cautious choice, large and slow.",
    Family.COMPOSITE_KEM: "A post-quantum and a traditional algorithm at once: it "
    "holds as long as one of the two does.",
    Family.COMPOSITE_SIGNATURE: "A post-quantum and a traditional signature at once: "
    "it can't be forged as long as one of the two holds.",
}

_PURPOSES: Final = (
    (
        "sign",
        "Sign",
        "Others check with the public key who has signed.",
        (
            *(Family.EDDSA, Family.ECDSA, Family.RSA, Family.ML_DSA),
            *(Family.COMPOSITE_SIGNATURE, Family.SLH_DSA),
        ),
    ),
    (
        "encrypt",
        "Encrypt data",
        "With a secret key that stays in the HSM.",
        (Family.AEAD,),
    ),
    (
        "encapsulate",
        "Receive secrets",
        "Others encrypt or encapsulate with the public key; only this HSM opens it.",
        (Family.ML_KEM, Family.COMPOSITE_KEM),
    ),
    (
        "authenticate",
        "Authenticate messages",
        "A code that is checked with the same key.",
        (Family.MAC,),
    ),
    (
        "derive",
        "Derive or agree on keys",
        "Each further key follows from this one.",
        (Family.KDF, Family.ECDH),
    ),
    (
        "wrap",
        "Wrap other keys",
        "For transport from one HSM to another.",
        (Family.KEY_WRAP,),
    ),
)

_ENOUGH_BITS: Final = 128
_USUAL: Final = frozenset(
    {
        Algorithm.AES_256_GCM,
        Algorithm.ED25519,
        Algorithm.ML_DSA_65,
        Algorithm.MLDSA65_ED25519_SHA512,
        Algorithm.ML_KEM_768,
        Algorithm.MLKEM768_X25519_SHA3_256,
        Algorithm.HMAC_SHA_256,
        Algorithm.HKDF_SHA_256,
        Algorithm.AES_256_KW,
    }
)
"""What to take where nothing else is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """
    One algorithm to choose.

    Attributes:
        category: Security category, or 0.
        sizes: What it costs in bytes, each a sentence's part.
        warning: What to mind, or empty.
        hint: Why it can't be chosen, or empty.
    """

    algorithm: str
    family: str
    explanation: str
    standard: str
    category: int
    category_sentence: str
    strength_bits: int
    sizes: tuple[str, ...]
    warning: str
    usages: tuple[str, ...]
    default_usages: tuple[str, ...]
    is_usual: bool
    is_hybrid: bool
    is_available: bool
    hint: str
    provider: str


@dataclass(frozen=True, slots=True)
class Kin:
    """The algorithms of one family, and what they have in common."""

    family: str
    explanation: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class Purpose:
    """What keys are for, and the families of algorithms for that."""

    name: str
    title: str
    explanation: str
    families: tuple[Kin, ...]


def category_sentence(category: int) -> str:
    """Return what a security category means."""
    return CATEGORIES[category]


def purposes(infos: Iterable[AlgorithmInfo]) -> Sequence[Purpose]:
    """Return every algorithm under what it is mainly for."""
    by_family: dict[str, list[Choice]] = {}
    for info in infos:
        by_family.setdefault(info.family, []).append(choice_of(info))
    return [
        Purpose(
            name,
            title,
            explanation,
            tuple(
                Kin(family.value, _FAMILIES[family], tuple(by_family[family.value]))
                for family in families
                if family.value in by_family
            ),
        )
        for name, title, explanation, families in _PURPOSES
    ]


def choice_of(info: AlgorithmInfo) -> Choice:
    """Return one algorithm with what is to be said of it."""
    row = ALGORITHMS[info.algorithm]
    return Choice(
        algorithm=info.algorithm.value,
        family=info.family,
        explanation=_FAMILIES[row.family],
        standard=info.standard,
        category=info.category,
        category_sentence=category_sentence(info.category),
        strength_bits=info.strength_bits,
        sizes=tuple(_sizes(row)),
        warning=_warning(row),
        usages=tuple(sorted(usage.value for usage in row.usages)),
        default_usages=tuple(sorted(usage.value for usage in row.default_usages)),
        is_usual=info.algorithm in _USUAL,
        is_hybrid=row.is_hybrid,
        is_available=info.status == "available",
        hint=_hint(info),
        provider=f"{info.provider} {info.provider_version}".strip(),
    )


def _sizes(row: AlgorithmSpec) -> Iterable[str]:
    modulus = row.modulus_bits // 8
    sizes = (
        ("key", row.key_bytes),
        ("public key", row.public_bytes or modulus),
        ("signature", row.signature_bytes),
        ("encapsulation", row.ciphertext_bytes),
        ("code", row.mac_bytes),
    )
    return (f"{what} {size:,} bytes" for what, size in sizes if size)


def _warning(row: AlgorithmSpec) -> str:
    if row.draft:
        return f"Defined by a draft, {row.draft}, whose revision is kept with the key."
    if row.strength_bits < _ENOUGH_BITS:
        return (
            f"{row.strength_bits} bits of strength: not for what must hold beyond 2030."
        )
    if row.use_cost is Cost.SLOW:
        return "A signature may take up to a second."
    if row.generate_cost is Cost.SLOW:
        return "Making a key may take seconds."
    return ""


def _hint(info: AlgorithmInfo) -> str:
    if info.status == "available":
        return ""
    if info.status == "stopped":
        return "Stopped: a self-test has failed."
    return info.hint or "Nothing here provides it."
