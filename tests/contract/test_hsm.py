# SPDX-License-Identifier: MIT
"""What every `HSM` promises, however it is reached."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core.algorithms import (
    ALGORITHMS,
    Algorithm,
    CiphertextEncoding,
    HashAlgorithm,
    KeyUsage,
    SignatureEncoding,
    SignatureScheme,
)
from hsm_core.model import Integrity, KeyState, Role
from hsm_core.session import Session
from hsm_core.testing import caller
from tests.contract.hsm_ways import WAYS, Connect, connect

RSA_CRYPT = (KeyUsage.ENCRYPT, KeyUsage.DECRYPT)
SIGNING = [a for a, row in ALGORITHMS.items() if row.schemes]


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

        assert created == session.describe(created.key_id) == session.describe(wanted)
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

    @pytest.mark.parametrize("algorithm", SIGNING)
    def test_public_keys(self, session: Session, algorithm: Algorithm) -> None:
        """DER, PEM and JWK are the same public key."""
        key = session.create_key(algorithm).key_id

        public = session.public_key(key)

        loaded = serialization.load_pem_public_key(public.pem.encode())
        assert public.der == loaded.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        assert f"{key}.1" == public.jwk.kid

    def test_symmetric_keys_have_no_public_key(self, session: Session) -> None:
        """A symmetric key has nothing to export."""
        key = session.create_key("aes").key_id

        with pytest.raises(errors.UnsupportedOperationError):
            session.public_key(key)


class TestCiphers:
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

    def test_verify(self, session: Session) -> None:
        """The whole trail verifies, range by range."""
        hsm = session._hsm  # noqa: SLF001 (the seam itself)

        part = hsm.execute(ops.VerifyAudit(start_seq=2, limit=3))
        whole = session.verify_audit()

        assert (2, 3, 5) == (part.start_seq, part.verified, part.next_seq)
        assert whole.head_seq + 1 == whole.verified

    def test_status_and_self_tests(self, session: Session) -> None:
        """Status shows every algorithm as available, and the self-tests pass."""
        status, report = session.status(), session.self_test()

        assert "operational" == status.state
        assert {"available"} == {row.status for row in status.algorithms}
        assert set(Algorithm) == {row.algorithm for row in report.results}
        assert report.passed


def _shared_rsa(session: Session) -> str:
    found = next(session.keys(algorithm="rsa2048", tags=["shared"]), None)
    if found is None:
        found = session.create_key("rsa2048", tags=["shared"])
    return found.key_id
