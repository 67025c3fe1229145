# SPDX-License-Identifier: MIT
"""Keys that come from elsewhere, wrapped: ImportKey."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from hsm_core import errors, primitives
from hsm_core._internal.crypto.der import (
    private_key_info,
    read_private_form,
    read_private_key_info,
)
from hsm_core.algorithms import ALGORITHMS, Algorithm, KeyFormat, KeyUsage
from hsm_core.session import Session
from hsm_core.testing import memory_hsm
from tests.core.hsm_support import (
    SEEDED,
    WRAP,
    Outside,
    facts_of,
    require_algorithm,
    session_of,
    wrap_for,
    wrapping_keys,
)
from tests.support import require_program

A = Algorithm


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    """Give one HSM for all tests of this module."""
    with memory_hsm() as gateway:
        yield session_of(gateway)


@pytest.fixture(scope="module")
def wrapping(session: Session) -> dict[Algorithm, str]:
    """Give wrapping keys by algorithm."""
    return wrapping_keys(session)


def pkcs8(key: PrivateKeyTypes) -> bytes:
    """Return PKCS#8 as another library writes it."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture(scope="module")
def outside(session: Session, wrapping: dict[Algorithm, str]) -> Outside:
    """Give somebody outside, who wraps to ML-KEM-1024."""
    return Outside(session, wrapping[A.ML_KEM_1024])


@cache
def weak_rsa(bits: int, exponent: int = 65537) -> bytes:
    """Return PKCS#8 of an RSA key that another library made."""
    return pkcs8(rsa.generate_private_key(exponent, bits))


def rsa_of(p: int, q: int, *, e: int = 65537) -> bytes:
    """Return PKCS#8 of an RSA key of these factors, whatever they are."""
    n, totient = p * q, (p - 1) * (q - 1)
    d = pow(e, -1, totient)
    numbers = (0, n, e, d, p, q, d % (p - 1), d % (q - 1), pow(q, -1, p))
    body = b"".join(_integer(number) for number in numbers)
    inner = _element(0x30, body)
    identifier = bytes.fromhex("300d06092a864886f70d0101010500")
    return _element(0x30, b"\2\1\0" + identifier + _element(4, inner))


