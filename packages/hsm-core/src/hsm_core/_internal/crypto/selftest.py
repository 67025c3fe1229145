# SPDX-License-Identifier: MIT
"""
Self-tests: known answers before first use, pairwise consistency of every new key.

The known answers are those of NIST, the RFCs and Wycheproof; each names its source in
``known_answers.json``, and a test compares the file with these sources.

Standard:
    FIPS 140-3 implementation guidance, 10.3.A (known answers) and 10.3.C (conditional
    tests).
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Final

from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core.algorithms import (
    Algorithm,
    Family,
    HashAlgorithm,
    SignatureScheme,
    spec,
)
from hsm_core.errors import (
    DecryptionError,
    SelfTestFailedError,
    SignatureMismatchError,
)
from hsm_core.protocols import (
    CryptoProvider,
    KeyHandle,
    OAEPParameters,
    SignatureParameters,
)

__all__ = ["known_answer_test", "pairwise_consistency_test"]

_MESSAGE: Final = b"pairwise consistency test"
_NONCE: Final = bytes(12)
_PSS_SALT_BYTES: Final = 10
"""Salt of NIST's PSS cases, which are not of the hash's length."""


def known_answer_test(algorithm: Algorithm, provider: CryptoProvider) -> None:
    """
    Compare what a provider computes with published results.

    Every direction is run, and every check is also given something wrong, which it
    must refuse.

    Raises:
        SelfTestFailedError: An answer is another; the reason says which.
    """
    answers = _known_answers()[algorithm]
    _run(
        algorithm,
        lambda: _KNOWN_ANSWER[spec(algorithm).family](algorithm, provider, answers),
    )


def pairwise_consistency_test(
    algorithm: Algorithm, provider: CryptoProvider, material: bytes
) -> bytes:
    """
    Check that the halves of a new key belong together.

    A signature must verify and a ciphertext decrypt; a MAC must be the one that the
    standard library computes.

    Returns:
        SubjectPublicKeyInfo, DER; empty for a symmetric key.

    Raises:
        SelfTestFailedError: They don't belong together.
    """
    public_der = b""

    def test() -> None:
        nonlocal public_der
        private = provider.load(algorithm, material)
        public_der = private.public_der()
        public = provider.load_public(algorithm, public_der) if public_der else private
        _PAIRWISE[spec(algorithm).family](private, public, material)

    _run(algorithm, test)
    return public_der


def _run(algorithm: Algorithm, test: Callable[[], None]) -> None:
    """Run a test; whatever goes wrong in it, of whatever kind, is its failure."""
    try:
        test()
    except SelfTestFailedError:
        raise
    except Exception as error:
        raise _failure(algorithm, f"raised {type(error).__name__}") from error


def _failure(algorithm: Algorithm, reason: str) -> SelfTestFailedError:
    return SelfTestFailedError(
        f"The self-test of {algorithm} failed: {reason}.",
        algorithm=algorithm.value,
        reason=reason,
    )


@cache
def _known_answers() -> dict[str, dict[str, bytes]]:
    text = files(__package__).joinpath("known_answers.json").read_text("utf-8")
    return {
        algorithm: {
            name: bytes.fromhex(value)
            for name, value in answers.items()
            if name != "source"
        }
        for algorithm, answers in json.loads(text).items()
    }


def _expect(algorithm: Algorithm, what: str, *, holds: bool) -> None:
    if not holds:
        raise _failure(algorithm, f"wrong {what}")


def _altered(value: bytes) -> bytes:
    return value[:-1] + bytes([value[-1] ^ 1])


# Known answers


def _test_aead(
    algorithm: Algorithm, provider: CryptoProvider, known: Mapping[str, bytes]
) -> None:
    handle = provider.load(algorithm, known["key"])
    nonce, aad, ciphertext = known["nonce"], known["aad"], known["ciphertext"]
    sealed = handle.seal(nonce, known["plaintext"], aad)
    _expect(algorithm, "ciphertext", holds=sealed == ciphertext)
    opened = handle.open(nonce, ciphertext, aad)
    _expect(algorithm, "plaintext", holds=opened == known["plaintext"])
    try:
        handle.open(nonce, _altered(ciphertext), aad)
    except DecryptionError:
        return
    raise _failure(algorithm, "accepted a wrong tag")


def _test_mac(
    algorithm: Algorithm, provider: CryptoProvider, known: Mapping[str, bytes]
) -> None:
    computed = provider.load(algorithm, known["key"]).mac(known["message"])
    _expect(algorithm, "MAC", holds=computed == known["mac"])


def _test_eddsa(
    algorithm: Algorithm, provider: CryptoProvider, known: Mapping[str, bytes]
) -> None:
    handle = provider.load(algorithm, known["key"])
    parameters = signature_parameters(algorithm)
    signature = handle.sign(known["message"], parameters)
    _expect(algorithm, "signature", holds=signature == known["signature"])
    _test_verification(handle, known["message"], known["signature"], parameters)


def _test_ecdsa(
    algorithm: Algorithm, provider: CryptoProvider, known: Mapping[str, bytes]
) -> None:
    handle = provider.load(algorithm, known["key"])
    parameters = signature_parameters(algorithm)
    _test_verification(handle, known["message"], known["signature"], parameters)
    handle.verify(
        known["message"], handle.sign(known["message"], parameters), parameters
    )


def _test_rsa(
    algorithm: Algorithm, provider: CryptoProvider, known: Mapping[str, bytes]
) -> None:
    handle = provider.load(algorithm, known["key"])
    pkcs1 = signature_parameters(
        algorithm,
        scheme=SignatureScheme.RSASSA_PKCS1_V1_5,
        hash=HashAlgorithm.SHA_256,
    )
    signature = handle.sign(known["message"], pkcs1)
    _expect(algorithm, "PKCS#1 signature", holds=signature == known["signature"])
    _test_verification(handle, known["message"], known["signature"], pkcs1)
    pss = signature_parameters(algorithm)
    handle.verify(known["message"], handle.sign(known["message"], pss), pss)
    _test_verification(
        provider.load_public(algorithm, known["pss_public_key"]),
        known["pss_message"],
        known["pss_signature"],
        signature_parameters(algorithm, salt_bytes=_PSS_SALT_BYTES),
    )
    _test_oaep(provider.load(algorithm, known["oaep_key"]), known)


def _test_oaep(handle: KeyHandle, known: Mapping[str, bytes]) -> None:
    oaep = OAEPParameters()
    decrypted = handle.decrypt(known["oaep_ciphertext"], oaep)
    _expect(
        handle.algorithm, "OAEP plaintext", holds=decrypted == known["oaep_plaintext"]
    )
    again = handle.decrypt(handle.encrypt(decrypted, oaep), oaep)
    _expect(handle.algorithm, "OAEP round trip", holds=again == decrypted)


def _test_verification(
    handle: KeyHandle,
    message: bytes,
    signature: bytes,
    parameters: SignatureParameters,
) -> None:
    handle.verify(message, signature, parameters)
    try:
        handle.verify(_altered(message), signature, parameters)
    except SignatureMismatchError:
        return
    raise _failure(handle.algorithm, "accepted a wrong signature")


_KNOWN_ANSWER: Final[
    dict[Family, Callable[[Algorithm, CryptoProvider, Mapping[str, bytes]], None]]
] = {
    Family.AEAD: _test_aead,
    Family.RSA: _test_rsa,
    Family.ECDSA: _test_ecdsa,
    Family.EDDSA: _test_eddsa,
    Family.MAC: _test_mac,
}


# Pairwise consistency


def _pair_aead(private: KeyHandle, public: KeyHandle, material: bytes) -> None:
    sealed = public.seal(_NONCE, _MESSAGE, b"")
    opened = private.open(_NONCE, sealed, b"")
    _expect(
        private.algorithm,
        "pairwise consistency",
        holds=opened == _MESSAGE and not sealed.startswith(_MESSAGE),
    )


def _pair_mac(private: KeyHandle, public: KeyHandle, material: bytes) -> None:
    computed = private.mac(_MESSAGE)
    expected = hmac.digest(material, _MESSAGE, "sha256")
    _expect(
        private.algorithm,
        "pairwise consistency",
        holds=hmac.compare_digest(expected, computed),
    )


def _pair_signature(private: KeyHandle, public: KeyHandle, material: bytes) -> None:
    parameters = signature_parameters(private.algorithm)
    public.verify(_MESSAGE, private.sign(_MESSAGE, parameters), parameters)


def _pair_rsa(private: KeyHandle, public: KeyHandle, material: bytes) -> None:
    _pair_signature(private, public, material)
    oaep = OAEPParameters()
    ciphertext = public.encrypt(_MESSAGE, oaep)
    decrypted = private.decrypt(ciphertext, oaep)
    _expect(private.algorithm, "pairwise consistency", holds=decrypted == _MESSAGE)


_PAIRWISE: Final[dict[Family, Callable[[KeyHandle, KeyHandle, bytes], None]]] = {
    Family.AEAD: _pair_aead,
    Family.RSA: _pair_rsa,
    Family.ECDSA: _pair_signature,
    Family.EDDSA: _pair_signature,
    Family.MAC: _pair_mac,
}
