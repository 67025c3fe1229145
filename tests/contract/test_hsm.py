# SPDX-License-Identifier: MIT
"""What every `HSM` promises, however it is reached."""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization

from hsm_core import errors, primitives
from hsm_core import operations as ops
from hsm_core.algorithms import (
    ALGORITHMS,
    Algorithm,
    CiphertextEncoding,
    Cost,
    HashAlgorithm,
    KeyFormat,
    KeyUsage,
    SignatureEncoding,
    SignatureScheme,
    WrapMechanism,
)
from hsm_core.model import (
    BatchDetail,
    Integrity,
    KeyInfo,
    KeyOrigin,
    KeyState,
    Role,
    RotationRule,
)
from hsm_core.session import Session
from hsm_core.testing import caller
from tests import self_tests
from tests.contract.hsm_ways import WAYS, Connect, connect
from tests.core.hsm_support import facts_of, require_algorithm

RSA_CRYPT = (KeyUsage.ENCRYPT, KeyUsage.DECRYPT)
SIGNING = {
    (row.family, row.schemes[0]): algorithm
    for algorithm, row in reversed(ALGORITHMS.items())
    if row.is_signature
    and (row.use_cost is Cost.QUICK or algorithm is Algorithm.SLH_DSA_SHA2_128F)
}.values()
"""The first algorithm of each family; the others differ in the provider alone."""

WITH_CONTEXT = [a for a in SIGNING if ALGORITHMS[a].max_context_bytes]
KEMS = [a for a, row in ALGORITHMS.items() if row.is_kem]
AEADS = [Algorithm.AES_256_GCM, Algorithm.AES_128_GCM, Algorithm.CHACHA20_POLY1305]
WRAP = (KeyUsage.WRAP, KeyUsage.UNWRAP)


def _labels(key: KeyInfo) -> tuple[str, tuple[str, ...]]:
    return key.owner, key.tags


