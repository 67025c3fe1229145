# SPDX-License-Identifier: MIT
"""
What a newer release has written is refused by name, and left as it is.

The newer release is this one with the numbers of its formats raised, and a field more
in each form of JSON.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import pytest

from hsm_core import factory
from hsm_core import operations as ops
from hsm_core._internal.approvals import records
from hsm_core._internal.audit import baseline
from hsm_core._internal.audit import record as trail_record
from hsm_core._internal.keyring import documents
from hsm_core._internal.keyring import key_ring as ring
from hsm_core._internal.keyring import use_counters as use_values
from hsm_core._internal.lib import encoding
from hsm_core._internal.retention.state import LOST, RetentionState, StateFile
from hsm_core._internal.stores.filesystem import stores
from hsm_core._internal.stores.memory.records import MemoryKeyStore
from hsm_core._internal.stores.remote.leases import decode_lease, encode_lease
from hsm_core.consent import ShownOperation, check_shown
from hsm_core.errors import (
    ApprovalRequiredError,
    ApprovalTamperedError,
    AuditTamperedError,
    ConfigurationError,
    InvalidInputError,
    KeyTamperedError,
    LedgerTamperedError,
    StoreUnavailableError,
)
from hsm_core.factory import OpenHSM, open_verifier, verify_ledger
from hsm_core.model import ApprovalState, Caller, Integrity, Role
from hsm_core.policies import load_policy
from hsm_core.protocols import Lease
from hsm_core.session import Session
from hsm_core.testing import FakeClock
from tests.compat.site import HMAC_KEY, open_site, session_of, settings_of
from tests.core.audit_support import draft, open_log
from tests.core.key_support import RING

KINDS: Final = ("filesystem", "sqlite")
NEWER: Final = "format 2, written by a newer release"
Change: TypeAlias = Callable[[pytest.MonkeyPatch], None]
"""Makes this release a newer one in some respect."""


class NewerForm:
    """Encoder and decoder of a form of JSON that has another number and a field."""

    def __init__(self, encoder: Any, decoder: Any) -> None:
        self._encoder = encoder
        self._decoder = decoder

    def encode(self, value: object) -> bytes:
        """Write what the older one writes, as the newer one."""
        older: bytes = self._encoder.encode(value)
        assert older.count(b'"format":1') == 1
        newer = older.replace(b'"format":1', b'"format":2')
        return newer.removesuffix(b"}") + b',"novel":true}'

    def decode(self, data: bytes) -> object:
        """Read both."""
        older = data.replace(b'"format":2', b'"format":1')
        return self._decoder.decode(older.replace(b',"novel":true}', b"}"))


class Place:
    """A folder with an HSM in it, of one kind of store."""

    def __init__(self, folder: Path, kind: str) -> None:
        folder.mkdir(mode=0o700)
        (folder / "retention.yaml").write_text("default_days: 30\n", "utf-8")
        self.folder = folder
        self.kind = kind
        self.clock = FakeClock()
        settings = settings_of(folder, kind)
        self.trail = settings.audit_log or settings.audit_sqlite_path

    @contextmanager
    def opened(self) -> Iterator[tuple[OpenHSM, Session]]:
        """Open the HSM, as somebody sees it who may make keys."""
        self.clock.advance(60)
        with open_site(self.folder, self.kind, self.clock) as hsm:
            yield hsm, session_of(hsm, "ann")

    @contextmanager
    def opened_by_newer(self, change: Change) -> Iterator[tuple[OpenHSM, Session]]:
        """Open the HSM by a newer release."""
        with pytest.MonkeyPatch.context() as patch:
            change(patch)
            with self.opened() as found:
                yield found

    def contents(self, part: str = "") -> dict[str, str]:
        """Return a digest of every file that is not an empty lock."""
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(content).hexdigest()
            for path in sorted((self.folder / part).rglob("*"))
            if path.is_file() and (content := path.read_bytes())
        }

    def keep(self, key_id: str) -> Callable[[], object]:
        """Return what tells all that is stored of a key."""
        if self.kind == "filesystem":
            (folder,) = (self.folder / "keys").rglob(key_id)
            return lambda: self.contents(str(folder.relative_to(self.folder)))
        return lambda: None


def newer_records(patch: pytest.MonkeyPatch) -> None:
    """Let the audit log be written in the next format."""
    newer = trail_record.START.replace(b"2", b"3")
    pattern = trail_record._ENTRY.pattern.replace(b":2,", b":[23],")  # noqa: SLF001
    patch.setattr(trail_record, "START", newer)
    patch.setattr(trail_record, "FORMAT", 3)
    patch.setattr(trail_record, "_ENTRY", re.compile(pattern))


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return an empty place for each kind of store."""
    return Place(tmp_path / "site", request.param)


