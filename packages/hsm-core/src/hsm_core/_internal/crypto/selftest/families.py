# SPDX-License-Identifier: MIT
"""Known-answer and pairwise consistency tests of each family of algorithms."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core._internal.crypto.pyca.symmetric import x963
from hsm_core._internal.crypto.selftest.cases import (
    MESSAGE,
    Case,
    Pair,
    altered,
    expect,
    expect_mismatch,
    expect_signature,
    failure,
)
from hsm_core.algorithms import AESMode, HashAlgorithm, SignatureScheme, spec
from hsm_core.errors import AlgorithmUnavailableError, DecryptionError
from hsm_core.protocols import KeyHandle, OAEPParameters

_PSS_SALT_BYTES: Final = 10
"""Salt of NIST's PSS cases, which are not of the hash's length."""


def check_eddsa(case: Case) -> None:
    """Sign and verify; the same message gives the same signature."""
    handle, parameters = case.private(), signature_parameters(case.algorithm)
    message = case.known["message"]
    case.expect("signature", handle.sign(message, parameters))
    expect_signature(handle, message, case.known["signature"], parameters)


def check_ecdsa(case: Case) -> None:
    """Verify, verify what was signed, and agree on a secret."""
    handle, parameters = case.private(), signature_parameters(case.algorithm)
    message = case.known["message"]
    expect_signature(handle, message, case.known["signature"], parameters)
    handle.verify(message, handle.sign(message, parameters), parameters)
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


def sign_and_verify(pair: Pair) -> None:
    """Check that the public half verifies what the private half signs."""
    parameters = signature_parameters(pair.algorithm)
    pair.public.verify(MESSAGE, pair.private.sign(MESSAGE, parameters), parameters)


def pair_rsa(pair: Pair) -> None:
    """Sign and verify, encrypt and decrypt."""
    sign_and_verify(pair)
    oaep = OAEPParameters()
    ciphertext = pair.public.encrypt(MESSAGE, oaep)
    pair.expect(holds=pair.private.decrypt(ciphertext, oaep) == MESSAGE)


def pair_curve(pair: Pair) -> None:
    """Sign and verify, and agree where this key may."""
    sign_and_verify(pair)
    if pair.agrees:
        pair_agreement(pair)


def pair_agreement(pair: Pair) -> None:
    """Check that a known key and the new one agree, whichever is the private one."""
    other = pair.provider.load(pair.algorithm, pair.known["agreement_key"])
    ours = pair.private.agree(other.public_der())
    pair.expect(holds=ours == other.agree(pair.public.public_der()))


_Z_BYTES: Final = 32
_SECRET_BYTES: Final = 32


def check_ml_kem(case: Case) -> None:
    """
    Make a key from its seed, and take both paths of decapsulation.

    Standard:
        FIPS 203, algorithm 18: a ciphertext that was changed gives the secret of
        implicit rejection, which is known too.
    """
    try:
        handle = case.private()
    except AlgorithmUnavailableError:
        _check_expanded_ml_kem(case)
        return
    case.expect("public_key", handle.public_der())
    case.expect("shared_secret", handle.decapsulate(case.known["ciphertext"]))
    rejecting = case.provider.load(case.algorithm, case.known["rejecting_key"])
    rejected = rejecting.decapsulate(case.known["rejected_ciphertext"])
    case.expect("rejected_secret", rejected)
    _round_trip(case, handle, case.public())


def _check_expanded_ml_kem(case: Case) -> None:
    """Do the same with an expanded key, for a provider that takes no seeds."""
    key = case.known["expanded_key"]
    handle = case.provider.load(case.algorithm, key)
    case.expect("public_key", handle.public_der())
    case.expect("shared_secret", handle.decapsulate(case.known["ciphertext"]))
    changed = altered(case.known["ciphertext"])
    # z ends the key (FIPS 203, algorithm 16), and J(z || c) is the secret.
    expected = hashlib.shake_256(key[-_Z_BYTES:] + changed).digest(_SECRET_BYTES)
    rejected = handle.decapsulate(changed)
    expect(case.algorithm, "rejected secret", holds=rejected == expected)
    _round_trip(case, handle, case.public())


def check_composite_kem(case: Case) -> None:
    """Decapsulate, see that each half of the ciphertext counts, and go round once."""
    handle, ciphertext = case.private(), case.known["ciphertext"]
    case.expect("public_key", handle.public_der())
    case.expect("shared_secret", handle.decapsulate(ciphertext))
    for position in (0, -1):
        # What is no point of the curve is refused; anything else changes the secret.
        with suppress(DecryptionError):
            other = handle.decapsulate(altered(ciphertext, position))
            differs = other != case.known["shared_secret"]
            expect(case.algorithm, "secret of a changed ciphertext", holds=differs)
    _round_trip(case, handle, case.public())


def check_ml_dsa(case: Case) -> None:
    """Make a key from its seed; verify and sign with a context, and with mu."""
    private, public = case.private(), case.public()
    case.expect("public_key", private.public_der())
    check_known_signature(case)
    message, mu = case.known["message"], case.known["mu"]
    plain = signature_parameters(case.algorithm, context=case.known["context"])
    external = signature_parameters(case.algorithm, external_mu=True)
    expect_signature(public, mu, case.known["signature"], external)
    public.verify(message, private.sign(message, plain), plain)
    public.verify(message, private.sign(mu, external), plain)


def check_slh_dsa(case: Case) -> None:
    """Find the public half in the private one, verify, and verify what was signed."""
    private, public = case.private(), case.public()
    case.expect("public_key", private.public_der())
    check_known_signature(case)
    message = case.known["message"]
    parameters = signature_parameters(case.algorithm, context=case.known["context"])
    public.verify(message, private.sign(message, parameters), parameters)


def check_composite_signature(case: Case) -> None:
    """Verify, see that each half of the signature counts, and verify what was made."""
    private, public, message = case.private(), case.public(), case.known["message"]
    case.expect("public_key", private.public_der())
    check_known_signature(case)
    parameters = signature_parameters(case.algorithm, context=case.known["context"])
    border = spec(spec(case.algorithm).components[0]).signature_bytes
    for position in (0, border - 1, -1):
        wrong = altered(case.known["signature"], position)
        expect_mismatch(public, message, wrong, parameters)
    public.verify(message, private.sign(message, parameters), parameters)


def check_known_signature(case: Case) -> None:
    """Verify a known signature, and refuse it for what was not signed."""
    public, known = case.public(), case.known
    parameters = signature_parameters(case.algorithm, context=known["context"])
    expect_signature(public, known["message"], known["signature"], parameters)
    other = signature_parameters(case.algorithm, context=altered(known["context"]))
    expect_mismatch(public, known["message"], known["signature"], other)
    wrong = altered(known["signature"])
    expect_mismatch(public, known["message"], wrong, parameters)


def pair_kem(pair: Pair) -> None:
    """Check that the private half finds what the public half encapsulated."""
    secret, ciphertext = pair.public.encapsulate()
    pair.expect(holds=pair.private.decapsulate(ciphertext) == secret)


def pair_ml_dsa(pair: Pair) -> None:
    """Sign and verify with a context, as every signature of the family can."""
    parameters = signature_parameters(pair.algorithm, context=b"context")
    pair.public.verify(MESSAGE, pair.private.sign(MESSAGE, parameters), parameters)


def _round_trip(case: Case, private: KeyHandle, public: KeyHandle) -> None:
    secret, ciphertext = public.encapsulate()
    decapsulated = private.decapsulate(ciphertext)
    expect(case.algorithm, "encapsulation", holds=decapsulated == secret)
    again, _ = public.encapsulate()
    expect(case.algorithm, "randomness", holds=again != secret)


_NONCE: Final = bytes(12)
_DERIVED_BYTES: Final = 100
"""More than one block of every hash."""


def check_aead(case: Case) -> None:
    """Encrypt, decrypt, and refuse a wrong tag."""
    handle, known = case.private(), case.known
    nonce, aad, ciphertext = known["nonce"], known["aad"], known["ciphertext"]
    case.expect("ciphertext", handle.seal(nonce, known["plaintext"], aad))
    case.expect("plaintext", handle.open(nonce, ciphertext, aad))
    _expect_refusal(case, "tag", lambda: handle.open(nonce, altered(ciphertext), aad))


def check_aes(case: Case) -> None:
    """Encrypt and decrypt in every mode, and refuse a wrong tag and wrong padding."""
    for mode in (AESMode.CBC, AESMode.CTR, AESMode.GCM):
        _check_mode(case, mode)
    known = case.known
    handle = case.provider.load(case.algorithm, known["gcm_key"])
    iv, aad, wrong = known["gcm_iv"], known["gcm_aad"], altered(known["gcm_ciphertext"])
    refused = partial(handle.decrypt_raw, AESMode.GCM, iv, wrong, aad)
    _expect_refusal(case, "tag", refused)
    _check_padding(case)


def _check_mode(case: Case, mode: AESMode) -> None:
    name, known = mode.lower(), case.known
    handle = case.provider.load(case.algorithm, known[f"{name}_key"])
    iv, aad = known[f"{name}_iv"], known.get(f"{name}_aad", b"")
    made = handle.encrypt_raw(mode, iv, known[f"{name}_plaintext"], aad)
    case.expect(f"{name}_ciphertext", made)
    opened = handle.decrypt_raw(mode, iv, known[f"{name}_ciphertext"], aad)
    case.expect(f"{name}_plaintext", opened)


def _check_padding(case: Case) -> None:
    """Pad the known plaintext of CBC, whose blocks come out the same."""
    handle = case.provider.load(case.algorithm, case.known["cbc_key"])
    iv, plaintext = case.known["cbc_iv"], case.known["cbc_plaintext"]
    padded = handle.encrypt_raw(AESMode.CBC_PKCS7, iv, plaintext)
    case.expect("cbc_ciphertext", padded[: len(plaintext)])
    opened = handle.decrypt_raw(AESMode.CBC_PKCS7, iv, padded)
    case.expect("cbc_plaintext", opened)
    # Without its last block, it ends with a byte that is no padding.
    unpadded = partial(handle.decrypt_raw, AESMode.CBC_PKCS7, iv, padded[:-16])
    _expect_refusal(case, "padding", unpadded)


def check_mac(case: Case) -> None:
    """Compute a MAC."""
    case.expect("mac", case.private().mac(case.known["message"]))


def check_wrap(case: Case) -> None:
    """Wrap and unwrap with and without padding, and refuse what was changed."""
    for name, padded in (("kw", False), ("kwp", True)):
        data, wrapped = case.known[f"{name}_data"], case.known[f"{name}_wrapped"]
        handle = case.provider.load(case.algorithm, case.known[f"{name}_key"])
        case.expect(f"{name}_wrapped", handle.wrap(data, padded=padded))
        case.expect(f"{name}_data", handle.unwrap(wrapped, padded=padded))
        unwrap = partial(handle.unwrap, altered(wrapped), padded=padded)
        _expect_refusal(case, f"{name} check", unwrap)


def check_derivation(case: Case) -> None:
    """Derive by HKDF; by X9.63 with its hash, as the standard library's hash does."""
    known = case.known
    length = len(known["derived_key"])
    derived = case.private().derive(known["salt"], known["info"], length)
    case.expect("derived_key", derived)
    hashed = spec(case.algorithm).hashes[0]
    derived = x963(hashed, known["key"], info=known["info"], length=length)
    if not hmac.compare_digest(_x963(case, length), derived):
        raise failure(case.algorithm, "derived a wrong key by X9.63")