def _integer(number: int) -> bytes:
    return _element(2, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _element(tag: int, body: bytes) -> bytes:
    if len(body) < 0x80:
        return bytes([tag, len(body)]) + body
    octets = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + body


class TestImportOfRSA:
    def test_a_sound_key(self, session: Session, outside: Outside) -> None:
        """A key that another library made is imported."""
        key = outside.imports("rsa2048", weak_rsa(2048))

        session.verify(key, b"m", session.sign(key, b"m").signature)

    def test_a_small_exponent(self, outside: Outside) -> None:
        """Exponent 3 is refused, and the right one named."""
        with pytest.raises(errors.InvalidInputError, match="65537") as caught:
            outside.imports("rsa2048", weak_rsa(2048, 3))

        assert "material" == caught.value.facts["field"]

    @pytest.mark.parametrize("bits", [1024, 2047, 3072])
    def test_other_lengths(self, outside: Outside, bits: int) -> None:
        """A modulus of another length is refused, and the right one named."""
        with pytest.raises(errors.InvalidInputError, match="exactly 2048") as caught:
            outside.imports("rsa2048", weak_rsa(bits))

        assert "material" == caught.value.facts["field"]

    def test_factors_that_are_not_prime(self, outside: Outside) -> None:
        """A factor that is the product of two primes is refused."""
        q = rsa.generate_private_key(65537, 2048).private_numbers().p
        p = 0
        # It has one bit less now and then, or an order that the exponent divides.
        while (p * q).bit_length() != 2048 or (p - 1) % 65537 == 0:
            half = rsa.generate_private_key(65537, 1024).private_numbers()  # noqa: S505
            p = half.p * half.q
        material = rsa_of(p, q)

        with pytest.raises(errors.InvalidInputError, match="two prime factors"):
            outside.imports("rsa2048", material)

    def test_numbers_that_don_t_belong_together(self, outside: Outside) -> None:
        """A changed private exponent is refused."""
        numbers = rsa.generate_private_key(65537, 2048).private_numbers()
        good = rsa_of(numbers.p, numbers.q)
        d = pow(65537, -1, (numbers.p - 1) * (numbers.q - 1))
        wrong = good.replace(_integer(d), _integer(d ^ 2))
        outside.imports("rsa2048", good)

        with pytest.raises(errors.InvalidInputError):
            outside.imports("rsa2048", wrong)


class TestImportOfOtherKeys:
    def test_ec_keys(self, session: Session, outside: Outside) -> None:
        """An EC key from another library is imported, on its own curve only."""
        made = ec.generate_private_key(ec.SECP256R1())

        key = outside.imports("p256", pkcs8(made))

        session.verify(key, b"m", session.sign(key, b"m").signature)
        for name in ("p384", "ed25519", "rsa2048", "ML-DSA-44"):
            with pytest.raises(errors.InvalidInputError) as caught:
                outside.imports(name, pkcs8(made))
            assert "material" == caught.value.facts["field"]

    def test_a_point_of_another_key(self, outside: Outside) -> None:
        """An EC key that carries another key's point, or none of the curve, fails."""
        made, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        points = [
            one.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            for one in (made, other)
        ]
        nowhere = points[0][:-1] + bytes([points[0][-1] ^ 1])

        for point in (points[1], nowhere):
            material = pkcs8(made).replace(points[0], point)
            with pytest.raises(errors.InvalidInputError):
                outside.imports("p256", material)

    def test_curve_25519(self, session: Session, outside: Outside) -> None:
        """Ed25519 and X25519 keys are imported, and not mistaken for each other."""
        signing = pkcs8(ed25519.Ed25519PrivateKey.generate())
        agreeing = pkcs8(x25519.X25519PrivateKey.generate())

        key = outside.imports("ed25519", signing)
        outside.imports("x25519", agreeing)

        session.verify(key, b"m", session.sign(key, b"m").signature)
        for name, material in (("x25519", signing), ("ed25519", agreeing)):
            with pytest.raises(errors.InvalidInputError):
                outside.imports(name, material)

    @pytest.mark.parametrize(
        ("algorithm", "size"), [("aes", 32), ("aes128gcm", 16), ("hs512", 64)]
    )
    def test_symmetric_keys(
        self, session: Session, outside: Outside, algorithm: str, size: int
    ) -> None:
        """A symmetric key has its length, and the error names it."""
        outside.imports(algorithm, bytes(range(size)))

        for wrong in (size - 1, size + 1, 8):
            with pytest.raises(errors.InputSizeError) as caught:
                outside.imports(algorithm, bytes(wrong))
            assert ("material", size, size) == facts_of(caught)

    @pytest.mark.parametrize("material", [b"\x30", b"\x30\x80", bytes(200)])
    @pytest.mark.parametrize(
        "algorithm", ["rsa2048", "p256", "x25519", "ML-KEM-768", "ML-DSA-65"]
    )
    def test_junk(self, outside: Outside, algorithm: str, material: bytes) -> None:
        """What is not PKCS#8 is refused as the material."""
        with pytest.raises(errors.InvalidInputError) as caught:
            outside.imports(algorithm, material)

        assert "material" == caught.value.facts["field"]


class TestImportOfPostQuantumKeys:
    @pytest.mark.parametrize("algorithm", SEEDED)
    def test_seeds(
        self, session: Session, outside: Outside, algorithm: Algorithm
    ) -> None:
        """A bare seed is a key; one of another length is refused by number."""
        require_algorithm(session, algorithm)
        size = ALGORITHMS[algorithm].private_bytes
        seed = bytes(range(size))

        key = outside.imports(algorithm, seed, KeyFormat.SEED)

        pair = primitives.private_key_from_seed(algorithm, seed)
        assert pair.public_der == session.public_key(key).der
        for wrong in (seed[1:], seed + b"\0"):
            with pytest.raises(errors.InputSizeError) as caught:
                outside.imports(algorithm, wrong, KeyFormat.SEED)
            assert ("material", size, size) == facts_of(caught)

    @pytest.mark.parametrize("algorithm", SEEDED)
    def test_forms_of_openssl(
        self, session: Session, outside: Outside, tmp_path: Path, algorithm: Algorithm
    ) -> None:
        """
        Of the three forms that OpenSSL writes, those with a seed are taken.

        The expanded form alone is refused with the reason, and a seed beside another
        key's expansion is too.
        """
        require_algorithm(session, algorithm)
        forms = {
            form: _openssl_key(tmp_path, algorithm, form)
            for form in ("seed-only", "seed-priv", "priv-only")
        }
        both = read_private_form(algorithm, forms["seed-priv"])

        for form in ("seed-only", "seed-priv"):
            key = outside.imports(algorithm, forms[form])
            seed = read_private_form(algorithm, forms[form]).seed
            pair = primitives.private_key_from_seed(algorithm, seed)
            assert pair.public_der == session.public_key(key).der
        with pytest.raises(errors.InvalidInputError, match="expanded") as caught:
            outside.imports(algorithm, forms["priv-only"])
        assert "material" == caught.value.facts["field"]
        other = read_private_form(algorithm, forms["priv-only"]).expanded
        assert other not in {b"", both.expanded}
        mixed = forms["seed-priv"].replace(both.expanded, other)
        with pytest.raises(errors.InvalidInputError, match="seed"):
            outside.imports(algorithm, mixed)

    def test_only_the_seed_is_kept(
        self,
        session: Session,
        outside: Outside,
        wrapping: dict[Algorithm, str],
        tmp_path: Path,
    ) -> None:
        """A key imported with its expansion leaves as its seed."""
        algorithm = A.ML_KEM_768
        both = _openssl_key(tmp_path, algorithm, "seed-priv")
        key = outside.imports(algorithm, both)

        out = session.export_key(key, wrapping[A.AES_256_KW])

        assert len(out.wrapped) < 128

    def test_mismatched_sets(self, outside: Outside) -> None:
        """A key of one parameter set is not one of another."""
        for one, other in itertools.permutations((A.ML_DSA_44, A.ML_DSA_65), 2):
            pair = primitives.generate(one)
            with pytest.raises(errors.InvalidInputError) as caught:
                outside.imports(other, pair.material)
            assert "material" == caught.value.facts["field"]


class TestImportOfComposites:
    @pytest.mark.parametrize(
        "algorithm", [A.MLDSA65_ECDSA_P256_SHA512, A.MLKEM768_X25519_SHA3_256]
    )
    def test_halves(self, outside: Outside, algorithm: Algorithm) -> None:
        """A composite is imported whole; a half is no composite, nor the reverse."""
        whole = primitives.generate(algorithm).material
        outside.imports(algorithm, whole)

        for half in ALGORITHMS[algorithm].components:
            with pytest.raises(errors.InvalidInputError) as caught:
                outside.imports(algorithm, primitives.generate(half).material)
            assert "material" == caught.value.facts["field"]
            with pytest.raises(errors.InvalidInputError):
                outside.imports(half, whole)

    def test_a_half_under_the_composite_s_name(self, outside: Outside) -> None:
        """Octets of one half under the composite's OID are refused."""
        algorithm = A.MLKEM768_X25519_SHA3_256
        whole = read_private_key_info(
            algorithm, primitives.generate(algorithm).material
        )

        for octets in (whole[:64], whole[64:], whole + b"\0", whole[:-1]):
            with pytest.raises(errors.InvalidInputError):
                outside.imports(algorithm, private_key_info(algorithm, octets))


class TestImportIsRefused:
    def test_wrong_wrappings_have_one_answer(
        self, session: Session, wrapping: dict[Algorithm, str]
    ) -> None:
        """Whatever is wrong with a wrapping, the answer is one and the same."""
        answers = set()
        for by in (A.AES_256_KW, A.RSA_3072, A.ML_KEM_768):
            if by is A.AES_256_KW:
                key = session.create_key("aes", exportable=True).key_id
                good = session.export_key(key, wrapping[by]).wrapped
            else:
                good = wrap_for(session, wrapping[by], bytes(32))
            for wrapped in (
                b"",
                b"\0",
                good[:-1],
                good[:-8],
                good + b"\0",
                bytes(len(good)),
                bytes([good[0] ^ 1]) + good[1:],
                good[:-1] + bytes([good[-1] ^ 1]),
            ):
                with pytest.raises(errors.DecryptionError) as caught:
                    session.import_key("aes", wrapping[by], wrapped)
                answers.add((str(caught.value), tuple(caught.value.facts)))

        assert 1 == len(answers)

    def test_by_a_key_without_the_usage(self, session: Session) -> None:
        """A key that may not unwrap imports nothing."""
        by = session.create_key("ML-KEM-768").key_id

        with pytest.raises(errors.KeyUsageError) as caught:
            session.import_key("aes", by, wrap_for(session, by, bytes(32)))

        assert "wrapping_key_id" == caught.value.facts["field"]

    def test_facts_of_the_new_key(
        self, session: Session, wrapping: dict[Algorithm, str]
    ) -> None:
        """Names, usages and forms are checked before anything is unwrapped."""
        by = wrapping[A.ML_KEM_768]
        junk = bytes(8)
        taken = session.create_key("aes", name="taken").name

        with pytest.raises(errors.NameTakenError):
            session.import_key("aes", by, junk, name=taken)
        with pytest.raises(errors.UnsupportedOperationError, match="usages"):
            session.import_key("aes", by, junk, usages=[KeyUsage.SIGN])
        with pytest.raises(errors.UnsupportedOperationError, match="format"):
            session.import_key("aes", by, junk, format=KeyFormat.SEED)
        with pytest.raises(errors.UnknownAlgorithmError, match="ML-DSA-44"):
            session.import_key("ML-DSA-135", by, junk)

    def test_the_trail_has_it_without_the_key(self, session: Session) -> None:
        """A refused import is recorded with its code, and no byte of material."""
        by = session.create_key("ML-KEM-768", usages=WRAP).key_id
        with pytest.raises(errors.InputSizeError):
            session.import_key("aes", by, wrap_for(session, by, b"\x5a" * 31))

        newest = session.audit_events(limit=1)[0].event

        assert ("ImportKey", "input_size") == (newest.kind, newest.code)
        assert by == newest.parameters["wrapping_key_id"]
        assert (b"\x5a" * 8).hex() not in repr(newest.parameters)


def _openssl_key(folder: Path, algorithm: Algorithm, form: str) -> bytes:
    """Return PKCS#8 of a new key, written by OpenSSL in one of its forms."""
    program, path = require_program("openssl"), folder / f"{algorithm}-{form}.der"
    kind = "ml-kem" if algorithm.startswith("ML-KEM") else "ml-dsa"
    subprocess.run(
        [
            *(program, "genpkey", "-algorithm", algorithm.value, "-outform", "DER"),
            *("-provparam", f"{kind}.output_formats={form}", "-out", str(path)),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return path.read_bytes()
