# SPDX-License-Identifier: MIT
"""Keys that stay in the HSM, in the hands of libraries that know nothing of it."""

from __future__ import annotations

import copy
import datetime
import pickle
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID

from hsm_core import errors
from hsm_core.algorithms import Algorithm, KeyUsage
from hsm_core.keys import HSMEllipticCurveKey, HSMRSAKey, PrivateKey, open_private_key
from hsm_core.session import Session
from hsm_core.testing import caller, memory_hsm
from tests.core.hsm_support import session_of

A = Algorithm
SIGNERS = [
    *(A.RSA_2048, A.EC_P256, A.EC_P384, A.EC_P521, A.EC_SECP256K1),
    *(A.ED25519, A.ED448, A.ML_DSA_44, A.ML_DSA_65, A.ML_DSA_87),
]
SOME_DAY = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
SHA256, DIGEST_LENGTH = hashes.SHA256(), padding.PSS.DIGEST_LENGTH
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "release")])


class Held:
    """
    One HSM and a key of each algorithm in it, made when it is first asked for.

    Attributes:
        hsm: For somebody who may do everything.
        session: The same with plain methods.
    """

    def __init__(self, gateway: Any) -> None:
        self.hsm = gateway.act_as(caller())
        self.session: Session = session_of(gateway)
        self._made: dict[Algorithm, PrivateKey] = {}

    def key(self, algorithm: Algorithm) -> Any:
        """Return a key of an algorithm."""
        if algorithm not in self._made:
            key_id = self.session.create_key(algorithm).key_id
            self._made[algorithm] = open_private_key(self.hsm, key_id)
        return self._made[algorithm]


@pytest.fixture(scope="module")
def held() -> Iterator[Held]:
    """Give one HSM for all tests of this module."""
    with memory_hsm() as gateway:
        yield Held(gateway)


def hash_for(algorithm: Algorithm) -> Any:
    """Return the hash that a key of an algorithm signs certificates with."""
    if algorithm in (A.RSA_2048, A.EC_P256, A.EC_SECP256K1):
        return hashes.SHA256()
    if algorithm is A.EC_P384:
        return hashes.SHA384()
    return hashes.SHA512() if algorithm is A.EC_P521 else None


