# SPDX-License-Identifier: MIT
"""What the trail says of operations, and what it never says."""

from __future__ import annotations

import base64
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.audit.keys import salts_function
from hsm_core._internal.pipeline.refusals import Refusals
from hsm_core._internal.stores.memory.audit import MemoryAuditLog
from hsm_core._internal.stores.records import blob_name
from hsm_core.algorithms import KeyUsage
from hsm_core.errors import DecryptionError, HSMError
from hsm_core.model import Caller, CountedDetail, MessageDetail, Role
from hsm_core.session import Session
from hsm_core.testing import FakeClock, FakeEntropy, caller, memory_hsm
from hsm_core.testing.memory import AUDIT_KEY
from tests.contract.hsm_ways import filesystem_hsm
from tests.core.hsm_support import memory_session

SECRET = b"attack at dawn, sentinel-4711-plaintext"


def spellings(secret: bytes) -> list[bytes]:
    """Return a secret raw, in hex and in base64, as it might be written down."""
    encoded = base64.b64encode(secret).rstrip(b"=")[:-1]
    return [secret, secret.hex().encode(), encoded, encoded.translate(_URL_SAFE)]


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def use_newer_operations(session: Session, aes: str, mac: str) -> list[bytes]:
    """Let KEM keys, data keys and batches handle secrets; return those given out."""
    kem = session.create_key("ml-kem-768").key_id
    session.open(kem, session.seal(kem, SECRET, SECRET), SECRET)
    made = session.encapsulate(kem)
    session.decapsulate(kem, made.ciphertext)
    data_key = session.data_key(aes)
    session.rewrap(aes, data_key.ciphertext)
    sealed = session.encrypt_batch(aes, [ops.EncryptItem(plaintext=SECRET)]).items
    items = [ops.DecryptItem(ciphertext=item.ciphertext) for item in sealed]
    session.decrypt_batch(aes, [*items, ops.DecryptItem(ciphertext=SECRET)])
    session.mac_batch(mac, [ops.MacInput(message=SECRET)])
    session.verify_mac_batch(mac, [ops.VerifyMacItem(message=SECRET, mac=SECRET)])
    return [made.shared_secret, data_key.plaintext]


def test_no_secret_is_written_anywhere(tmp_path: Path) -> None:
    """No file of the HSM holds a plaintext, root, audit key or random output."""
    with filesystem_hsm(tmp_path) as gateway:
        session = Session(gateway.act_as(caller()))
        aes = session.create_key("aes").key_id
        rsa = session.create_key("rsa2048", usages=[KeyUsage.ENCRYPT]).key_id
        mac = session.create_key("hmac-sha256").key_id
        drawn = session.random(32)
        session.decrypt(aes, session.encrypt(aes, SECRET, SECRET), SECRET)
        session.encrypt(rsa, SECRET)
        session.mac(mac, SECRET)
        given = use_newer_operations(session, aes, mac)
        with pytest.raises(errors.DecryptionError):
            session.decrypt(aes, SECRET)

    found = [
        (path.name, spelling)
        for path in tmp_path.rglob("*")
        if path.is_file()
        for secret in (SECRET, drawn, *given, b"\x01" * 32, b"\x02" * 32)
        for spelling in spellings(secret)
        if spelling in path.read_bytes()
    ]

    assert [] == found


def test_nothing_of_a_broken_operation_is_written() -> None:
    """A payload of the wrong type is refused, and the record does not repeat it."""
    with memory_hsm() as gateway:
        hsm = gateway.act_as(caller())
        session = Session(hsm)
        session.create_key("aes", name="k")
        broken: list[Any] = [
            ops.Encrypt(key_id="k", plaintext="attack at dawn"),  # type: ignore[arg-type]
            ops.Sign(key_id="k", message="attack at dawn"),  # type: ignore[arg-type]
            ops.RevokeKey(key_id="k", reason="attack\ud800"),
            ops.VerifyAudit(start_seq=2**60),
        ]

        for operation in broken:
            with pytest.raises(errors.InvalidInputError):
                hsm.execute(operation)

        entries = session.audit_events(limit=len(broken))
    assert {"invalid_input"} == {entry.event.code for entry in entries}
    assert [{}] * len(broken) == [entry.event.parameters for entry in entries]


def test_a_batch_is_recorded_by_its_number() -> None:
    """Of the items of a batch the record's parameters have how many there were."""
    with memory_session() as session:
        key = session.create_key("p256").key_id
        session.sign_batch(key, [ops.SignItem(reference="invoice", message=SECRET)] * 3)

        newest = session.audit_events(limit=1)[0].event
        assert 3 == newest.parameters["items"]
        assert {"scheme", "hash", "encoding", "items"} >= set(newest.parameters)


