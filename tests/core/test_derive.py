# SPDX-License-Identifier: MIT
"""DeriveKey: HKDF keys, and ECDH with another party."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hsm_core import errors, primitives
from hsm_core.algorithms import (
    ALGORITHMS,
    Algorithm,
    DerivationFunction,
    HashAlgorithm,
    KeyUsage,
)
from hsm_core.model import KeyOrigin, Role
from hsm_core.session import Session
from hsm_core.testing import memory_hsm
from tests.core.hsm_support import WRAP, facts_of, session_of

A = Algorithm
SYMMETRIC = [a for a, row in ALGORITHMS.items() if not row.is_asymmetric]
HKDF_KEYS = {
    A.HKDF_SHA_256: hashes.SHA256(),
    A.HKDF_SHA_384: hashes.SHA384(),
    A.HKDF_SHA_512: hashes.SHA512(),
}
AGREEING = [
    row.algorithm
    for row in ALGORITHMS.values()
    if row.is_asymmetric and KeyUsage.DERIVE in row.usages
]
DERIVE = (KeyUsage.DERIVE,)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    """Give one HSM for all tests of this module."""
    with memory_hsm() as gateway:
        yield session_of(gateway)


def export(session: Session, key_id: str) -> bytes:
    """Return a symmetric key that was made exportable, plain."""
    # A wrapping key whose private half is known here, since it was made here.
    pair = primitives.generate(A.ML_KEM_1024)
    by = session.create_key("ML-KEM-1024", usages=WRAP).key_id
    public = session.public_key(by)
    wrapped = primitives.wrap_for_import(public.algorithm, public.der, pair.material)
    known = session.import_key("ML-KEM-1024", by, wrapped, usages=WRAP).key_id
    out = session.export_key(key_id, known)
    return primitives.unwrap_exported(A.ML_KEM_1024, pair.material, out.wrapped)


class TestHKDF:
    @pytest.mark.parametrize("base", HKDF_KEYS)
    def test_as_the_standard_says(self, session: Session, base: Algorithm) -> None:
        """A derived key is what another HKDF derives from the same key."""
        secret = bytes(range(ALGORITHMS[base].key_bytes))
        by = session.create_key("ML-KEM-768", usages=WRAP).key_id
        public = session.public_key(by)
        wrapped = primitives.wrap_for_import(public.algorithm, public.der, secret)
        key = session.import_key(base, by, wrapped, exportable=True).key_id

        made = session.derive_key(
            "hs512", key, salt=b"salt", info=b"info", exportable=True
        )

        expected = HKDF(HKDF_KEYS[base], 64, b"salt", b"info").derive(secret)
        assert expected == export(session, made.key_id)
        assert KeyOrigin.DERIVED is made.origin

    @pytest.mark.parametrize("algorithm", SYMMETRIC)
    def test_every_symmetric_algorithm(
        self, session: Session, algorithm: Algorithm
    ) -> None:
        """Every symmetric algorithm can be derived, with its usual usages."""
        base = session.create_key("hkdf").key_id

        made = session.derive_key(algorithm, base, hash=HashAlgorithm.SHA_256)

        usages = ALGORITHMS[algorithm].default_usages
        assert (algorithm, tuple(sorted(usages))) == (made.algorithm, made.usages)

    def test_salt_and_info_matter(self, session: Session) -> None:
        """Another salt, info or base gives another key, and the same the same."""
        first, second = (session.create_key("hkdf").key_id for _ in range(2))
        ways = [
            (first, b"", b""),
            (first, b"", b""),
            (first, b"salt", b""),
            (first, b"", b"info"),
            (second, b"", b""),
        ]

        macs = [
            session.mac(session.derive_key("hs256", b, salt=s, info=i).key_id, b"m").mac
            for b, s, i in ways
        ]

        assert macs[0] == macs[1]
        assert 4 == len(set(macs))


class TestAgreement:
    @pytest.mark.parametrize("algorithm", AGREEING)
    @pytest.mark.parametrize("hash", [None, HashAlgorithm.SHA_384])
    def test_both_parties(
        self, session: Session, algorithm: Algorithm, hash: HashAlgorithm | None
    ) -> None:
        """Two HSM keys, and a party outside, derive the same key."""
        ours, theirs = (
            session.create_key(algorithm, usages=DERIVE).key_id for _ in range(2)
        )
        outside = primitives.generate(algorithm)
        ours_der = session.public_key(ours).der

        one = session.derive_key(
            "hs256",
            ours,
            peer_public_key=session.public_key(theirs).der,
            hash=hash,
            info=b"i",
        )
        other = session.derive_key(
            "hs256", theirs, peer_public_key=ours_der, hash=hash, info=b"i"
        )
        third = session.derive_key(
            "hs256", ours, peer_public_key=outside.public_der, hash=hash, info=b"i"
        )

        macs = [session.mac(k.key_id, b"m").mac for k in (one, other, third)]
        assert macs[0] == macs[1] != macs[2]
        secret = primitives.ecdh(algorithm, outside.material, ours_der)
        key = primitives.hkdf(hash or HashAlgorithm.SHA_256, secret, info=b"i")
        assert macs[2] == primitives.mac(A.HMAC_SHA_256, key, b"m")

    @pytest.mark.parametrize("algorithm", AGREEING)
    def test_bad_peers(self, session: Session, algorithm: Algorithm) -> None:
        """A peer's key that is none, of another curve, or of no use is refused."""
        key = session.create_key(algorithm, usages=DERIVE).key_id
        good = primitives.generate(algorithm).public_der
        others = [a for a in AGREEING if a is not algorithm]
        peers = [primitives.generate(a).public_der for a in others]
        peers += [b"", good[:-1], good + b"\0", bytes(len(good))]
        size = ALGORITHMS[algorithm].public_bytes
        peers.append(good[:-size] + bytes(size))
        if algorithm is not A.X25519:
            peers.append(good[:-1] + bytes([good[-1] ^ 1]))

        for peer in peers:
            with pytest.raises(errors.InvalidInputError) as caught:
                session.derive_key("aes", key, peer_public_key=peer)
            assert "peer_public_key" == facts_of(caught)[0]


