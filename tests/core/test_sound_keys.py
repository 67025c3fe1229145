# SPDX-License-Identifier: MIT
"""Keys from elsewhere that fit together and are bad; keys for two purposes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from hsm_core import errors, primitives
from hsm_core._internal.crypto.der import element, private_key_info
from hsm_core._internal.handlers import key_creation
from hsm_core.algorithms import ALGORITHMS, Algorithm, KeyFormat, KeyUsage
from hsm_core.session import Session
from hsm_core.testing import memory_hsm
from tests.core.hsm_support import facts_of, refused, session_of

A, U = Algorithm, KeyUsage
E = 65537

# Primes, found by search from round numbers on.
BIG = (3 << 1022) + 1037
NEXT = (3 << 1022) + 1697
NEAR = (3 << 1022) + (1 << 923) + 141
APART = (3 << 1022) + (1 << 925) + 267
FAR = (7 << 1021) + 309
PRIMORIAL = math.prod(
    n for n in range(2, 702) if all(n % d for d in range(2, math.isqrt(n) + 1))
)
ROCA_P, ROCA_Q = (
    multiple * PRIMORIAL + pow(E, power, PRIMORIAL)
    for multiple, power in ((6925650131069447, 2), (6925650131069422, 3))
)
"""Primes of the form of CVE-2017-15361."""
SHORT = (3 << 510) + 761
LONG = (3 << 1534) + 1837


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    """Give one HSM for all tests of this module."""
    with memory_hsm() as gateway:
        yield session_of(gateway)


def rsa_key(p: int, q: int, times: int = 0) -> bytes:
    """
    Return PKCS#8 of the RSA key of two primes; all its numbers belong together.

    The private exponent is the least one, and *times* the order of the group.
    """
    totient = (p - 1) * (q - 1)
    d = pow(E, -1, totient) + times * totient
    numbers = (0, p * q, E, d, p, q, d % (p - 1), d % (q - 1), pow(q, -1, p))
    inner = element(0x30, *map(integer, numbers))
    identifier = bytes.fromhex("300d06092a864886f70d0101010500")
    return element(0x30, integer(0) + identifier + element(4, inner))


def integer(number: int) -> bytes:
    """Return an INTEGER in DER."""
    return element(2, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def import_key(
    session: Session, algorithm: Algorithm, material: bytes, **more: Any
) -> None:
    """Import material, wrapped for a key of the HSM."""
    carrier = session.create_key("ML-KEM-1024", usages=[U.UNWRAP]).key_id
    public = session.public_key(carrier)
    wrapped = primitives.wrap_for_import(public.algorithm, public.der, material)
    session.import_key(algorithm, carrier, wrapped, **more)


def rsa_public(modulus: int) -> bytes:
    """Return SubjectPublicKeyInfo of an RSA modulus."""
    key = rsa.RSAPublicNumbers(E, modulus).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


ORDERS = {
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "secp521r1": int(
        "1fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffa"
        "51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409",
        16,
    ),
    "secp256k1": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
}
ALGORITHM_OF_CURVE = {
    "secp256r1": A.EC_P256,
    "secp521r1": A.EC_P521,
    "secp256k1": A.EC_SECP256K1,
}


def private_der(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return PKCS#8."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


class TestRSA:
    @pytest.mark.parametrize(
        ("p", "q"),
        [
            *((NEXT, BIG), (NEAR, BIG), (BIG, NEAR), (LONG, SHORT), (SHORT, LONG)),
            (ROCA_P, ROCA_Q),
        ],
        ids=["next", "near", "reversed", "short", "reversed-short", "roca"],
    )
    def test_a_modulus_that_is_easy_to_factor(
        self, session: Session, p: int, q: int
    ) -> None:
        """Primes that are close, of unlike length or of ROCA's form are refused."""
        material = rsa_key(p, q)
        with refused(errors.InvalidInputError, "material"):
            primitives.load_private_key(A.RSA_2048, material)

        with pytest.raises(errors.InvalidInputError, match="neither close") as caught:
            import_key(session, A.RSA_2048, material)
        assert "material" == facts_of(caught)[0]

    @pytest.mark.parametrize("q", [APART, FAR])
    def test_a_sound_modulus(self, q: int) -> None:
        """Primes of one length that differ in their first 100 bits are taken."""
        handle = primitives.load_private_key(A.RSA_2048, rsa_key(BIG, q))
        assert handle.public_der() == rsa_public(BIG * q)

    @pytest.mark.parametrize("times", [2, 1 << 10_000])
    def test_a_private_exponent_beyond_the_modulus(self, times: int) -> None:
        """A private exponent is less than the modulus, however well it works."""
        with pytest.raises(errors.InvalidInputError):
            primitives.load_private_key(A.RSA_2048, rsa_key(BIG, FAR, times))

    @pytest.mark.parametrize("factor", [2, 3, 751])
    def test_a_public_modulus_with_a_small_factor(self, factor: int) -> None:
        """A public modulus that anybody sees to be wrong is refused."""
        modulus = BIG * FAR
        modulus -= modulus % (2 * factor) - (factor if factor > 2 else 0)
        assert (0, 2048) == (modulus % factor, modulus.bit_length())
        with refused(errors.InvalidInputError, "public_key"):
            primitives.load_public_key(A.RSA_2048, rsa_public(modulus))


