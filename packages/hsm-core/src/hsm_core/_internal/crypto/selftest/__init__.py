# SPDX-License-Identifier: MIT
"""
Self-tests: known answers before first use, pairwise consistency of every key kept.

Standard:
    FIPS 140-3 implementation guidance, 10.3.A (known answers); ISO/IEC 19790:2012,
    section 7.10.3.3 (pairwise consistency).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hsm_core._internal.crypto.selftest import families
from hsm_core._internal.crypto.selftest.cases import Case, Pair, failure, known_answers
from hsm_core.algorithms import Algorithm, Family, spec
from hsm_core.errors import UnavailableError
from hsm_core.protocols import CryptoProvider

_TESTS: Final[dict[Family, tuple[Callable[[Case], None], Callable[[Pair], None]]]] = {
    Family.AEAD: (families.check_aead, families.pair_aead),
    Family.RSA: (families.check_rsa, families.pair_rsa),
    Family.ECDSA: (families.check_ecdsa, families.pair_curve),
    Family.EDDSA: (families.check_eddsa, families.sign_and_verify),
    Family.ECDH: (families.check_agreement, families.pair_agreement),
    Family.AES: (families.check_aes, families.pair_aes),
    Family.MAC: (families.check_mac, families.pair_mac),
    Family.KEY_WRAP: (families.check_wrap, families.pair_wrap),
    Family.KDF: (families.check_derivation, families.pair_derivation),
    Family.ML_KEM: (families.check_ml_kem, families.pair_kem),
    Family.ML_DSA: (families.check_ml_dsa, families.pair_ml_dsa),
    Family.SLH_DSA: (families.check_slh_dsa, families.sign_and_verify),
    Family.COMPOSITE_KEM: (families.check_composite_kem, families.pair_kem),
    Family.COMPOSITE_SIGNATURE: (
        families.check_composite_signature,
        families.sign_and_verify,
    ),
}
"""By family: what is compared with known answers, and how the halves of a key are."""


def known_answer_test(algorithm: Algorithm, provider: CryptoProvider) -> None:
    """
    Compare what a provider computes with published results.

    Every direction is run, and every check is also given something wrong, which it
    must refuse.

    Raises:
        SelfTestFailedError: An answer is another; the reason says which.
        UnavailableError: It can't be run now, as without healthy randomness.
    """
    test, _ = _TESTS[spec(algorithm).family]
    _run(algorithm, lambda: test(Case(algorithm, provider, known_answers(algorithm))))


def known_verification_test(algorithm: Algorithm, provider: CryptoProvider) -> None:
    """
    Verify a known signature of an algorithm that signs slowly; a part of the whole.

    Raises:
        SelfTestFailedError: As `known_answer_test`.
    """
    _run(
        algorithm,
        lambda: families.check_known_signature(
            Case(algorithm, provider, known_answers(algorithm))
        ),
    )


def pairwise_consistency_test(
    algorithm: Algorithm,
    provider: CryptoProvider,
    material: bytes,
    *,
    agrees: bool = True,
) -> bytes:
    """
    Check that the halves of a new key belong together.

    A signature must verify, a ciphertext decrypt and an encapsulation give the same
    secret; a MAC or a derived key must be what the standard library computes. What the
    key will never be used for need not be tested.

    Args:
        algorithm: Of the key.

        provider: Computes it.

        material: The key.

        agrees: Whether it may agree on a secret, where it can do other things too.

    Returns:
        SubjectPublicKeyInfo, DER; empty for a symmetric key.

    Raises:
        SelfTestFailedError: They don't belong together.
        UnavailableError: It can't be tested now.
    """
    public_der = b""

    def test() -> None:
        nonlocal public_der
        private = provider.load(algorithm, material)
        public_der = private.public_der()
        public = provider.load_public(algorithm, public_der) if public_der else private
        _, pairwise = _TESTS[spec(algorithm).family]
        known = known_answers(algorithm)
        pairwise(Pair(provider, private, public, material, known, agrees))

    _run(algorithm, test)
    return public_der


def _run(algorithm: Algorithm, test: Callable[[], None]) -> None:
    """Run a test; whatever goes wrong in it is its failure, but for a shortage."""
    try:
        test()
    except (UnavailableError, MemoryError):
        raise
    except OSError as error:
        # As where the process has no file descriptors left to read the known answers.
        raise UnavailableError(f"{algorithm} can't be tested now.") from error
    except Exception as error:
        raise failure(algorithm, f"raised {type(error).__name__}") from error