def issue(key: Any, hash: Any, **padded: Any) -> x509.Certificate:
    """Return a certificate that a key issues to itself."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .serial_number(1)
        .public_key(key.public_key())
        .not_valid_before(SOME_DAY)
        .not_valid_after(SOME_DAY + datetime.timedelta(days=1))
    )
    return builder.sign(key, hash, **padded)


@pytest.mark.parametrize("algorithm", SIGNERS)
def test_certificates(held: Held, algorithm: Algorithm) -> None:
    """A certificate, a request and a revocation list are signed, and verify."""
    key, hash = held.key(algorithm), hash_for(algorithm)

    certificate = issue(key, hash)
    request = x509.CertificateSigningRequestBuilder().subject_name(NAME).sign(key, hash)
    revoked = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(NAME)
        .last_update(SOME_DAY)
        .next_update(SOME_DAY + datetime.timedelta(days=1))
        .sign(key, hash)
    )

    certificate.verify_directly_issued_by(certificate)
    assert request.is_signature_valid
    assert revoked.is_signature_valid(key.public_key())


@pytest.mark.parametrize("algorithm", [A.RSA_2048, A.EC_P256, A.EC_P384])
def test_cms(held: Held, algorithm: Algorithm) -> None:
    """A detached signature of CMS holds the certificate of its key."""
    key, hash = held.key(algorithm), hash_for(algorithm)
    certificate = issue(key, hash)

    made = (
        pkcs7.PKCS7SignatureBuilder()
        .set_data(b"release 1.0")
        .add_signer(certificate, key, hash)
        .sign(serialization.Encoding.DER, [pkcs7.PKCS7Options.DetachedSignature])
    )

    assert [certificate] == pkcs7.load_der_pkcs7_certificates(made)


def test_certificate_by_pss(held: Held) -> None:
    """An RSA key signs a certificate by RSASSA-PSS."""
    key = held.key(A.RSA_2048)
    pss = padding.PSS(padding.MGF1(SHA256), DIGEST_LENGTH)

    certificate = issue(key, hashes.SHA256(), rsa_padding=pss)

    certificate.verify_directly_issued_by(certificate)


@pytest.mark.parametrize("algorithm", [A.RSA_2048, A.EC_P256, A.ED25519])
def test_ssh_certificates(held: Held, algorithm: Algorithm) -> None:
    """A key of the HSM issues SSH certificates."""
    key = held.key(algorithm)

    certificate = (
        serialization.SSHCertificateBuilder()
        .public_key(held.key(A.ED25519).public_key())
        .serial(1)
        .type(serialization.SSHCertificateType.USER)
        .key_id(b"olga")
        .valid_principals([b"olga"])
        .valid_after(0)
        .valid_before(2**40)
        .sign(key)
    )

    certificate.verify_cert_signature()


@pytest.mark.parametrize(
    ("algorithm", "name"),
    [
        (A.RSA_2048, "RS256"),
        (A.RSA_2048, "PS384"),
        (A.EC_P256, "ES256"),
        (A.EC_P384, "ES384"),
        (A.EC_P521, "ES512"),
        (A.EC_SECP256K1, "ES256K"),
        (A.ED25519, "EdDSA"),
    ],
)
def test_json_web_tokens(held: Held, algorithm: Algorithm, name: str) -> None:
    """PyJWT signs with it as with any key."""
    key = held.key(algorithm)

    token = jwt.encode({"sub": "olga"}, key, algorithm=name)

    read = jwt.decode(token, key.public_key(), algorithms=[name])
    assert {"sub": "olga"} == read


class TestRSA:
    def test_prehashed(self, held: Held) -> None:
        """A digest is signed as it is, and one of another length is refused."""
        key = held.key(A.RSA_2048)
        hasher = hashes.Hash(hashes.SHA384())
        hasher.update(b"message")
        ready = utils.Prehashed(hashes.SHA384())

        made = key.sign(hasher.finalize(), padding.PKCS1v15(), ready)

        key.public_key().verify(made, b"message", padding.PKCS1v15(), hashes.SHA384())
        with pytest.raises(errors.InputSizeError):
            key.sign(b"short", padding.PKCS1v15(), ready)

    def test_decrypts(self, held: Held) -> None:
        """What was encrypted by OAEP to the public key comes back."""
        key_id = held.session.create_key(
            A.RSA_2048, usages=(KeyUsage.ENCRYPT, KeyUsage.DECRYPT)
        ).key_id
        key = open_private_key(held.hsm, key_id)
        assert isinstance(key, HSMRSAKey)
        oaep = padding.OAEP(
            padding.MGF1(hashes.SHA256()), hashes.SHA384(), label=b"label"
        )

        sealed = key.public_key().encrypt(b"plaintext", oaep)

        assert b"plaintext" == key.decrypt(sealed, oaep)
        with pytest.raises(errors.DecryptionError):
            key.decrypt(sealed[:-1] + bytes([sealed[-1] ^ 1]), oaep)
        with pytest.raises(errors.UnsupportedOperationError):
            key.decrypt(sealed, padding.PKCS1v15())

    @pytest.mark.parametrize(
        ("pad", "hash"),
        [
            (padding.PSS(padding.MGF1(hashes.SHA512()), DIGEST_LENGTH), SHA256),
            (padding.PSS(padding.MGF1(SHA256), padding.PSS.MAX_LENGTH), SHA256),
            (padding.OAEP(padding.MGF1(SHA256), SHA256, None), SHA256),
            (padding.PKCS1v15(), hashes.SHA1()),  # noqa: S303 (it is refused)
            (padding.PKCS1v15(), hashes.SHA3_256()),
        ],
        ids=["mask", "salt", "oaep", "sha1", "sha3"],
    )
    def test_refuses_other_parameters(self, held: Held, pad: Any, hash: Any) -> None:
        """What the HSM does not sign with is said before it is asked."""
        with pytest.raises(errors.UnsupportedOperationError):
            held.key(A.RSA_2048).sign(b"m", pad, hash)


def test_elliptic_curves(held: Held) -> None:
    """A key knows its curve, signs by its own hash only, and gives no bare secret."""
    key = held.key(A.EC_P384)

    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert ("secp384r1", 384) == (key.curve.name, key.key_size)
    with pytest.raises(errors.InvalidInputError):
        key.sign(b"m", ec.ECDSA(hashes.SHA256()))
    with pytest.raises(errors.UnsupportedOperationError):
        key.exchange(ec.ECDH(), key.public_key())


def test_ml_dsa(held: Held) -> None:
    """A context and a mu are signed as the standard says."""
    key = held.key(A.ML_DSA_65)

    key.public_key().verify(key.sign(b"m", b"context"), b"m", b"context")
    with pytest.raises(errors.InvalidInputError):
        key.sign_mu(b"m")


@pytest.mark.parametrize("algorithm", SIGNERS)
def test_nothing_leaves(held: Held, algorithm: Algorithm) -> None:
    """A key gives no private form, is not pickled, and copies are itself."""
    key = held.key(algorithm)
    form = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )

    with pytest.raises(errors.UnsupportedOperationError):
        key.private_bytes(*form)
    for name in ("private_bytes_raw", "private_numbers"):
        with pytest.raises(errors.UnsupportedOperationError):
            getattr(key, name)()
    with pytest.raises(TypeError):
        pickle.dumps(key)
    assert key is copy.copy(key) is copy.deepcopy(key)
    assert f"{key.key_id} version 1" in repr(key)


def test_a_rotated_key_signs_no_more(held: Held) -> None:
    """A signature that the public key would not verify is not given out."""
    key_id = held.session.create_key(A.EC_P256).key_id
    key = open_private_key(held.hsm, key_id)
    assert isinstance(key, HSMEllipticCurveKey)
    held.session.rotate(key_id)

    with pytest.raises(errors.ConflictError) as caught:
        key.sign(b"m", ec.ECDSA(hashes.SHA256()))

    assert {"field": "version", "expected": 1, "actual": 2} == caught.value.facts
    fresh = open_private_key(held.hsm, key_id)
    assert 2 == fresh.version
    assert isinstance(issue(fresh, hashes.SHA256()), x509.Certificate)


@pytest.mark.parametrize(
    "algorithm",
    [
        A.SLH_DSA_SHA2_128F,
        A.MLDSA65_ED25519_SHA512,
        A.ML_KEM_768,
        A.X25519,
    ],
)
def test_no_such_objects(held: Held, algorithm: Algorithm) -> None:
    """Of what cryptography has no signing keys, there are none here."""
    key_id = held.session.create_key(algorithm).key_id

    with pytest.raises(errors.UnsupportedOperationError) as caught:
        open_private_key(held.hsm, key_id)

    assert str(algorithm) in str(caught.value)


def test_errors_of_the_hsm(held: Held) -> None:
    """A revoked key raises what the HSM says, through the library."""
    key_id = held.session.create_key(A.ED25519).key_id
    key = open_private_key(held.hsm, key_id)
    held.session.revoke(key_id, reason="lost")

    with pytest.raises(errors.KeyStateError):
        issue(key, None)


def test_an_rsa_key_is_one(held: Held) -> None:
    """What asks for a kind of key by its class finds it."""
    key = held.key(A.RSA_2048)

    assert isinstance(key, rsa.RSAPrivateKey)
    assert 2048 == key.key_size
