# SPDX-License-Identifier: MIT
"""
Cases of the self-tests: shipped known answers, and expectations on a provider.

Known answers are those of NIST, the RFCs, the drafts and Wycheproof; each names its
source in ``known_answers.json``, and a test compares the file with these sources.
Signatures of SLH-DSA are long, so they are in ``slh_dsa_signatures.bin``, one after the
other in the order of the table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Final

from hsm_core.algorithms import ALGORITHMS, Algorithm, Family
from hsm_core.errors import SelfTestFailedError, SignatureMismatchError
from hsm_core.protocols import CryptoProvider, KeyHandle, SignatureParameters

MESSAGE: Final = b"pairwise consistency test"
_SIGNATURES: Final = "slh_dsa_signatures.bin"


def known_answers(algorithm: Algorithm) -> Mapping[str, bytes]:
    """Return the known answers of an algorithm by name."""
    answers = _answers()[algorithm]
    if ALGORITHMS[algorithm].family is not Family.SLH_DSA:
        return answers
    return {**answers, "signature": _slh_dsa_signatures()[algorithm]}


@cache
def _answers() -> dict[str, dict[str, bytes]]:
    text = files(__package__).joinpath("known_answers.json").read_text("utf-8")
    return {
        algorithm: {
            name: bytes.fromhex(value)
            for name, value in answers.items()
            if name != "source"
        }
        for algorithm, answers in json.loads(text).items()
    }


@cache
def _slh_dsa_signatures() -> dict[Algorithm, bytes]:
    data = files(__package__).joinpath(_SIGNATURES).read_bytes()
    signatures, start = {}, 0
    for algorithm, row in ALGORITHMS.items():
        if row.family is Family.SLH_DSA:
            signatures[algorithm] = data[start : start + row.signature_bytes]
            start += row.signature_bytes
    return signatures


@dataclass(frozen=True, slots=True)
class Case:
    """Test case: an algorithm, its provider, and the known answers."""

    algorithm: Algorithm
    provider: CryptoProvider
    known: Mapping[str, bytes] = field(repr=False)

    def private(self) -> KeyHandle:
        """Load the known private key."""
        return self.provider.load(self.algorithm, self.known["key"])

    def public(self) -> KeyHandle:
        """Load the known public key."""
        return self.provider.load_public(self.algorithm, self.known["public_key"])

    def expect(self, name: str, computed: bytes) -> None:
        """Fail unless a result is the known one of this name."""
        expect(
            self.algorithm, name.replace("_", " "), holds=computed == self.known[name]
        )


@dataclass(frozen=True, slots=True)
class Pair:
    """
    Both halves of a new key.

    Attributes:
        public: Of a symmetric key the same as *private*.
        known: Of the known answers of its algorithm.
        agrees: Whether it may agree on a secret, where it can do other things too.
    """

    provider: CryptoProvider
    private: KeyHandle
    public: KeyHandle
    material: bytes = field(repr=False)
    known: Mapping[str, bytes] = field(repr=False)
    agrees: bool = True

    @property
    def algorithm(self) -> Algorithm:
        """The key's algorithm."""
        return self.private.algorithm

    def expect(self, *, holds: bool) -> None:
        """Fail unless the halves belong together."""
        expect(self.algorithm, "pairwise consistency", holds=holds)


def failure(algorithm: Algorithm, reason: str) -> SelfTestFailedError:
    """Return the failure of an algorithm."""
    return SelfTestFailedError(
        f"The self-test of {algorithm} failed: {reason}.",
        algorithm=algorithm.value,
        reason=reason,
    )


def expect(algorithm: Algorithm, what: str, *, holds: bool) -> None:
    """
    Fail unless a condition holds.

    Raises:
        SelfTestFailedError: It doesn't.
    """
    if not holds:
        raise failure(algorithm, f"wrong {what}")


def altered(value: bytes, position: int = -1) -> bytes:
    """Return *value* with one bit flipped."""
    changed = bytearray(value)
    changed[position] ^= 1
    return bytes(changed)


def expect_signature(
    handle: KeyHandle,
    message: bytes,
    signature: bytes,
    parameters: SignatureParameters,
) -> None:
    """Verify a right signature, and see that it is wrong for another message."""
    handle.verify(message, signature, parameters)
    expect_mismatch(handle, altered(message), signature, parameters)


def expect_mismatch(
    handle: KeyHandle,
    message: bytes,
    signature: bytes,
    parameters: SignatureParameters,
) -> None:
    """Check that a wrong signature is rejected."""
    try:
        handle.verify(message, signature, parameters)
    except SignatureMismatchError:
        return
    raise failure(handle.algorithm, "accepted a wrong signature")