class TestRefusals:
    def test_keys_for_one_purpose(self, session: Session) -> None:
        """A key that signs may not derive too, and the reason is told."""
        with pytest.raises(errors.InvalidInputError, match=r"SP 800-57") as caught:
            session.create_key("p256", usages=[KeyUsage.SIGN, KeyUsage.DERIVE])
        assert "usages" == facts_of(caught)[0]

        signer = session.create_key("p256").key_id
        deriver = session.create_key("p256", usages=DERIVE).key_id
        peer = primitives.generate(A.EC_P256).public_der
        with pytest.raises(errors.KeyUsageError) as usage:
            session.derive_key("aes", signer, peer_public_key=peer)
        assert ("base_key_id", "derive") == (
            usage.value.facts["field"],
            usage.value.facts["usage"],
        )
        with pytest.raises(errors.KeyUsageError):
            session.sign(deriver, b"m")

    def test_exportable_only_from_exportable(self, session: Session) -> None:
        """What a key that stays gives rise to stays too."""
        base = session.create_key("hkdf").key_id

        with pytest.raises(errors.KeyUsageError) as caught:
            session.derive_key("aes", base, exportable=True)

        assert "exportable" == facts_of(caught)[0]

    def test_missing_base(self, session: Session) -> None:
        """A base key that isn't there is told by its field."""
        with pytest.raises(errors.KeyNotFoundError) as caught:
            session.derive_key("aes", "no-such-key")

        assert "base_key_id" == facts_of(caught)[0]

    def test_revoked_base(self, session: Session) -> None:
        """A revoked key derives nothing; rotated, it derives from the new version."""
        base = session.create_key("hkdf").key_id
        before = session.mac(session.derive_key("hs256", base).key_id, b"m").mac
        session.revoke(base)
        with pytest.raises(errors.KeyStateError):
            session.derive_key("hs256", base)

        session.rotate(base)

        after = session.mac(session.derive_key("hs256", base).key_id, b"m").mac
        assert before != after

    def test_authority(self) -> None:
        """Operators derive; services use what there is."""
        with memory_hsm() as gateway:
            base = session_of(gateway, Role.ADMINISTRATOR).create_key("hkdf").key_id

            session_of(gateway, Role.OPERATOR).derive_key("aes", base)
            with pytest.raises(errors.AccessDeniedError):
                session_of(gateway, Role.SERVICE).derive_key("aes", base)


