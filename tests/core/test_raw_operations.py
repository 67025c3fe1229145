# SPDX-License-Identifier: MIT
"""Raw signatures, decryption by PKCS#1 v1.5, and AES with IVs of the caller."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core.algorithms import AESMode, HashAlgorithm, KeyUsage, SignatureScheme
from hsm_core.policies import parse_policy
from hsm_core.protocols import HSM
from hsm_core.session import Session
from hsm_core.testing import caller, memory_hsm

ALLOWED = """\
version: 1
extends: default
rules:
  - {name: old-programs, effect: allow, match: {operations: [DecryptPKCS1]}}
"""


@pytest.fixture(scope="module")
def hsm() -> Iterator[HSM]:
    """Open an HSM whose policy allows decryption by PKCS#1 v1.5."""
    with memory_hsm(policy=parse_policy(ALLOWED)) as gateway:
        Session(gateway.act_as(caller())).create_key("RSA-2048", name="rsa")
        Session(gateway.act_as(caller())).create_key("EC-P256", name="curve")
        yield gateway.act_as(caller())


def public_key(hsm: HSM, name: str) -> object:
    """Return a public key as the library has it."""
    return load_der_public_key(hsm.execute(ops.GetPublicKey(key_id=name)).der)


@pytest.mark.parametrize("data", [b"\x01", bytes(36), b"x" * 245], ids=len)
def test_rsa_pads_what_it_is_given(hsm: HSM, data: bytes) -> None:
    """The signature is RSASSA-PKCS1-v1_5's padding of the data itself."""
    made = hsm.execute(ops.RawSign(key_id="rsa", data=data))

    public = public_key(hsm, "rsa")
    assert isinstance(public, rsa.RSAPublicKey)
    pkcs1 = padding.PKCS1v15()
    assert data == public.recover_data_from_signature(made.signature, pkcs1, None)
    verify = ops.RawVerify(key_id="rsa", data=data, signature=made.signature)
    assert 1 == hsm.execute(verify).version
    assert SignatureScheme.RSASSA_PKCS1_V1_5 is made.scheme
    assert made.hash is None


def test_a_digest_info_makes_the_signature_of_its_message(hsm: HSM) -> None:
    """A raw signature of a DigestInfo is the one that `Sign` makes."""
    info = bytes.fromhex("3031300d060960864801650304020105000420")
    info += hashlib.sha256(b"hello").digest()

    raw = hsm.execute(ops.RawSign(key_id="rsa", data=info)).signature

    sign = ops.Sign(
        key_id="rsa",
        message=b"hello",
        scheme=SignatureScheme.RSASSA_PKCS1_V1_5,
        hash=HashAlgorithm.SHA_256,
    )
    assert raw == hsm.execute(sign).signature


@pytest.mark.parametrize(
    "algorithm",
    [hashes.SHA224(), hashes.SHA256(), hashes.SHA512()],
    ids=lambda a: a.name,
)
def test_ecdsa_takes_any_digest(hsm: HSM, algorithm: hashes.HashAlgorithm) -> None:
    """Its leftmost bits are signed; every verifier with that hash accepts it."""
    hasher = hashes.Hash(algorithm)
    hasher.update(b"hello")
    digest = hasher.finalize()

    made = hsm.execute(ops.RawSign(key_id="curve", data=digest)).signature

    public = public_key(hsm, "curve")
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(made, b"hello", ec.ECDSA(algorithm))
    verify = ops.RawVerify(key_id="curve", data=digest, signature=made)
    assert 1 == hsm.execute(verify).version


@pytest.mark.parametrize(
    ("key", "length"), [("rsa", 246), ("curve", 65)], ids=["rsa", "curve"]
)
def test_data_that_is_too_long(hsm: HSM, key: str, length: int) -> None:
    """It is refused, and the field and the limit are named."""
    with pytest.raises(errors.InputSizeError, match=f"and {length - 1} bytes"):
        hsm.execute(ops.RawSign(key_id=key, data=bytes(length)))