class TestRepeatedByte:
    @pytest.mark.parametrize("byte", [b"\0", b"A", b"\xff"])
    @pytest.mark.parametrize(
        "algorithm",
        [
            *(A.AES_256_GCM, A.CHACHA20_POLY1305, A.HMAC_SHA_512, A.AES_128_KW),
            *(A.HKDF_SHA_256, A.ML_KEM_768, A.ML_DSA_65),
        ],
    )
    def test_a_secret_of_one_byte(
        self, session: Session, algorithm: Algorithm, byte: bytes
    ) -> None:
        """A key or seed that is one byte repeated is refused on import."""
        row = ALGORITHMS[algorithm]
        form = KeyFormat.SEED if row.is_asymmetric else KeyFormat.RAW
        material = byte * (row.key_bytes or row.private_bytes)

        with pytest.raises(errors.InvalidInputError, match="repeated") as caught:
            import_key(session, algorithm, material, format=form)
        assert "material" == facts_of(caught)[0]

    def test_a_private_key_of_one_byte(self, session: Session) -> None:
        """The same goes for PKCS#8 of a curve whose private key is any bytes."""
        material = bytes.fromhex("302e020100300506032b657004220420") + bytes(32)

        with pytest.raises(errors.InvalidInputError, match="repeated"):
            import_key(session, A.ED25519, material)

    @pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP521R1, ec.SECP256K1])
    @pytest.mark.parametrize("scalar", ["1", "2", "-1", "-2", "repeated"])
    def test_a_scalar_that_everybody_knows(
        self, session: Session, curve: type[ec.EllipticCurve], scalar: str
    ) -> None:
        """So does a curve's scalar, and one by ±1 or ±2 of the order."""
        size = (curve().key_size + 7) // 8
        value = int.from_bytes(b"\1" * size)
        if scalar != "repeated":
            value = int(scalar) % ORDERS[curve().name]
        key = ec.derive_private_key(value, curve())
        with pytest.raises(errors.InvalidInputError, match="repeated"):
            import_key(session, ALGORITHM_OF_CURVE[curve().name], private_der(key))

    @pytest.mark.parametrize("half", [0, 1])
    def test_half_a_seed_of_one_byte(self, session: Session, half: int) -> None:
        """Each half of an ML-KEM seed counts for itself."""
        parts = [bytes(range(32)), bytes(range(32))]
        parts[half] = bytes(32)
        seed = b"".join(parts)
        with pytest.raises(errors.InvalidInputError, match="repeated"):
            import_key(session, A.ML_KEM_768, seed, format=KeyFormat.SEED)


class TestSeedAndExpandedKey:
    @pytest.mark.parametrize("algorithm", [A.ML_KEM_512, A.ML_KEM_768, A.ML_DSA_44])
    def test_a_part_that_is_empty(self, algorithm: Algorithm) -> None:
        """Of the form with both parts, neither may be empty."""
        seed = bytes(ALGORITHMS[algorithm].private_bytes)
        only = b"\x04" + bytes([len(seed)]) + seed
        for parts in (only + b"\x04\x00", b"\x04\x00" + only, b"\x04\x00\x04\x00"):
            octets = b"\x30" + bytes([len(parts)]) + parts
            with pytest.raises(errors.InvalidInputError, match="PKCS#8") as caught:
                primitives.load_private_key(
                    algorithm, private_key_info(algorithm, octets)
                )
            assert "material" == facts_of(caught)[0]


class TestOnePurpose:
    @pytest.mark.parametrize(
        ("algorithm", "opens"),
        [
            ("rsa3072", U.DECRYPT),
            ("ML-KEM-1024", U.DECAPSULATE),
            ("ML-KEM-1024", U.DECRYPT),
            ("MLKEM768-X25519-SHA3-256", U.DECAPSULATE),
        ],
    )
    def test_wrapping_keys_open_nothing_for_callers(
        self, session: Session, algorithm: str, opens: KeyUsage
    ) -> None:
        """A key can't be made for wrapping and for decryption by callers."""
        for transport in (U.WRAP, U.UNWRAP):
            with pytest.raises(errors.InvalidInputError, match="SP 800-57") as caught:
                session.create_key(algorithm, usages=[transport, opens])
            assert "usages" == facts_of(caught)[0]

    @pytest.mark.parametrize("signs", [U.SIGN, U.VERIFY])
    @pytest.mark.parametrize(
        "other", [U.ENCRYPT, U.DECRYPT, U.WRAP, U.UNWRAP, U.DERIVE]
    )
    @pytest.mark.parametrize("algorithm", ["rsa2048", "p256"])
    def test_signing_keys_do_nothing_else(
        self, session: Session, algorithm: str, signs: KeyUsage, other: KeyUsage
    ) -> None:
        """A key that signs or verifies can't be made for anything else."""
        with refused(errors.InvalidInputError, "usages"):
            session.create_key(algorithm, usages=[signs, other])

    def test_keys_of_earlier_releases(
        self, session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A key that was made for two purposes keeps both, and is rotated as it is."""
        monkeypatch.setattr(key_creation, "_PURPOSES", ())
        usages = [U.SIGN, U.VERIFY, U.ENCRYPT, U.DECRYPT]
        key = session.create_key("rsa2048", usages=usages).key_id
        monkeypatch.undo()
        sealed = session.encrypt(key, b"secret")
        session.rotate(key)

        session.verify(key, b"m", session.sign(key, b"m").signature)
        assert b"secret" == session.decrypt(key, sealed)

    def test_imported_keys_neither(self, session: Session) -> None:
        """The same goes for a key that comes from elsewhere."""
        pair = primitives.private_key_from_seed(A.ML_KEM_768, bytes(64))
        usages = [U.UNWRAP, U.DECAPSULATE]
        with refused(errors.InvalidInputError, "usages"):
            import_key(session, A.ML_KEM_768, pair.material, usages=usages)