class TestTrail:
    def test_a_mutation_with_its_base(self, session: Session) -> None:
        """The trail tells base key and lengths, by intent and outcome."""
        base = session.create_key("hkdf").key_id
        made = session.derive_key("aes", base, info=b"12345", idempotency_key="d1")
        again = session.derive_key("aes", base, info=b"12345", idempotency_key="d1")

        events = [e.event for e in session.audit_events(key_id=made.key_id)]

        assert made.key_id == again.key_id
        assert [("DeriveKey", "single"), ("DeriveKey", "outcome")] == [
            (event.kind, event.phase) for event in events[:2]
        ]
        assert base == events[1].parameters["base_key_id"]
        assert 5 == events[1].parameters["info_bytes"]

    def test_a_derivation_counts(self, session: Session) -> None:
        """Deriving is a use of the base key."""
        base = session.create_key("hkdf").key_id

        for _ in range(3):
            session.derive_key("aes", base)

        use = session.describe(base).use
        assert use is not None
        assert 3 == use.uses


class TestOtherFunctions:
    """X9.63, and the shared secret as it is."""

    @pytest.mark.parametrize("base", AGREEING)
    @pytest.mark.parametrize("hash", [None, *HashAlgorithm])
    def test_x963(
        self, session: Session, base: Algorithm, hash: HashAlgorithm | None
    ) -> None:
        """The key is what the other side derives by X9.63."""
        key = session.create_key(base, usages=DERIVE, exportable=True).key_id
        ours = primitives.generate(base)
        agreed = primitives.ecdh(base, ours.material, session.public_key(key).der)

        made = session.derive_key(
            "hs512",
            key,
            peer_public_key=ours.public_der,
            function=DerivationFunction.X963,
            hash=hash,
            info=b"both",
            exportable=True,
        )

        name = (hash or HashAlgorithm.SHA_256).replace("-", "").lower()
        blocks = (
            hashlib.new(name, agreed + number.to_bytes(4, "big") + b"both").digest()
            for number in (1, 2)
        )
        assert b"".join(blocks)[:64] == export(session, made.key_id)

    @pytest.mark.parametrize("base", AGREEING)
    def test_none(self, session: Session, base: Algorithm) -> None:
        """The key is the end of the shared secret."""
        key = session.create_key(base, usages=DERIVE, exportable=True).key_id
        ours = primitives.generate(base)
        agreed = primitives.ecdh(base, ours.material, session.public_key(key).der)

        made = session.derive_key(
            "AES-128",
            key,
            peer_public_key=ours.public_der,
            function=DerivationFunction.NONE,
            exportable=True,
        )

        assert agreed[-16:] == export(session, made.key_id)

    @pytest.mark.parametrize(
        ("base", "field", "facts"),
        [
            ("hkdf", "function", {"function": DerivationFunction.X963}),
            ("p256", "salt", {"function": DerivationFunction.X963, "salt": b"s"}),
            ("p256", "info", {"function": DerivationFunction.NONE, "info": b"i"}),
            (
                "p256",
                "hash",
                {"function": DerivationFunction.NONE, "hash": HashAlgorithm.SHA_256},
            ),
            ("p256", "algorithm", {"function": DerivationFunction.NONE}),
            ("hkdf", "hash", {"hash": HashAlgorithm.SHA_512}),
            ("hkdf", "peer_public_key", {"peer_public_key": b"x"}),
            ("p256", "peer_public_key", {"peer_public_key": None}),
            ("hkdf", "algorithm", {"algorithm": "p256"}),
            ("hkdf", "algorithm", {"algorithm": "ML-KEM-768"}),
        ],
    )
    def test_what_is_refused(
        self, session: Session, base: str, field: str, facts: dict[str, Any]
    ) -> None:
        """
        What a function doesn't use, or can't do without, and what can't be derived.
        """
        key = session.create_key(base, usages=DERIVE).key_id
        peer = None if base == "hkdf" else primitives.generate(A.EC_P256).public_der
        usual = {"algorithm": "hs512", "base_key_id": key, "peer_public_key": peer}

        with pytest.raises(errors.InvalidInputError) as caught:
            session.derive_key(**usual | facts)

        assert field == facts_of(caught)[0]