def test_a_wrong_raw_signature(hsm: HSM) -> None:
    """One of other data does not verify."""
    made = hsm.execute(ops.RawSign(key_id="rsa", data=b"one")).signature

    with pytest.raises(errors.SignatureMismatchError):
        hsm.execute(ops.RawVerify(key_id="rsa", data=b"two", signature=made))


def test_keys_that_always_hash(hsm: HSM) -> None:
    """An Ed25519 key has no raw signatures."""
    key = Session(hsm).create_key("Ed25519").key_id

    with pytest.raises(errors.UnsupportedOperationError, match="RSA and ECDSA"):
        hsm.execute(ops.RawSign(key_id=key, data=b"data"))


def test_a_rule_about_sign_covers_raw_signatures() -> None:
    """What a rule denies to `Sign` is not had from `RawSign`."""
    text = "version: 1\nextends: default\nrules:\n"
    text += "  - {name: no, effect: deny, match: {operations: [Sign]}}\n"
    with memory_hsm(policy=parse_policy(text)) as gateway:
        hsm = gateway.act_as(caller())
        key = Session(hsm).create_key("EC-P256").key_id

        with pytest.raises(errors.AccessDeniedError):
            hsm.execute(ops.RawSign(key_id=key, data=bytes(32)))


def decrypting(hsm: HSM) -> tuple[str, rsa.RSAPublicKey]:
    """Create an RSA key that decrypts."""
    usages = (KeyUsage.ENCRYPT, KeyUsage.DECRYPT)
    create = ops.CreateKey(algorithm="RSA-2048", usages=usages)
    key = hsm.execute(create).key_id
    public = public_key(hsm, key)
    assert isinstance(public, rsa.RSAPublicKey)
    return key, public


def test_decryption_by_pkcs1(hsm: HSM) -> None:
    """A message decrypts; wrong padding gives other bytes, and no error."""
    key, public = decrypting(hsm)
    sent = public.encrypt(b"old program", padding.PKCS1v15())
    changed = sent[:-1] + bytes([sent[-1] ^ 1])

    right = hsm.execute(ops.DecryptPKCS1(key_id=key, ciphertext=sent))
    wrong = hsm.execute(ops.DecryptPKCS1(key_id=key, ciphertext=changed))

    assert b"old program" == right.plaintext
    assert b"old program" != wrong.plaintext
    with pytest.raises(errors.DecryptionError):
        hsm.execute(ops.DecryptPKCS1(key_id=key, ciphertext=sent[1:]))


def test_pkcs1_decryption_needs_a_policy_that_names_it() -> None:
    """Without such a policy, no role has it, and the denial is recorded."""
    with memory_hsm() as gateway:
        hsm = gateway.act_as(caller())
        key, public = decrypting(hsm)
        sent = public.encrypt(b"m", padding.PKCS1v15())

        with pytest.raises(errors.AccessDeniedError):
            hsm.execute(ops.DecryptPKCS1(key_id=key, ciphertext=sent))


IV = {mode: bytes(12 if mode is AESMode.GCM else 16) for mode in AESMode}


@pytest.mark.parametrize("algorithm", ["AES-128", "AES-256"])
@pytest.mark.parametrize("mode", AESMode)
def test_raw_encryption(hsm: HSM, mode: AESMode, algorithm: str) -> None:
    """A retired version still decrypts what it encrypted, in every mode."""
    key = Session(hsm).create_key(algorithm).key_id
    encrypt = ops.RawEncrypt(key_id=key, plaintext=bytes(48), mode=mode, iv=IV[mode])
    made = hsm.execute(encrypt).ciphertext
    Session(hsm).rotate(key)

    decrypt = ops.RawDecrypt(
        key_id=key, ciphertext=made, mode=mode, iv=IV[mode], version=1
    )
    assert bytes(48) == hsm.execute(decrypt).plaintext
    assert made != hsm.execute(encrypt).ciphertext