def test_a_tampered_key_is_recorded_once() -> None:
    """The discovery that a key was tampered with is a record of its own."""
    with memory_hsm() as gateway:
        session = Session(gateway.act_as(caller()))
        key = session.create_key("aes").key_id
        store: Any = gateway._services.inventory.store  # noqa: SLF001 (to tamper)
        store._inner._records._found[blob_name(key, 1)] = b"junk"  # noqa: SLF001

        session.describe(key)
        session.describe(key)

        found = [e.event for e in session.audit_events() if "system" in e.event.kind]
        assert ["system.tampered", "system.start", "system.log-begun"] == [
            event.kind for event in found
        ]
        assert key == found[0].key_id


def test_refused_reads_about_a_key_are_recorded() -> None:
    """A read that fails is recorded where it concerns a key."""
    with memory_session() as session:
        key = session.create_key("aes").key_id

        with pytest.raises(errors.UnsupportedOperationError):
            session.public_key(key)

        newest = session.audit_events(limit=1)[0].event
        assert ("GetPublicKey", "unsupported_operation", key) == (
            newest.kind,
            newest.code,
            newest.key_id,
        )


def test_a_repeated_answer_is_recorded() -> None:
    """Who asks again under the same idempotency key leaves a record too."""
    with memory_session() as session:
        for _ in range(2):
            session.create_key("aes", idempotency_key="once")

        events = [entry.event for entry in session.audit_events(limit=3)]
        assert ["single", "outcome", "intent"] == [event.phase for event in events]
        assert MessageDetail(text="repeated request") == events[0].detail


def test_events_are_found_by_name() -> None:
    """The filter by key takes a name as well as an id."""
    with memory_session() as session:
        key = session.create_key("aes", name="k").key_id

        assert session.audit_events(key_id=key) == session.audit_events(key_id="k")


def test_a_record_tells_who_what_and_why() -> None:
    """A record holds caller, key facts, parameters, rule, policy and commitment."""
    me = Caller(
        principal="olga",
        roles=frozenset({Role.OPERATOR}),
        credential_id="jti-1",
        certificate_sha256="ab" * 32,
        certificate_subject="CN=olga,O=Example",
        certificate_names=("dns:olga.example", "ip:127.0.0.9"),
        source_address="127.0.0.9",
        interface="pkcs11",
        interface_claimed="p11tool uid 1000",
        request_id="req-7",
    )
    with memory_hsm() as gateway:
        session = Session(gateway.act_as(caller()))
        key = session.create_key("p256", name="signer", tags=["t"]).key_id
        gateway.act_as(me).execute(ops.Sign(key_id="signer", message=b"12345"))

        event = session.audit_events(limit=1)[0].event

    assert event.caller is not None
    assert ("pkcs11", "p11tool uid 1000") == (
        event.caller.interface,
        event.caller.interface_claimed,
    )
    assert ("olga", ("Operator",), "jti-1", "ab" * 32, "127.0.0.9") == (
        event.caller.principal,
        event.caller.roles,
        event.caller.credential_id,
        event.caller.certificate_sha256,
        event.caller.source_address,
    )
    assert event.key is not None
    assert ("EC-P256", "signer", ("t",), "active") == (
        event.key.algorithm,
        event.key.name,
        event.key.tags,
        event.key.state,
    )
    assert (key, 1, "req-7", "role:Operator", "ok") == (
        event.key_id,
        event.version,
        event.request_id,
        event.rule,
        event.code,
    )
    assert {
        "message_bytes": 5,
        "scheme": "ECDSA",
        "hash": "SHA-256",
        "encoding": "der",
        "caller_certificate_subject": "CN=olga,O=Example",
        "caller_certificate_names": ["dns:olga.example", "ip:127.0.0.9"],
    } == event.parameters
    assert (64, 64, "") == (len(event.bind), len(event.policy), event.digest)


def test_equal_payloads_have_equal_keyed_digests() -> None:
    """The digest tells whether two refused requests were the same, and no more."""
    with memory_hsm() as one, memory_hsm() as two:
        digests = []
        for gateway in (one, two):
            session = Session(gateway.act_as(caller()))
            session.create_key("ed25519", name="k")
            for message in (b"a", b"a", b"b"):
                with pytest.raises(HSMError):
                    session.verify("k", message, bytes(64))
            digests.append([e.event.digest for e in session.audit_events(limit=3)])

    assert digests[0][1] == digests[0][2] != digests[0][0]
    assert digests[0] != digests[1]