def form(module: Any) -> Change:
    """Return what lets a module write the next format of JSON."""
    newer = NewerForm(*(getattr(module, name) for name in ("_ENCODER", "_DECODER")))

    def change(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(module, "_ENCODER", newer)
        patch.setattr(module, "_DECODER", newer)

    return change


def start(module: Any, name: str, value: bytes | int) -> Change:
    """
    Return what lets a module write another number of its format.

    The known answers of the power-up test are those of this release's format.
    """

    def change(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(module, name, value)
        patch.setattr(factory, "own_self_test", lambda entropy: None)

    return change


def auditor_of(hsm: OpenHSM) -> Any:
    """Return the HSM as an Auditor sees it."""
    return hsm.act_as(Caller(principal="anton", roles=frozenset({Role.AUDITOR})))


def test_document_of_a_key(place: Place) -> None:
    """
    A key whose document is newer is named so and does nothing; others serve on.
    """
    with place.opened() as (_, session):
        older = session.create_key("AES-256-GCM", name="older").key_id
    with place.opened_by_newer(form(documents)) as (_, session):
        newer = session.create_key("AES-256-GCM", name="newer").key_id
    kept = place.keep(newer)
    before = kept()

    with place.opened() as (hsm, session):
        with pytest.raises(KeyTamperedError, match=NEWER):
            session.encrypt(newer, b"x")
        with pytest.raises(KeyTamperedError, match=NEWER):
            session.rotate(newer)
        assert Integrity.TAMPERED is session.describe(newer).integrity
        assert session.decrypt(older, session.encrypt(older, b"x")) == b"x"
        auditor_of(hsm).execute(ops.VerifyStore())
    assert kept() == before

    with place.opened_by_newer(form(documents)) as (_, session):
        assert session.decrypt(newer, session.encrypt(newer, b"x")) == b"x"


def test_sealed_blob(place: Place) -> None:
    """
    Material that is sealed in a newer form is named so, and not used.
    """
    with place.opened_by_newer(start(ring, "_BLOB_START", b"FHKB\x02")) as (_, session):
        newer = session.create_key("AES-256-GCM").key_id
    kept = place.keep(newer)
    before = kept()

    with place.opened() as (_, session):
        with pytest.raises(KeyTamperedError, match=NEWER):
            session.encrypt(newer, b"x")
    assert kept() == before


def test_use_counter(place: Place) -> None:
    """
    Material whose counter is newer protects nothing more, and still decrypts.
    """
    with place.opened_by_newer(start(use_values, "_START", b"FHKU\x02")) as (
        _,
        session,
    ):
        key_id = session.create_key("AES-256-GCM").key_id
        ciphertext = session.encrypt(key_id, b"x")

    with place.opened() as (_, session):
        with pytest.raises(KeyTamperedError, match="use counter"):
            session.encrypt(key_id, b"y")
        assert session.decrypt(key_id, ciphertext) == b"x"


def test_saved_index(tmp_path: Path) -> None:
    """
    An index that is newer is made again from the documents.
    """
    place = Place(tmp_path / "site", "filesystem")
    with place.opened_by_newer(start(stores, "_FORMAT", 4)) as (
        _,
        session,
    ):
        key_id = session.create_key("AES-256-GCM").key_id
    saved = place.folder / "keys" / "index"
    assert saved.read_bytes()[63] == 4

    with place.opened() as (_, session):
        assert [key_id] == [found.key_id for found in session.keys()]
    assert saved.read_bytes()[63] == 3


def test_records_of_the_trail(place: Place) -> None:
    """
    A trail that goes on in a newer format is refused there, and nothing is written.
    """
    with place.opened() as (_, session):
        session.create_key("AES-256-GCM")
        with pytest.MonkeyPatch.context() as patch:
            # What it has read is older, so that from here on alone it is newer.
            newer_records(patch)
            session.create_key("AES-256-GCM")
    before = place.contents()

    with pytest.raises(AuditTamperedError, match="newer release") as caught:
        open_verifier(place.trail, HMAC_KEY).verify()
    assert caught.value.facts["reason"] == "format"
    with pytest.raises(AuditTamperedError, match="newer release"), place.opened():
        pass
    assert place.contents() == before


def test_records_of_the_ledger(tmp_path: Path) -> None:
    """
    A ledger that goes on in a newer format is refused, online and offline.
    """
    place = Place(tmp_path / "site", "filesystem")
    ledger = place.folder / "ledger.log"
    with place.opened():
        pass
    with pytest.MonkeyPatch.context() as patch:
        newer_records(patch)
        log = open_log(ledger, key=HMAC_KEY, clock=place.clock)
        log.append([draft(1)], durable=True).wait()
        log.close()
    before = ledger.read_bytes()

    with pytest.raises(LedgerTamperedError, match="newer release"):
        verify_ledger(ledger, HMAC_KEY, trail=place.trail)
    with place.opened() as (hsm, _):
        status = auditor_of(hsm).execute(ops.RetentionStatus()).ledger
        assert status is not None
        assert "newer release" in status.problem
    assert ledger.read_bytes() == before


def test_what_is_kept_of_pruned_records() -> None:
    """
    A baseline that is newer is named so, whoever reads it.
    """
    line = b'{"format":2,"log_id":"%b","novel":true}\n' % (b"ab" * 16)
    with pytest.raises(AuditTamperedError, match="newer release"):
        baseline.check_baseline([line], log_id="ab" * 16, hmac_key=HMAC_KEY)


def test_approval(place: Place) -> None:
    """
    An approval that is newer is named so; nobody can decide over it, and it stays.
    """
    with place.opened_by_newer(form(records)) as (_, session):
        with pytest.raises(ApprovalRequiredError) as asked:
            session.create_key("ML-KEM-1024")
    approval_id = str(asked.value.facts["approval_id"])
    digest = str(asked.value.facts["digest"])

    with place.opened() as (hsm, _):
        auditor = auditor_of(hsm)
        with pytest.raises(ApprovalTamperedError, match=NEWER):
            auditor.execute(ops.GetApproval(approval_id=approval_id))
        with pytest.raises(ApprovalTamperedError, match=NEWER):
            auditor.execute(ops.Approve(approval_id=approval_id, digest=digest))

    with place.opened_by_newer(form(records)) as (hsm, _):
        found = auditor_of(hsm).execute(ops.GetApproval(approval_id=approval_id))
        assert found.state is ApprovalState.PENDING


def test_sealed_part_of_an_approval(place: Place) -> None:
    """
    An approval whose operation is sealed in a newer form is named so.
    """
    with place.opened_by_newer(start(ring, "_APPROVAL_START", b"FHKA\x02")) as (
        _,
        session,
    ):
        with pytest.raises(ApprovalRequiredError) as asked:
            session.create_key("ML-KEM-1024")
    approval_id = str(asked.value.facts["approval_id"])

    with place.opened() as (hsm, _):
        with pytest.raises(ApprovalTamperedError, match=NEWER):
            auditor_of(hsm).execute(ops.GetApproval(approval_id=approval_id))


def test_state_of_retention() -> None:
    """
    Where what retention remembers is newer, nothing is purged until people say so.
    """
    payload = msgspec.json.encode(RetentionState(format=2, store_id=RING.store_id))
    for newer in (payload, payload.removesuffix(b"}") + b',"novel":1}'):
        mac = RING.retention_mac(newer)
        stored = encoding.join(b"retention", newer, mac)
        store = MemoryKeyStore()
        store.write_meta("retention", stored)

        assert (LOST,) == StateFile(store, RING).state.pauses
        assert stored == store.read_meta("retention")


def test_lease() -> None:
    """
    A lease that is newer is named so.
    """
    lease = Lease(name="writer", holder="host", epoch=1, expires_at=9)
    stored = encode_lease(lease).replace(b'"format":1', b'"format":2')
    for newer in (stored, stored.removesuffix(b"}") + b',"novel":1}'):
        with pytest.raises(StoreUnavailableError, match=NEWER):
            decode_lease("writer", newer)


def test_what_an_approver_is_shown() -> None:
    """
    What is shown in a newer format is not signed.
    """
    shown = ShownOperation(format=3, kind="Sign", requester="ann")
    with pytest.raises(InvalidInputError, match="must be 1 to 2, got 3"):
        check_shown(shown)


@pytest.mark.parametrize("text", ["version: 2\nnovel: 1\n", '{"version": 2}'])
def test_policy_file(tmp_path: Path, text: str) -> None:
    """
    A policy file of a newer version is refused, whatever else is in it.
    """
    path = tmp_path / "policy.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigurationError, match=r"version 2 requires a newer release"):
        load_policy(path)


def test_the_newer_form_is_one() -> None:
    """
    What these tests write is what the older form refuses for its number alone, too.
    """
    form = NewerForm(msgspec.json.Encoder(), msgspec.json.Decoder())
    assert b'{"format":2,"novel":true}' == form.encode({"format": 1})
    assert {"format": 1} == form.decode(form.encode({"format": 1}))