@pytest.fixture(scope="module", params=WAYS)
def reach(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Connect]:
    """Give one HSM, reached each way, for all tests of this module."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    with connect(request.param, folder) as found:
        yield found


@pytest.fixture
def session(reach: Connect) -> Session:
    """Give a session of an administrator who may also use keys."""
    return Session(reach(caller()))


def name() -> str:
    """Return a key name that no other test uses."""
    return f"k-{uuid.uuid4().hex[:20]}"


class TestKeys:
    def test_create_and_describe(self, session: Session) -> None:
        """A new key is active, at version 1, and described as it was created."""
        wanted = name()

        created = session.create_key(
            "p256", name=wanted, description="Ein Schlüssel", tags=["b", "a", "b"]
        )

        described = session.describe(created.key_id)
        assert created == msgspec.structs.replace(described, use=None)
        assert described == session.describe(wanted)
        assert (Algorithm.EC_P256, KeyState.ACTIVE, 1, 1, Integrity.OK) == (
            created.algorithm,
            created.state,
            created.version,
            created.generation,
            created.integrity,
        )
        assert ("Ein Schlüssel", ("a", "b"), "tester") == (
            created.description,
            created.tags,
            created.owner,
        )
        assert (KeyUsage.SIGN, KeyUsage.VERIFY) == created.usages

    def test_unknown_algorithm(self, session: Session) -> None:
        """An unknown algorithm is refused, and the message names those that exist."""
        with pytest.raises(errors.UnknownAlgorithmError, match="AES-256-GCM") as caught:
            session.create_key("DES")

        assert "algorithm" == caught.value.facts["field"]

    def test_usages_of_another_algorithm(self, session: Session) -> None:
        """A usage that the algorithm has not is refused by name."""
        with pytest.raises(errors.UnsupportedOperationError) as caught:
            session.create_key("aes", usages=[KeyUsage.SIGN])

        assert "usages" == caught.value.facts["field"]

    def test_names_are_unique_until_destroyed(self, session: Session) -> None:
        """A name is taken while its key lives, and free again once it is destroyed."""
        wanted = name()
        first = session.create_key("ed25519", name=wanted)

        with pytest.raises(errors.NameTakenError):
            session.create_key("ed25519", name=wanted)
        session.destroy(wanted)
        second = session.create_key("ed25519", name=wanted)

        assert first.key_id != second.key_id == session.describe(wanted).key_id

    def test_a_name_may_not_look_like_an_id(self, session: Session) -> None:
        """A name in the form of a UUID is refused."""
        with pytest.raises(errors.InvalidInputError) as caught:
            session.create_key("ed25519", name=str(uuid.uuid4()))

        assert "name" == caught.value.facts["field"]

    def test_missing(self, session: Session) -> None:
        """A key that does not exist is not found, by id or name."""
        for reference in (str(uuid.uuid4()), name()):
            with pytest.raises(errors.KeyNotFoundError):
                session.describe(reference)

    def test_list_filters_and_pages(self, session: Session) -> None:
        """A listing narrows by algorithm, state and all tags, and pages by number."""
        tag = name()
        made = [session.create_key("ed25519", tags=[tag, "x"]) for _ in range(5)]
        session.create_key("p384", tags=[tag])
        session.revoke(made[0].key_id)

        hsm = session._hsm  # noqa: SLF001 (the seam itself)
        both = hsm.execute(ops.ListKeys(tags=(tag, "x"), per_page=2, page=2))
        revoked = hsm.execute(ops.ListKeys(tags=(tag,), state=KeyState.REVOKED))
        curve = hsm.execute(ops.ListKeys(tags=(tag,), algorithm="secp384r1"))
        beyond = hsm.execute(ops.ListKeys(tags=(tag,), page=100))

        assert (5, 2) == (both.total, both.page)
        assert [made[2].key_id, made[1].key_id] == [k.key_id for k in both.items]
        assert [made[0].key_id] == [k.key_id for k in revoked.items]
        assert [Algorithm.EC_P384] == [k.algorithm for k in curve.items]
        assert (6, ()) == (beyond.total, beyond.items)

    def test_a_walk_by_cursor_is_stable(self, session: Session) -> None:
        """Keys made and destroyed during a walk neither repeat nor hide another."""
        tag = name()
        made = [session.create_key("ed25519", tags=[tag]).key_id for _ in range(6)]
        walk = session.keys(tags=[tag], per_page=2)

        seen = [next(walk).key_id, next(walk).key_id]
        session.create_key("ed25519", tags=[tag])
        session.destroy(made[0])
        seen += [key.key_id for key in walk]

        assert made[:0:-1] == seen

    def test_list_refuses_page_with_cursor(self, session: Session) -> None:
        """Page and cursor exclude each other, and a made-up cursor is refused."""
        hsm = session._hsm  # noqa: SLF001 (the seam itself)
        for operation in (
            ops.ListKeys(cursor="eDp5", page=2),
            ops.ListKeys(cursor="not a cursor"),
        ):
            with pytest.raises(errors.InvalidInputError):
                hsm.execute(operation)


class TestLife:
    def test_rotate_keeps_old_ciphertexts_readable(self, session: Session) -> None:
        """After rotations, every old ciphertext still finds its version."""
        key = session.create_key("aes").key_id
        sealed = []
        for number in range(1, 5):
            sealed.append(session.encrypt(key, b"v%d" % number, b"aad"))
            session.rotate(key)

        opened = [session.decrypt(key, ciphertext, b"aad") for ciphertext in sealed]

        assert [b"v1", b"v2", b"v3", b"v4"] == opened
        assert [KeyState.RETIRED] * 4 + [KeyState.ACTIVE] == [
            version.state for version in session.versions(key)
        ]

    def test_rollback(self, session: Session) -> None:
        """A rollback is a new version with the old material, sealed anew."""
        key = session.create_key("p256").key_id
        first = session.public_key(key).der
        session.rotate(key)

        rolled = session.rollback(key, 1)

        versions = session.versions(key)
        assert (3, KeyState.ACTIVE) == (rolled.version, rolled.state)
        assert first == session.public_key(key).der
        assert versions[0].material_id == versions[2].material_id
        assert 1 == versions[2].rolled_back_from

    def test_rollback_refuses(self, session: Session) -> None:
        """Rolling back to the current, a missing or a revoked version is refused."""
        key = session.create_key("ed25519").key_id
        session.rotate(key)
        session.revoke(key, version=1)

        for version, error in (
            (1, errors.KeyStateError),
            (2, errors.KeyStateError),
            (3, errors.KeyNotFoundError),
        ):
            with pytest.raises(error):
                session.rollback(key, version)

    def test_revoking_goes_by_material(self, session: Session) -> None:
        """Revoking a version revokes every version with the same material."""
        key = session.create_key("ed25519").key_id
        session.rotate(key)
        session.rollback(key, 1)

        session.revoke(key, version=1, reason="lost laptop")

        states = [version.state for version in session.versions(key)]
        assert [KeyState.REVOKED, KeyState.RETIRED, KeyState.REVOKED] == states
        with pytest.raises(errors.KeyStateError):
            session.sign(key, b"x")
        assert "lost laptop" == session.versions(key)[2].reason

    def test_a_revoked_key_rotates_to_fresh_material_only(
        self, session: Session
    ) -> None:
        """Rotation brings a revoked key back with other material; rollback never."""
        key = session.create_key("ed25519").key_id
        session.rotate(key)
        session.revoke(key)
        with pytest.raises(errors.KeyStateError):
            session.rollback(key, 1)

        session.rotate(key)

        material = [version.material_id for version in session.versions(key)]
        assert 3 == len(set(material))
        assert session.verify(key, b"x", session.sign(key, b"x").signature).version == 3

    def test_destroy(self, session: Session) -> None:
        """A destroyed key serves nothing, and is listed only when asked for."""
        tag = name()
        key = session.create_key("aes", tags=[tag]).key_id
        sealed = session.encrypt(key, b"gone")

        destroyed = session.destroy(key)

        assert KeyState.DESTROYED is destroyed.state
        for use in (session.rotate, session.destroy, session.revoke):
            with pytest.raises(errors.KeyStateError):
                use(key)
        with pytest.raises(errors.KeyStateError):
            session.decrypt(key, sealed)
        assert [] == list(session.keys(tags=[tag]))
        listed = list(session.keys(tags=[tag], state=KeyState.DESTROYED))
        assert [key] == [k.key_id for k in listed]

    def test_life(self, session: Session) -> None:
        """
        A key is staged, activated, relabelled, suspended, and given back from its end.
        """
        key = session.create_key("ed25519", staged=True).key_id
        since = datetime(2020, 1, 1, tzinfo=UTC)

        assert KeyState.ACTIVE is session.activate(key).state
        assert KeyState.STAGED is session.rotate(key, staged=True).state
        first, second = session.versions(key)
        assert first.activated_at == first.state_changed_at > first.created_at
        assert second.activated_at is None
        assert ("o", ("t",)) == _labels(session.update(key, owner="o", tags=["t"]))
        assert () == session.update(key, tags=[]).tags
        assert (
            RotationRule(max_uses=9) == session.set_rotation(key, max_uses=9).rotation
        )
        assert KeyState.SUSPENDED is session.suspend(key).state
        assert session.destroy(key, waiting_days=3).destroy_at is not None
        assert KeyState.SUSPENDED is session.cancel_destroy(key).state
        assert KeyState.ACTIVE is session.resume(key).state
        session.revoke(key, version=1, compromised_at=since)
        assert since == session.versions(key)[0].compromised_at
        with pytest.raises(errors.InvalidInputError, match="compromised_at"):
            session.revoke(key, compromised_at=datetime(2999, 1, 1, tzinfo=UTC))

    def test_idempotency(self, session: Session) -> None:
        """The same key with the same request does it once and answers the same."""
        token = name()

        first = session.create_key("ed25519", idempotency_key=token)
        again = session.create_key("ed25519", idempotency_key=token)
        with pytest.raises(errors.IdempotencyConflictError):
            session.create_key("aes", idempotency_key=token)

        assert first == again

    def test_idempotent_rotation_and_destruction(self, session: Session) -> None:
        """A repeated rotation or destruction, even by name, happens once."""
        wanted = name()
        key = session.create_key("ed25519", name=wanted).key_id

        rotated = [session.rotate(wanted, idempotency_key="r1" + wanted) for _ in "ab"]
        destroyed = [
            session.destroy(wanted, idempotency_key="d" + wanted) for _ in "ab"
        ]

        assert [2, 2] == [info.version for info in rotated]
        assert [key, key] == [info.key_id for info in destroyed]

    def test_idempotency_keys_belong_to_principals(
        self, session: Session, reach: Connect
    ) -> None:
        """Two principals with the same idempotency key do not meet."""
        token = name()
        other = Session(reach(caller(principal="somebody-else")))

        mine = session.create_key("ed25519", idempotency_key=token)
        theirs = other.create_key("ed25519", idempotency_key=token)

        assert mine.key_id != theirs.key_id

    @pytest.mark.parametrize("token", ["", "x" * 129])
    def test_bad_idempotency_keys(self, session: Session, token: str) -> None:
        """An idempotency key has 1 to 128 visible ASCII characters."""
        with pytest.raises(errors.InvalidInputError) as caught:
            session.create_key("ed25519", idempotency_key=token)

        assert "idempotency_key" == caught.value.facts["field"]


class TestSignatures:
    @pytest.mark.parametrize("algorithm", SIGNING)
    def test_sign_and_verify(self, session: Session, algorithm: Algorithm) -> None:
        """Every signature algorithm signs, verifies, and refuses another message."""
        require_algorithm(session, algorithm)
        key = session.create_key(algorithm).key_id

        made = session.sign(key, b"message")

        assert 1 == session.verify(key, b"message", made.signature).version
        for message, signature in (
            (b"another", made.signature),
            (b"message", made.signature[:-1]),
            (b"message", b""),
        ):
            with pytest.raises(errors.SignatureMismatchError):
                session.verify(key, message, signature)

    def test_digests(self, session: Session) -> None:
        """A digest given by the caller makes a signature over the whole message."""
        key = session.create_key("p384").key_id
        digest = hashlib.sha384(b"message").digest()

        made = session.sign(key, digest=digest)

        session.verify(key, b"message", made.signature)
        session.verify(key, None, made.signature, digest=digest)
        with pytest.raises(errors.InputSizeError) as caught:
            session.sign(key, digest=digest[:-1])
        assert ("digest", 48) == (
            caught.value.facts["field"],
            caught.value.facts["maximum"],
        )

    def test_ed25519_signs_messages_only(self, session: Session) -> None:
        """Ed25519 hashes inside, so a digest is refused."""
        key = session.create_key("ed25519").key_id

        with pytest.raises(errors.UnsupportedOperationError) as caught:
            session.sign(key, digest=bytes(32))

        assert "digest" == caught.value.facts["field"]

    def test_either_message_or_digest(self, session: Session) -> None:
        """One of message and digest is needed, and not both."""
        key = session.create_key("p256").key_id

        for message, digest in ((None, None), (b"m", bytes(32))):
            with pytest.raises(errors.InvalidInputError) as caught:
                session.sign(key, message, digest=digest)
            assert "message" == caught.value.facts["field"]

    def test_encodings(self, session: Session) -> None:
        """ECDSA writes r and s at fixed length where P1363 is asked for."""
        key = session.create_key("p521").key_id

        made = session.sign(key, b"m", encoding=SignatureEncoding.P1363)

        assert 132 == len(made.signature)
        session.verify(key, b"m", made.signature, encoding=SignatureEncoding.P1363)
        with pytest.raises(errors.SignatureMismatchError):
            session.verify(key, b"m", made.signature)

    @pytest.mark.parametrize("hashed", list(HashAlgorithm))
    @pytest.mark.parametrize(
        "scheme", [SignatureScheme.RSASSA_PSS, SignatureScheme.RSASSA_PKCS1_V1_5]
    )
    def test_rsa_schemes(
        self, session: Session, scheme: SignatureScheme, hashed: HashAlgorithm
    ) -> None:
        """RSA signs by both schemes with every hash, and they do not mix."""
        key = _shared_rsa(session)

        made = session.sign(key, b"m", scheme=scheme, hash=hashed)

        session.verify(key, b"m", made.signature, scheme=scheme, hash=hashed)
        (other,) = {
            SignatureScheme.RSASSA_PSS,
            SignatureScheme.RSASSA_PKCS1_V1_5,
        } - {scheme}
        with pytest.raises(errors.SignatureMismatchError):
            session.verify(key, b"m", made.signature, scheme=other, hash=hashed)

    def test_old_signatures_verify_after_rotation(self, session: Session) -> None:
        """Without a version, every version that may verify is tried."""
        key = session.create_key("ed25519").key_id
        old = session.sign(key, b"m").signature
        session.rotate(key)

        assert 1 == session.verify(key, b"m", old).version
        with pytest.raises(errors.SignatureMismatchError):
            session.verify(key, b"m", old, version=2)

    @pytest.mark.parametrize("algorithm", [*SIGNING, *KEMS, Algorithm.X25519])
    def test_public_keys(self, session: Session, algorithm: Algorithm) -> None:
        """DER, PEM, JWK and bare bytes are the same public key."""
        require_algorithm(session, algorithm)
        key = session.create_key(algorithm).key_id

        public = session.public_key(key)

        lines = public.pem.splitlines()
        assert public.der == base64.b64decode("".join(lines[1:-1]))
        primitives.load_public_key(algorithm, public.der)
        assert public.der.endswith(public.raw)
        assert public.jwk is None or f"{key}.1" == public.jwk.kid

    @pytest.mark.parametrize("algorithm", [Algorithm.RSA_2048, Algorithm.EC_P384])
    def test_public_keys_elsewhere(
        self, session: Session, algorithm: Algorithm
    ) -> None:
        """Another library reads the PEM, and writes the same DER."""
        public = session.public_key(session.create_key(algorithm).key_id)

        loaded = serialization.load_pem_public_key(public.pem.encode())

        assert public.der == loaded.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def test_symmetric_keys_have_no_public_key(self, session: Session) -> None:
        """A symmetric key has nothing to export."""
        key = session.create_key("aes").key_id

        with pytest.raises(errors.UnsupportedOperationError):
            session.public_key(key)


class TestContexts:
    @pytest.mark.parametrize("algorithm", WITH_CONTEXT)
    def test_contexts(self, session: Session, algorithm: Algorithm) -> None:
        """A signature is for its context, of up to 255 bytes."""
        require_algorithm(session, algorithm)
        key, context = session.create_key(algorithm).key_id, bytes(255)

        made = session.sign(key, b"m", context=context).signature

        session.verify(key, b"m", made, context=context)
        with pytest.raises(errors.SignatureMismatchError):
            session.verify(key, b"m", made, context=context[1:])
        with pytest.raises(errors.InvalidInputError, match="context"):
            session.sign(key, b"m", context=bytes(256))

    def test_external_mu(self, session: Session) -> None:
        """64 bytes stand for a message that was hashed elsewhere."""
        key, algorithm = session.create_key("ML-DSA-65").key_id, Algorithm.ML_DSA_65
        mu = primitives.external_mu(
            algorithm, session.public_key(key).der, b"message", b"context"
        )

        made = session.sign(key, mu=mu).signature

        session.verify(key, b"message", made, context=b"context")
        session.verify(key, None, made, mu=mu)
        with pytest.raises(errors.InvalidInputError, match="mu"):
            session.sign(key, mu=mu[1:])

    def test_digests_of_composites(self, session: Session) -> None:
        """A composite signs the digest of its own pre-hash."""
        key = session.create_key("p-256+ml-dsa-65").key_id
        digest = hashlib.sha512(b"message").digest()

        made = session.sign(key, digest=digest)

        assert HashAlgorithm.SHA_512 is made.hash
        session.verify(key, b"message", made.signature)


class TestKems:
    @pytest.mark.parametrize("algorithm", KEMS)
    def test_encapsulate(self, session: Session, algorithm: Algorithm) -> None:
        """Both sides find the same secret; a wrong length is refused by number."""
        require_algorithm(session, algorithm)
        key = session.create_key(algorithm).key_id

        made = session.encapsulate(key)

        assert made.shared_secret == session.decapsulate(key, made.ciphertext)
        size = ALGORITHMS[algorithm].ciphertext_bytes
        with pytest.raises(errors.InputSizeError) as caught:
            session.decapsulate(key, made.ciphertext[1:])
        assert ("ciphertext", size, size) == facts_of(caught)

    @pytest.mark.parametrize("algorithm", KEMS)
    def test_seal(self, session: Session, algorithm: Algorithm) -> None:
        """Whole messages are sealed, also outside, and opened after a rotation."""
        require_algorithm(session, algorithm)
        key = session.create_key(algorithm).key_id
        der = session.public_key(key).der
        sealed = (
            session.seal(key, b"message", b"aad"),
            primitives.seal(algorithm, der, key, 1, b"message", b"aad"),
        )
        session.rotate(key)

        for message in sealed:
            assert b"message" == session.open(key, message, b"aad")
            with pytest.raises(errors.DecryptionError):
                session.open(key, message, b"another")


class TestTransfer:
    @pytest.mark.parametrize("mechanism", WrapMechanism)
    def test_import_and_export(
        self, session: Session, mechanism: WrapMechanism
    ) -> None:
        """A key that leaves by a mechanism comes back by it, and is the same."""
        algorithm = {
            WrapMechanism.RSA_OAEP_AES_KWP: "rsa3072",
            WrapMechanism.KEM_AES_KWP: "ML-KEM-768",
        }.get(mechanism, "AES-256-KW")
        wrapping = session.create_key(algorithm, usages=WRAP).key_id
        is_kw = mechanism is WrapMechanism.AES_KW
        kind = Algorithm.HMAC_SHA_384 if is_kw else Algorithm.EC_P256
        key = session.create_key(kind, exportable=True).key_id

        out = session.export_key(key, wrapping, mechanism=mechanism)
        back = session.import_key(kind, wrapping, out.wrapped, mechanism=mechanism)

        assert (kind, mechanism) == (out.algorithm, out.mechanism)
        assert (KeyOrigin.IMPORTED, False) == (back.origin, back.exportable)
        if is_kw:
            assert session.mac(key, b"m").mac == session.mac(back.key_id, b"m").mac
        else:
            assert session.public_key(key).der == session.public_key(back.key_id).der

    def test_import_from_outside(self, session: Session) -> None:
        """What is wrapped to a public key outside is imported."""
        wrapping = session.create_key("MLKEM1024-ECDH-P384-SHA3-256", usages=WRAP)
        public = session.public_key(wrapping.key_id)
        pair = primitives.private_key_from_seed(Algorithm.ML_DSA_87, bytes(range(32)))
        wrapped = primitives.wrap_for_import(
            public.algorithm, public.der, bytes(range(32))
        )

        made = session.import_key(
            "ML-DSA-87", wrapping.key_id, wrapped, format=KeyFormat.SEED
        )

        assert pair.public_der == session.public_key(made.key_id).der

    def test_only_exportable_keys_leave(self, session: Session) -> None:
        """A key that was not made exportable stays."""
        wrapping = session.create_key("aes-kw").key_id
        key = session.create_key("aes").key_id

        with pytest.raises(errors.KeyUsageError, match="exportable"):
            session.export_key(key, wrapping)

    def test_wrong_wrappings_have_one_answer(self, session: Session) -> None:
        """Whatever is wrong with a wrapping, it is not said what."""
        wrapping = session.create_key("aes-kw").key_id

        for wrapped in (b"", bytes(40), bytes(41)):
            with pytest.raises(errors.DecryptionError):
                session.import_key("aes", wrapping, wrapped)

    def test_derive(self, session: Session) -> None:
        """A key is derived from a key, or with another party."""
        base = session.create_key("hkdf").key_id
        ours = session.create_key("x25519").key_id
        theirs = primitives.generate(Algorithm.X25519)

        first, second = (
            session.derive_key("hmac-sha256", base, info=b"i").key_id for _ in range(2)
        )
        agreed = session.derive_key(
            "aes128gcm", ours, peer_public_key=theirs.public_der, info=b"i"
        )

        assert session.mac(first, b"m").mac == session.mac(second, b"m").mac
        assert KeyOrigin.DERIVED is agreed.origin
        secret = primitives.ecdh(
            Algorithm.X25519, theirs.material, session.public_key(ours).der
        )
        key = primitives.hkdf(HashAlgorithm.SHA_256, secret, info=b"i", length=16)
        sealed = session.encrypt(agreed.key_id, b"m")
        header, nonce, rest = sealed[:28], sealed[28:40], sealed[40:]
        bound = (28).to_bytes(8, "big") + header + bytes(8)
        opened = primitives.aead_decrypt(Algorithm.AES_128_GCM, key, nonce, rest, bound)
        assert b"m" == opened

    def test_data_keys(self, session: Session) -> None:
        """A data key comes plain and wrapped, or wrapped only."""
        key, kem = (session.create_key(a).key_id for a in ("chacha20", "ML-KEM-1024"))

        made = session.data_key(key, length=24, aad=b"table 1")
        hidden = session.data_key(kem, wrapped_only=True)

        assert 24 == len(made.plaintext)
        assert made.plaintext == session.decrypt(key, made.ciphertext, b"table 1")
        assert b"" == hidden.plaintext
        assert 32 == len(session.open(kem, hidden.ciphertext))

    @pytest.mark.parametrize("algorithm", ["aes", "ML-KEM-768"])
    def test_rewrap(self, session: Session, algorithm: str) -> None:
        """A ciphertext goes over to the current version, and says the same."""
        key = session.create_key(algorithm).key_id
        old = session.data_key(key, aad=b"aad")
        session.rotate(key)

        new = session.rewrap(key, old.ciphertext, b"aad")
        session.revoke(key, version=1)

        open_ = session.decrypt if algorithm == "aes" else session.open
        assert old.plaintext == open_(key, new, b"aad")


class TestCiphers:
    @pytest.mark.parametrize("algorithm", AEADS)
    def test_every_cipher(self, session: Session, algorithm: Algorithm) -> None:
        """Every authenticated cipher encrypts, decrypts, and minds its aad."""
        key = session.create_key(algorithm).key_id

        sealed = session.encrypt(key, b"message", b"aad")

        assert b"message" == session.decrypt(key, sealed, b"aad")
        with pytest.raises(errors.DecryptionError):
            session.decrypt(key, sealed)

    def test_two_ciphertexts_differ(self, session: Session) -> None:
        """The nonce is ours and fresh, so equal plaintexts do not show."""
        key = session.create_key("aes").key_id

        assert session.encrypt(key, b"same") != session.encrypt(key, b"same")

    def test_every_failure_is_the_same(self, session: Session) -> None:
        """Whatever is wrong with a ciphertext, the answer is one and the same."""
        key = session.create_key("aes").key_id
        other = session.create_key("aes").key_id
        good = session.encrypt(key, b"secret", b"aad")
        answers = set()

        for ciphertext, aad in (
            (good, b"other"),
            (good[:-1], b"aad"),
            (good[:20], b"aad"),
            (b"", b"aad"),
            (bytes([good[0] ^ 1]) + good[1:], b"aad"),
            (good[:-1] + bytes([good[-1] ^ 1]), b"aad"),
            (session.encrypt(other, b"secret", b"aad"), b"aad"),
        ):
            with pytest.raises(errors.DecryptionError) as caught:
                session.decrypt(key, ciphertext, aad)
            answers.add((str(caught.value), tuple(caught.value.facts)))

        assert 1 == len(answers)

    def test_rsa_envelopes(self, session: Session) -> None:
        """RSAES-OAEP ciphertexts name their version too."""
        key = session.create_key("rsa2048", usages=RSA_CRYPT).key_id
        sealed = session.encrypt(key, b"session key", b"context")
        session.rotate(key)

        assert b"session key" == session.decrypt(key, sealed, b"context")
        with pytest.raises(errors.DecryptionError):
            session.decrypt(key, sealed, b"another")

    def test_raw_rsa(self, session: Session) -> None:
        """Parties that know nothing of envelopes use bare RSAES-OAEP."""
        key = session.create_key("rsa2048", usages=RSA_CRYPT).key_id

        sealed = session.encrypt(key, b"m", b"l", encoding=CiphertextEncoding.RAW)

        raw = CiphertextEncoding.RAW
        assert 256 == len(sealed)
        assert b"m" == session.decrypt(key, sealed, b"l", encoding=raw)
        with pytest.raises(errors.DecryptionError):
            session.decrypt(key, bytes(256), encoding=raw)

    def test_rsa_plaintexts_have_a_limit(self, session: Session) -> None:
        """What RSAES-OAEP can't hold is refused with the limit."""
        key = session.create_key("rsa2048", usages=RSA_CRYPT).key_id

        with pytest.raises(errors.InputSizeError) as caught:
            session.encrypt(key, bytes(191))

        assert ("plaintext", 190) == (
            caught.value.facts["field"],
            caught.value.facts["maximum"],
        )

    def test_usages_are_enforced(self, session: Session) -> None:
        """A key does only what it was made for."""
        signer = session.create_key("rsa2048").key_id
        sealer = session.create_key("aes", usages=[KeyUsage.ENCRYPT]).key_id
        sealed = session.encrypt(sealer, b"m")

        for use in (
            lambda: session.encrypt(signer, b"m"),
            lambda: session.decrypt(sealer, sealed),
            lambda: session.sign(sealer, b"m"),
            lambda: session.mac(signer, b"m"),
        ):
            with pytest.raises(errors.KeyUsageError):
                use()

    def test_aad_has_a_limit(self, session: Session) -> None:
        """Additional data above 64 KiB is refused with the limit."""
        key = session.create_key("aes").key_id

        with pytest.raises(errors.PayloadTooLargeError) as caught:
            session.encrypt(key, b"m", bytes(65537))

        assert ("aad", 65536) == (
            caught.value.facts["field"],
            caught.value.facts["maximum"],
        )