@pytest.mark.parametrize("size", [10, 64 * 1024 + 1])
def test_uses_are_bound_to_what_was_answered(size: int) -> None:
    """
    That is the signature, the MAC, or parts of the ciphertext, under a salt.

    Those are its header, nonce, tag and length: a decryption is bound to the same.
    """
    with memory_hsm() as gateway:
        session = Session(gateway.act_as(caller()))
        for algorithm in ("ed25519", "hmac-sha-256", "aes"):
            session.create_key(algorithm, name=algorithm)
        text, other = b"t" * size, b"u" * size

        signature = session.sign("ed25519", text).signature
        session.verify("ed25519", text, signature)
        mac = session.mac("hmac-sha-256", text).mac
        sealed = session.encrypt("aes", text)
        session.decrypt("aes", sealed)
        again = session.sign("ed25519", other).signature
        with pytest.raises(DecryptionError):
            session.decrypt("aes", sealed[:-1] + bytes([sealed[-1] ^ 1]))
        batch = [ops.SignItem(message=m) for m in (text, other)]
        session.sign_batch("ed25519", batch)

        events = [entry.event for entry in session.audit_events(limit=8)]
        audit = gateway._services.audit  # noqa: SLF001 (for the log's id)
        salts_of = salts_function(AUDIT_KEY, audit.log_id)
        parts = sealed[:40] + sealed[-16:] + len(sealed).to_bytes(8, "big")
        both = sha256(signature).digest() + sha256(again).digest()
        for event, what in zip(
            events,
            (both, None, again, parts, parts, mac, signature, signature),
            strict=True,
        ):
            bound = b"\4" + salts_of(event.seq)[:16] + (what or b"")
            assert event.bind == (sha256(bound).hexdigest() if what else "")
            assert bool(event.digest) == (what is None and size == 10)


class TestRefusals:
    def setup_method(self) -> None:
        """Have a trail in memory, and nothing recorded."""
        self.clock = FakeClock()
        self.log = MemoryAuditLog(b"\2" * 32, clock=self.clock, entropy=FakeEntropy())
        self.refusals = Refusals(self.log, self.clock, lambda: "")

    def refuse(self, address: str, times: int = 1) -> None:
        """Refuse a stranger so many times."""
        nobody = Caller(principal="", roles=frozenset(), source_address=address)
        for _ in range(times):
            self.refusals.record(
                nobody, "authentication_failed", kind="Authenticate", key_id=""
            )

    def recorded(self) -> tuple[int, list[int]]:
        """Return the number of single refusals, and what was counted."""
        head = self.log.head().seq
        # The first record begins the log.
        lines = self.log.lines(1, head) if head >= 0 else []
        found = [re.search(rb'"count":(\d+)', line) for line in lines]
        counts = [int(count[1]) for count in found if count]
        return len(lines) - len(counts), counts

    def test_a_flood_is_counted(self) -> None:
        """Above ten of an address refusals are counted; the count is one record."""
        self.refuse("127.0.0.1", 1000)
        before = self.recorded()
        self.refusals.flush()
        self.refusals.flush()

        assert (10, []) == before
        assert (10, [990]) == self.recorded()

    def test_a_minute_later_an_address_is_recorded_again(self) -> None:
        """Its budget is one of each minute."""
        self.refuse("127.0.0.1", 20)
        self.clock.advance(60)
        self.refuse("127.0.0.1", 20)
        self.refusals.flush()

        assert (20, [20]) == self.recorded()

    def test_a_hundred_thousand_addresses_are_counted(self) -> None:
        """However many come in however long, records are few and counts exact."""
        for minute in range(10):
            for number in range(10_000):
                self.refuse(f"192.0.{minute}.{number}")
            self.clock.advance(60)
            self.refusals.flush()
        single, counts = self.recorded()

        assert 100 <= single <= 100 + 10 * 60
        assert 10 == len(counts)
        assert 100_000 == single + sum(counts)

    def test_strangers_take_nothing_from_callers(self) -> None:
        """What is refused to somebody known is recorded while strangers make noise."""
        for number in range(1000):
            self.refuse(f"192.0.2.{number}")
        single = self.recorded()[0]
        ticket = self.refusals.record(caller(), "malformed", kind="Sign", key_id="k")

        assert ticket is not None
        assert single + 1 == self.recorded()[0]

    def test_the_count_is_written_at_the_end(self) -> None:
        """What was counted is not forgotten when the HSM is closed."""
        for _ in range(103):
            self.refusals.record(caller(), "malformed", kind="Sign", key_id="k" * 500)
        self.refusals.flush()

        assert (100, [3]) == self.recorded()
        assert CountedDetail.__struct_config__.tag == "counted"
        assert b'"key_id":"' + b"k" * 64 + b'"' in self.log.lines(1, 1)[0]