def test_altered_raw_ciphertexts(hsm: HSM) -> None:
    """GCM refuses another tag or other additional data, CBC wrong padding."""
    key = Session(hsm).create_key("AES-256").key_id
    gcm, pad = AESMode.GCM, AESMode.CBC_PKCS7
    with_aad = ops.RawEncrypt(
        key_id=key, plaintext=b"m", mode=gcm, iv=IV[gcm], aad=b"a"
    )
    padded = ops.RawEncrypt(key_id=key, plaintext=bytes(16), mode=pad, iv=IV[pad])
    sealed = hsm.execute(with_aad).ciphertext
    blocks = hsm.execute(padded).ciphertext

    for mode, ciphertext, aad in (
        (gcm, sealed[:-1] + bytes([sealed[-1] ^ 1]), b"a"),
        (gcm, sealed, b"b"),
        (pad, blocks[:16], b""),
        (pad, blocks[:15], b""),
    ):
        with pytest.raises(errors.DecryptionError):
            hsm.execute(
                ops.RawDecrypt(
                    key_id=key, ciphertext=ciphertext, mode=mode, iv=IV[mode], aad=aad
                )
            )


@pytest.mark.parametrize("mode", [AESMode.CTR, AESMode.GCM])
def test_stream_modes_need_both_usages(hsm: HSM, mode: AESMode) -> None:
    """The chooser of an IV can decrypt: a key that may not refuses to encrypt."""
    create = ops.CreateKey(algorithm="AES-256", usages=(KeyUsage.ENCRYPT,))
    key = hsm.execute(create).key_id
    raw = ops.RawEncrypt(key_id=key, plaintext=b"m", mode=mode, iv=IV[mode])

    with pytest.raises(errors.KeyUsageError):
        hsm.execute(raw)


def test_a_rule_about_decrypt_covers_raw_encryption() -> None:
    """Who may not decrypt can't do so by encrypting with a chosen IV."""
    text = "version: 1\nextends: default\nrules:\n"
    text += "  - {name: no, effect: deny, match: {operations: [Decrypt]}}\n"
    with memory_hsm(policy=parse_policy(text)) as gateway:
        hsm = gateway.act_as(caller())
        key = Session(hsm).create_key("AES-256").key_id
        mode = AESMode.CTR

        with pytest.raises(errors.AccessDeniedError):
            hsm.execute(
                ops.RawEncrypt(key_id=key, plaintext=b"m", mode=mode, iv=IV[mode])
            )


def test_raw_keys_have_no_envelopes_and_others_no_raw_encryption(hsm: HSM) -> None:
    """So no IV of a caller meets a nonce of the HSM under one key."""
    raw = Session(hsm).create_key("AES-256").key_id
    usual = Session(hsm).create_key("AES-256-GCM").key_id
    mode = AESMode.GCM

    for operation in (
        ops.Encrypt(key_id=raw, plaintext=b"m"),
        ops.Decrypt(key_id=raw, ciphertext=bytes(80)),
        ops.GenerateDataKey(key_id=raw),
        ops.Rewrap(key_id=raw, ciphertext=bytes(80)),
        ops.RawEncrypt(key_id=usual, plaintext=b"m", mode=mode, iv=IV[mode]),
    ):
        with pytest.raises(errors.UnsupportedOperationError):
            hsm.execute(operation)


def test_lengths_of_raw_encryption(hsm: HSM) -> None:
    """IV and blocks must have the length of the mode, and only GCM takes aad."""
    key = Session(hsm).create_key("AES-256").key_id
    cbc = AESMode.CBC

    for fault, values in (
        ("iv must be 16", {"iv": bytes(12)}),
        ("multiple of 16", {"plaintext": b"m"}),
        ("aad must be omitted", {"aad": b"a"}),
    ):
        given = {"plaintext": bytes(16), "iv": IV[cbc], **values}
        with pytest.raises(errors.InvalidInputError, match=fault):
            hsm.execute(ops.RawEncrypt(key_id=key, mode=cbc, **given))