class TestMacsAndRandomness:
    def test_macs(self, session: Session) -> None:
        """A MAC verifies, also after a rotation, and nothing else does."""
        key = session.create_key("hmac-sha256").key_id
        made = session.mac(key, b"m").mac
        session.rotate(key)

        assert 1 == session.verify_mac(key, b"m", made).version
        for message, mac in ((b"n", made), (b"m", made[:-1]), (b"m", b"")):
            with pytest.raises(errors.MacMismatchError):
                session.verify_mac(key, message, mac)

    def test_randomness(self, session: Session) -> None:
        """Random bytes have the length asked for and do not repeat."""
        assert 32 == len(session.random(32))
        assert session.random(32) != session.random(32)


class TestBatches:
    def test_signatures(self, session: Session) -> None:
        """Many items are signed and checked; a bad one is its own answer."""
        key = session.create_key("MLDSA44-ECDSA-P256-SHA256").key_id
        items = [
            ops.SignItem(reference=f"no. {n}", message=b"%d" % n) for n in range(9)
        ]

        signed = session.sign_batch(key, items, context=b"c")
        checked = session.verify_batch(
            key,
            [
                ops.VerifyItem(
                    reference=item.reference,
                    message=b"%d" % max(number, 1),
                    signature=item.signature,
                )
                for number, item in enumerate(signed.items)
            ],
            context=b"c",
        )

        assert [i.reference for i in items] == [i.reference for i in signed.items]
        first, *others = checked.items
        assert first.error is not None
        assert "signature_mismatch" == first.error.code
        assert [(1, None)] * 8 == [(item.version, item.error) for item in others]

    def test_ciphertexts(self, session: Session) -> None:
        """Many items are encrypted and decrypted, each bound to its own aad."""
        key = session.create_key("chacha20").key_id
        items = [
            ops.EncryptItem(reference=str(n), plaintext=b"%d" % n, aad=b"%d" % n)
            for n in range(3)
        ]

        sealed = session.encrypt_batch(key, items)
        opened = session.decrypt_batch(
            key,
            [
                ops.DecryptItem(
                    ciphertext=item.ciphertext, aad=b"%d" % (number // 2 * 2)
                )
                for number, item in enumerate(sealed.items)
            ],
        )

        assert [b"0", b"", b"2"] == [item.plaintext for item in opened.items]
        failed = opened.items[1].error
        assert failed is not None
        assert "decryption_failed" == failed.code

    def test_macs(self, session: Session) -> None:
        """Many MACs are computed and checked."""
        key = session.create_key("hs384").key_id

        made = session.mac_batch(key, [ops.MacInput(message=m) for m in (b"a", b"b")])
        checked = session.verify_mac_batch(
            key,
            [ops.VerifyMacItem(message=b"a", mac=item.mac) for item in made.items],
        )

        assert [48, 48] == [len(item.mac) for item in made.items]
        good, bad = checked.items
        assert (1, None) == (good.version, good.error)
        assert bad.error is not None
        assert "mac_mismatch" == bad.error.code

    def test_one_record(self, session: Session) -> None:
        """A batch is one record, which tells how many items and failures it had."""
        key = session.create_key("aes").key_id
        item = ops.DecryptItem(ciphertext=b"junk")

        session.decrypt_batch(key, [item] * 3)

        event = session.audit_events(key_id=key, limit=1)[0].event
        assert "DecryptBatch" == event.kind
        assert isinstance(event.detail, BatchDetail)
        assert (3, 3) == (event.detail.count, event.detail.failed)


class TestAuthority:
    def test_an_auditor_reads_and_changes_nothing(
        self, session: Session, reach: Connect
    ) -> None:
        """An auditor sees keys and trail, and is refused everything else."""
        key = session.create_key("ed25519").key_id
        auditor = Session(reach(caller(Role.AUDITOR, principal="anna")))

        auditor.describe(key)
        auditor.verify_audit()
        for use in (
            lambda: auditor.sign(key, b"m"),
            lambda: auditor.rotate(key),
            lambda: auditor.create_key("aes"),
            lambda: auditor.destroy(key),
            lambda: auditor.random(1),
        ):
            with pytest.raises(errors.AccessDeniedError):
                use()

        newest = auditor.audit_events(limit=1)[0].event
        assert ("anna", "access_denied", "default-deny", "GenerateRandom") == (
            newest.caller.principal if newest.caller else "",
            newest.code,
            newest.rule,
            newest.kind,
        )

    def test_a_denial_does_not_tell_whether_a_key_exists(self, reach: Connect) -> None:
        """A caller who may not do it gets one answer for real and made-up keys."""
        admin, service = (
            Session(reach(caller(role))) for role in (Role.ADMINISTRATOR, Role.SERVICE)
        )
        real = admin.create_key("ed25519").key_id
        answers = set()

        for reference in (real, str(uuid.uuid4())):
            with pytest.raises(errors.AccessDeniedError) as caught:
                service.destroy(reference)
            answers.add(str(caught.value))

        assert 1 == len(answers)

    def test_a_named_approval(self, session: Session, reach: Connect) -> None:
        """What is done under a named approval is what that one is for, once."""
        auditor = Session(reach(caller(Role.AUDITOR, principal="anna")))
        keys = [session.create_key("aes", tags=("dual",)).key_id for _ in range(2)]
        for key in keys:
            with pytest.raises(errors.ApprovalRequiredError):
                session.destroy(key)
        asked = {a.operation.key_id: a for a in auditor.approvals(kind="DestroyKey")}
        first, second = (asked[key] for key in keys)
        auditor.approve(first.approval_id, digest=first.digest)

        with pytest.raises(errors.AccessDeniedError, match="different operation"):
            session.under(first.approval_id).destroy(keys[1])
        with pytest.raises(errors.ApprovalRequiredError) as pending:
            session.under(second.approval_id).destroy(keys[1])
        with pytest.raises(errors.ApprovalNotFoundError):
            session.under(str(uuid.uuid4())).destroy(keys[0])
        with pytest.raises(errors.InvalidInputError, match="approval_id"):
            session.under("first\r\nX: y").destroy(keys[0])
        assert second.approval_id == pending.value.facts["approval_id"]
        done = session.under(first.approval_id).destroy(keys[0])
        assert KeyState.DESTROYED is done.state
        auditor.deny(second.approval_id, reason="no")
        with pytest.raises(errors.ConflictError, match="denied"):
            session.under(second.approval_id).destroy(keys[1])

    def test_an_approval_named_for_nothing(self, session: Session) -> None:
        """What needs nobody's consent is done, and no record says it was under one."""
        key = session.under(str(uuid.uuid4())).create_key("aes").key_id

        events = session.audit_events(key_id=key)

        assert ["", ""] == [entry.event.approval_id for entry in events]


class TestExpectedGeneration:
    def test_a_key_that_was_changed_meanwhile_is_left_alone(
        self, session: Session
    ) -> None:
        """Whoever looked at an older key changes nothing, and that is recorded."""
        seen = session.create_key("aes")
        rotated = session.rotate(seen.key_id)
        looked = session.at_generation(seen.generation)

        changes: list[Callable[[], object]] = [
            lambda: looked.destroy(seen.key_id),
            lambda: looked.rotate(seen.key_id),
            lambda: looked.update(seen.key_id, description="mine"),
            lambda: session.at_generation(99).rollback(seen.key_id, 1),
        ]
        for change in changes:
            with pytest.raises(errors.PreconditionFailedError):
                change()

        assert rotated.generation == session.describe(seen.key_id).generation
        newest = session.audit_events(limit=1)[0].event
        assert ("Rollback", "precondition_failed") == (newest.kind, newest.code)
        assert seen.key_id == newest.key_id

    def test_a_key_that_nobody_has_changed_is_changed(self, session: Session) -> None:
        """The generation that was seen lets a change pass, once."""
        seen = session.create_key("aes")
        looked = session.at_generation(seen.generation)

        assert seen.generation + 1 == looked.rotate(seen.key_id).generation
        with pytest.raises(errors.PreconditionFailedError):
            looked.rotate(seen.key_id)

    def test_a_repetition_is_answered_again(self, session: Session) -> None:
        """What was done is told, although it has itself moved the generation on."""
        seen = session.create_key("aes")
        looked = session.at_generation(seen.generation)

        first = looked.rotate(seen.key_id, idempotency_key="once")
        again = looked.rotate(seen.key_id, idempotency_key="once")

        assert (first.version, first.generation) == (again.version, again.generation)
        assert 2 == len(session.versions(seen.key_id))

    def test_nobody_is_asked_for_an_old_key(self, session: Session) -> None:
        """A change of an older key asks for no approval."""
        seen = session.create_key("aes", tags=("dual",))
        session.update(seen.key_id, description="other")

        with pytest.raises(errors.PreconditionFailedError):
            session.at_generation(seen.generation).destroy(seen.key_id)

        assert [] == list(session.approvals(key_id=seen.key_id))

    def test_only_what_changes_a_key_expects_one(self, session: Session) -> None:
        """A condition that nothing keeps to is refused."""
        key = session.create_key("ed25519").key_id
        looked = session.at_generation(1)

        for ask in (
            lambda: looked.sign(key, b"m"),
            lambda: looked.describe(key),
            lambda: looked.create_key("aes"),
            lambda: session.at_generation(2**53).rotate(key),
            lambda: session.at_generation(-1).rotate(key),
        ):
            with pytest.raises(errors.InvalidInputError):
                ask()

        assert 1 == len(session.versions(key))

    def test_who_may_not_change_it_learns_no_generation(
        self, session: Session, reach: Connect
    ) -> None:
        """A caller without the right gets one answer, whatever they expect."""
        seen = session.create_key("aes")
        auditor = Session(reach(caller(Role.AUDITOR, principal="anna")))

        for generation in (seen.generation, seen.generation + 1):
            with pytest.raises(errors.AccessDeniedError):
                auditor.at_generation(generation).rotate(seen.key_id)


class TestTrail:
    def test_a_mutation_has_intent_and_outcome(self, session: Session) -> None:
        """The trail holds what was asked for and what came of it."""
        key = session.create_key("ed25519").key_id
        session.rotate(key)

        events = [entry.event for entry in session.audit_events(key_id=key)]

        outcome, intent = events[:2]
        assert ("outcome", "intent") == (outcome.phase, intent.phase)
        assert outcome.operation_id == intent.operation_id
        assert (2, 2, "ok") == (outcome.generation, outcome.version, outcome.code)
        assert outcome.document_before == events[2].document_after

    def test_uses_and_failures_are_recorded(self, session: Session) -> None:
        """Each use has one record, with its code, whether it worked or not."""
        key = session.create_key("aes").key_id
        session.encrypt(key, b"secret")
        with pytest.raises(errors.DecryptionError):
            session.decrypt(key, b"junk")

        events = [entry.event for entry in session.audit_events(key_id=key)][:2]

        assert [("Decrypt", "decryption_failed"), ("Encrypt", "ok")] == [
            (event.kind, event.code) for event in events
        ]
        assert {"plaintext_bytes": 6} == events[1].parameters

    def test_walk_in_both_directions(self, session: Session) -> None:
        """The trail can be read from either end, page by page, without gaps."""
        hsm = session._hsm  # noqa: SLF001 (the seam itself)
        first = hsm.execute(ops.ListAuditEvents(ascending=True, limit=3))
        assert first.next_seq is not None
        second = hsm.execute(
            ops.ListAuditEvents(ascending=True, limit=3, start_seq=first.next_seq)
        )
        newest = hsm.execute(ops.ListAuditEvents(limit=3))

        walked = [entry.event.seq for entry in (*first.items, *second.items)]
        assert [0, 1, 2, 3, 4, 5] == walked
        assert newest.head_seq == newest.items[0].event.seq
        assert newest.head_hash == newest.items[0].leaf_hash

    def test_a_cursor_is_for_several_logs(self, session: Session) -> None:
        """A single machine refuses it, and does not answer with the first page."""
        hsm = session._hsm  # noqa: SLF001 (the seam itself)
        for operation in (
            ops.ListAuditEvents(cursor="made up"),
            ops.ListAuditEvents(cursor=f"{'0' * 32}5", start_seq=5),
        ):
            with pytest.raises(errors.InvalidInputError) as caught:
                hsm.execute(operation)
            assert "cursor" == caught.value.facts["field"]

    def test_verify(self, session: Session) -> None:
        """The whole trail verifies, range by range."""
        hsm = session._hsm  # noqa: SLF001 (the seam itself)

        part = hsm.execute(ops.VerifyAudit(start_seq=2, limit=3))
        whole = session.verify_audit()

        assert (2, 3, 5) == (part.start_seq, part.verified, part.next_seq)
        assert whole.head_seq + 1 == whole.verified

    def test_status_and_self_tests(
        self, session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Status shows every algorithm, and the self-tests of those there pass."""
        self_tests.once(monkeypatch)
        status, report = session.status(), session.self_test()

        served = {r.algorithm for r in status.algorithms if r.status == "available"}
        assert "operational" == status.state
        assert list(Algorithm) == [row.algorithm for row in status.algorithms]
        assert served == {row.algorithm for row in report.results}
        assert report.passed

    def test_algorithms(self, session: Session) -> None:
        """Every algorithm of the table is listed, with its sizes."""
        listed = {row.algorithm: row for row in session.algorithms()}

        assert set(Algorithm) == set(listed)
        row = listed[Algorithm.ML_KEM_768]
        assert (1184, 1088, 3) == (
            row.public_key_bytes,
            row.ciphertext_bytes,
            row.category,
        )


def _shared_rsa(session: Session) -> str:
    found = next(session.keys(algorithm="rsa2048", tags=["shared"]), None)
    if found is None:
        found = session.create_key("rsa2048", tags=["shared"])
    return found.key_id
