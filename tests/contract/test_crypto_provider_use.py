# SPDX-License-Identifier: MIT
"""What every `CryptoProvider` promises of uses: limits, refusals, wrong lengths."""

from __future__ import annotations

import hashlib

import pytest

from hsm_core._internal.crypto.der import read_public_key_info
from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family, spec
from hsm_core.errors import (
    DecryptionError,
    InputSizeError,
    InvalidInputError,
    SignatureMismatchError,
    UnsupportedOperationError,
)
from hsm_core.protocols import OAEPParameters, SignatureParameters
from tests.contract.provider_rows import (
    MESSAGE,
    SIGNING,
    Row,
    altered,
    label,
    private,
    public,
    rows,
    signature,
)

WITH_CONTEXT = [r for r in rows() if ALGORITHMS[r[1]].max_context_bytes]
HEDGED = [
    r for r in rows() if ALGORITHMS[r[1]].is_signature and ALGORITHMS[r[1]].is_pqc
]


class TestSignatures:
    @pytest.mark.parametrize("row", SIGNING, ids=label)
    def test_verifies(self, row: Row) -> None:
        """
        A signature is of this message and key, and no bit of it may be another.
        """
        made, parameters = signature(row), signature_parameters(row[1])
        public(row).verify(MESSAGE, made, parameters)

        assert len(made) <= spec(row[1]).signature_bytes
        wrong = [altered(made, at) for at in (0, len(made) // 2, len(made) - 1)]
        for data, signed in [(MESSAGE + b"\0", made), *((MESSAGE, w) for w in wrong)]:
            with pytest.raises(SignatureMismatchError):
                public(row).verify(data, signed, parameters)

    @pytest.mark.parametrize("row", SIGNING, ids=label)
    def test_wrong_length(self, row: Row) -> None:
        """
        A signature of another length is wrong, like any other.
        """
        made, parameters = signature(row), signature_parameters(row[1])
        for wrong in (b"", made[:1], made[:-1], made + b"\0", made + made):
            with pytest.raises(SignatureMismatchError):
                public(row).verify(MESSAGE, wrong, parameters)

    @pytest.mark.parametrize(
        "row", [r for r in rows(slow=True) if spec(r[1]).is_signature], ids=label
    )
    def test_public_half_can_not_sign(self, row: Row) -> None:
        """
        A public key signs nothing.
        """
        with pytest.raises(UnsupportedOperationError):
            public(row).sign(MESSAGE, signature_parameters(row[1]))

    @pytest.mark.parametrize("row", WITH_CONTEXT, ids=label)
    def test_context(self, row: Row) -> None:
        """
        A context of 255 bytes is signed; it belongs to the signature to the last byte.
        """
        context = bytes(range(255))
        parameters = signature_parameters(row[1], context=context)
        made = private(row).sign(MESSAGE, parameters)
        public(row).verify(MESSAGE, made, parameters)

        for other in (b"", context[:-1], altered(context, -1)):
            with pytest.raises(SignatureMismatchError):
                public(row).verify(
                    MESSAGE, made, signature_parameters(row[1], context=other)
                )

    @pytest.mark.parametrize("row", WITH_CONTEXT, ids=label)
    def test_context_too_long(self, row: Row) -> None:
        """
        A context of 256 bytes is refused, to sign and to verify, and the limit named.
        """
        good = signature_parameters(row[1])
        long = SignatureParameters(
            scheme=good.scheme,
            hash=good.hash,
            mgf_hash=good.mgf_hash,
            context=bytes(256),
        )
        for attempt in (
            lambda: private(row).sign(MESSAGE, long),
            lambda: public(row).verify(MESSAGE, b"", long),
        ):
            with pytest.raises(InputSizeError) as caught:
                attempt()
            assert ("context", 255) == (
                caught.value.facts["field"],
                caught.value.facts["maximum"],
            )

    @pytest.mark.parametrize("row", HEDGED, ids=label)
    def test_hedged(self, row: Row) -> None:
        """
        The same message gives another signature each time.
        """
        parameters = signature_parameters(row[1])
        one, other = (private(row).sign(MESSAGE, parameters) for _ in range(2))

        assert one != other

    @pytest.mark.parametrize("row", rows(Family.ML_DSA), ids=label)
    def test_external_mu(self, row: Row) -> None:
        """
        Signing mu is signing the message and context that it stands for.
        """
        raw = read_public_key_info(row[1], public(row).public_der())
        start = b"\0\3ctx"
        tr = hashlib.shake_256(raw).digest(64)
        mu = hashlib.shake_256(tr + start + MESSAGE).digest(64)
        external = signature_parameters(row[1], external_mu=True)
        plain = signature_parameters(row[1], context=b"ctx")

        public(row).verify(MESSAGE, private(row).sign(mu, external), plain)
        public(row).verify(mu, private(row).sign(MESSAGE, plain), external)
        for size in (0, 63, 65):
            with pytest.raises(InputSizeError) as caught:
                private(row).sign(bytes(size), external)
            assert "mu" == caught.value.facts["field"]


@pytest.mark.parametrize("row", rows(Family.ML_KEM, Family.COMPOSITE_KEM), ids=label)
class TestKEM:
    def test_fresh(self, row: Row) -> None:
        """
        Each encapsulation is another, of the sizes in the table.
        """
        first, second = (public(row).encapsulate() for _ in range(2))

        assert first[0] != second[0]
        assert first[1] != second[1]
        for secret, ciphertext in (first, second):
            assert spec(row[1]).shared_secret_bytes == len(secret)
            assert spec(row[1]).ciphertext_bytes == len(ciphertext)
            assert secret == private(row).decapsulate(ciphertext)

    def test_implicit_rejection(self, row: Row) -> None:
        """
        A changed encapsulation gives another secret, always the same, and no error.
        """
        secret, ciphertext = public(row).encapsulate()
        changed = altered(ciphertext, 0)
        rejected = private(row).decapsulate(changed)

        assert rejected != secret
        assert len(rejected) == len(secret)
        assert rejected == private(row).decapsulate(changed)

    def test_wrong_length(self, row: Row) -> None:
        """
        An encapsulation of another length is refused, and both lengths are named.
        """
        _, ciphertext = public(row).encapsulate()
        for wrong in (b"", ciphertext[:-1], ciphertext + b"\0"):
            with pytest.raises(InputSizeError) as caught:
                private(row).decapsulate(wrong)
            facts = caught.value.facts
            assert ("ciphertext", len(wrong)) == (facts["field"], facts["actual"])
            assert len(ciphertext) == facts["maximum"]

    def test_public_half_can_not_decapsulate(self, row: Row) -> None:
        """
        A public key opens nothing.
        """
        _, ciphertext = public(row).encapsulate()
        with pytest.raises(UnsupportedOperationError):
            public(row).decapsulate(ciphertext)


class TestSymmetric:
    @pytest.mark.parametrize("row", rows(Family.AEAD), ids=label)
    def test_aead(self, row: Row) -> None:
        """
        Whatever is changed or cut, nothing is opened; a nonce has 12 bytes.
        """
        handle, nonce = private(row), bytes(range(12))
        sealed = handle.seal(nonce, MESSAGE, b"aad")
        wrong = [altered(sealed, at) for at in (0, len(MESSAGE), -1)]
        wrong += [b"", sealed[:15], sealed[:-1], sealed + b"\0"]

        for bad in (*((nonce, w, b"aad") for w in wrong), (nonce, sealed, b"dad")):
            with pytest.raises(DecryptionError):
                handle.open(*bad)
        for size in (0, 11, 13, 16):
            with pytest.raises(InputSizeError):
                handle.seal(bytes(size), MESSAGE, b"")
            with pytest.raises(DecryptionError):
                handle.open(bytes(size), sealed, b"aad")

    @pytest.mark.parametrize("row", rows(Family.KEY_WRAP), ids=label)
    def test_key_wrap(self, row: Row) -> None:
        """
        Lengths are those of the mechanisms, and what was changed is not unwrapped.
        """
        handle = private(row)
        for size in (0, 8, 17):
            with pytest.raises(InputSizeError):
                handle.wrap(bytes(size), padded=False)
        with pytest.raises(InputSizeError):
            handle.wrap(b"", padded=True)
        for padded in (False, True):
            wrapped = handle.wrap(bytes(24), padded=padded)
            for wrong in (altered(wrapped, 3), wrapped[:-8], b"", wrapped[:-1]):
                with pytest.raises(DecryptionError):
                    handle.unwrap(wrong, padded=padded)
            with pytest.raises(DecryptionError):
                handle.unwrap(wrapped, padded=not padded)

    @pytest.mark.parametrize("row", rows(Family.KDF), ids=label)
    def test_derivation(self, row: Row) -> None:
        """
        1 byte to 255 blocks can be derived; salt and info count.
        """
        most = 255 * spec(row[1]).hashes[0].digest_bytes
        handle = private(row)
        longest = handle.derive(b"salt", b"info", most)

        assert longest[:1] == handle.derive(b"salt", b"info", 1)
        assert longest[:32] != handle.derive(b"salt", b"", 32)
        assert longest[:32] != handle.derive(b"", b"info", 32)
        for size in (0, most + 1):
            with pytest.raises(InputSizeError):
                handle.derive(b"", b"", size)


class TestClassical:
    @pytest.mark.parametrize(
        "row",
        [r for r in rows(Family.ECDSA, Family.ECDH) if spec(r[1]).shared_secret_bytes],
        ids=label,
    )
    def test_agreement(self, row: Row) -> None:
        """
        Only keys of the same curve agree, and never on zeros.
        """
        handle = private(row)
        others = [r for r in rows(Family.ECDSA, Family.ECDH) if r[1] is not row[1]]
        wrong = [
            b"",
            handle.public_der()[:-1],
            *(public(r).public_der() for r in others),
        ]
        if row[1] is Algorithm.X25519:
            wrong.append(handle.public_der()[:-32] + bytes(32))

        for peer in wrong:
            with pytest.raises(InvalidInputError):
                handle.agree(peer)

    @pytest.mark.parametrize("row", rows(Family.RSA), ids=label)
    def test_oaep(self, row: Row) -> None:
        """
        What RSA encrypts it decrypts, and nothing that was changed or cut.
        """
        oaep = OAEPParameters(label=b"label")
        ciphertext = public(row).encrypt(b"secret", oaep)

        assert b"secret" == private(row).decrypt(ciphertext, oaep)
        for wrong in (
            b"",
            ciphertext[:-1],
            ciphertext + b"\0",
            altered(ciphertext, -1),
        ):
            with pytest.raises(DecryptionError):
                private(row).decrypt(wrong, oaep)
        with pytest.raises(DecryptionError):
            private(row).decrypt(ciphertext, OAEPParameters())
