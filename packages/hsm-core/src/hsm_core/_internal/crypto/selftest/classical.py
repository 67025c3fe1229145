# SPDX-License-Identifier: MIT
"""Self-tests of RSA, ECDSA, EdDSA and elliptic-curve key agreement."""

from __future__ import annotations

from typing import Final

from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core._internal.crypto.selftest.checks import (
    MESSAGE,
    Case,
    Pair,
    expect,
    expect_signature,
    sign_and_verify,
)
from hsm_core.algorithms import HashAlgorithm, SignatureScheme, spec
from hsm_core.protocols import OAEPParameters

_PSS_SALT_BYTES: Final = 10
"""Salt of NIST's PSS cases, which are not of the hash's length."""


def check_eddsa(case: Case) -> None:
    """Sign and verify; the same message gives the same signature."""
    handle, parameters = case.private(), signature_parameters(case.algorithm)
    message = case.known["message"]
    case.expect("signature", handle.sign(message, parameters))
    expect_signature(handle, message, case.known["signature"], parameters)


def check_ecdsa(case: Case) -> None:
    """Verify, verify what was signed, and agree on a secret where the curve may."""
    handle, parameters = case.private(), signature_parameters(case.algorithm)
    message = case.known["message"]
    expect_signature(handle, message, case.known["signature"], parameters)
    handle.verify(message, handle.sign(message, parameters), parameters)
    if spec(case.algorithm).shared_secret_bytes:
        check_agreement(case)


def check_agreement(case: Case) -> None:
    """Agree on a secret."""
    handle = case.provider.load(case.algorithm, case.known["agreement_key"])
    case.expect("shared_secret", handle.agree(case.known["peer_public_key"]))


def check_rsa(case: Case) -> None:
    """Sign and verify by PKCS#1 v1.5 and PSS, encrypt and decrypt by OAEP."""
    handle, message = case.private(), case.known["message"]
    pkcs1 = signature_parameters(
        case.algorithm,
        scheme=SignatureScheme.RSASSA_PKCS1_V1_5,
        hash=HashAlgorithm.SHA_256,
    )
    case.expect("signature", handle.sign(message, pkcs1))
    expect_signature(handle, message, case.known["signature"], pkcs1)
    pss = signature_parameters(case.algorithm)
    handle.verify(message, handle.sign(message, pss), pss)
    expect_signature(
        case.provider.load_public(case.algorithm, case.known["pss_public_key"]),
        case.known["pss_message"],
        case.known["pss_signature"],
        signature_parameters(case.algorithm, salt_bytes=_PSS_SALT_BYTES),
    )
    _check_oaep(case)


def _check_oaep(case: Case) -> None:
    handle = case.provider.load(case.algorithm, case.known["oaep_key"])
    oaep = OAEPParameters()
    decrypted = handle.decrypt(case.known["oaep_ciphertext"], oaep)
    case.expect("oaep_plaintext", decrypted)
    again = handle.decrypt(handle.encrypt(decrypted, oaep), oaep)
    expect(case.algorithm, "OAEP round trip", holds=again == decrypted)


def pair_rsa(pair: Pair) -> None:
    """Sign and verify, encrypt and decrypt."""
    sign_and_verify(pair)
    oaep = OAEPParameters()
    ciphertext = pair.public.encrypt(MESSAGE, oaep)
    pair.expect(holds=pair.private.decrypt(ciphertext, oaep) == MESSAGE)


def pair_curve(pair: Pair) -> None:
    """Sign and verify, and agree where the curve and this key may."""
    sign_and_verify(pair)
    if pair.agrees and spec(pair.algorithm).shared_secret_bytes:
        pair_agreement(pair)


def pair_agreement(pair: Pair) -> None:
    """Check that a known key and the new one agree, whichever is the private one."""
    other = pair.provider.load(pair.algorithm, pair.known["agreement_key"])
    ours = pair.private.agree(other.public_der())
    pair.expect(holds=ours == other.agree(pair.public.public_der()))