def _x963(case: Case, length: int) -> bytes:
    """Return what SEC 1, section 3.6.1, derives."""
    known, name = case.known, f"sha{8 * spec(case.algorithm).key_bytes}"
    derived = b""
    for counter in range(1, length // hashlib.new(name).digest_size + 2):
        block = known["key"] + counter.to_bytes(4, "big") + known["info"]
        derived += hashlib.new(name, block).digest()
    return derived[:length]


def pair_aead(pair: Pair) -> None:
    """Check that what was encrypted is decrypted, and was encrypted."""
    sealed = pair.public.seal(_NONCE, MESSAGE, b"")
    opened = pair.private.open(_NONCE, sealed, b"")
    pair.expect(holds=opened == MESSAGE and not sealed.startswith(MESSAGE))


def pair_aes(pair: Pair) -> None:
    """Check that what was encrypted is decrypted, and was encrypted."""
    iv = bytes(16)
    sealed = pair.public.encrypt_raw(AESMode.CBC_PKCS7, iv, MESSAGE)
    opened = pair.private.decrypt_raw(AESMode.CBC_PKCS7, iv, sealed)
    pair.expect(holds=opened == MESSAGE and not sealed.startswith(MESSAGE))


def pair_mac(pair: Pair) -> None:
    """Compare with the MAC that the standard library computes."""
    expected = hmac.digest(pair.material, MESSAGE, _hash_name(pair))
    pair.expect(holds=hmac.compare_digest(expected, pair.private.mac(MESSAGE)))


def pair_wrap(pair: Pair) -> None:
    """Check that what was wrapped is unwrapped, and was wrapped."""
    for padded in (False, True):
        data = MESSAGE if padded else MESSAGE[:24]
        wrapped = pair.private.wrap(data, padded=padded)
        unwrapped = pair.private.unwrap(wrapped, padded=padded)
        pair.expect(holds=unwrapped == data and data not in wrapped)


def pair_derivation(pair: Pair) -> None:
    """Compare with HKDF over the HMAC of the standard library (RFC 5869, 2.2, 2.3)."""
    name = _hash_name(pair)
    extracted = hmac.digest(_NONCE, pair.material, name)
    expected = block = b""
    for counter in range(1, 5):
        block = hmac.digest(extracted, block + MESSAGE + bytes([counter]), name)
        expected += block
    derived = pair.private.derive(_NONCE, MESSAGE, _DERIVED_BYTES)
    pair.expect(holds=hmac.compare_digest(expected[:_DERIVED_BYTES], derived))


def _hash_name(pair: Pair) -> str:
    """Return what the standard library calls the hash of HMAC or HKDF."""
    return f"sha{8 * spec(pair.algorithm).key_bytes}"


def _expect_refusal(case: Case, what: str, attempt: Callable[[], object]) -> None:
    try:
        attempt()
    except DecryptionError:
        return
    raise failure(case.algorithm, f"accepted a wrong {what}")
