# SPDX-License-Identifier: MIT
"""What earlier releases have written is read and verified; newer forms are refused."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hsm_core import operations as ops
from hsm_core.errors import (
    AuditTamperedError,
    ConfigurationError,
    DecryptionError,
    HSMError,
)
from hsm_core.factory import OpenHSM, open_verifier, verify_ledger
from hsm_core.model import ApprovalState, Caller, KeyState, Role
from hsm_core.session import Session
from hsm_core.testing import FakeClock
from tests.compat.site import (
    FIXTURE_NAMES,
    HMAC_KEY,
    open_site,
    session_of,
    settings_of,
    unpack,
)

NEWER = 99
DATABASES = ["sqlite/keys", "trail/audit", "approvals/approvals"]


class Site:
    """A copy of a fixture: its folder, its kind, its facts and a clock after it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = folder
        self.kind = name.rpartition("-")[2]
        self.facts: dict[str, Any] = unpack(name, folder)
        self.clock = FakeClock(self.facts["closed_at"] + 60_000_000)
        settings = settings_of(folder, self.kind)
        self.trail = settings.audit_log or settings.audit_sqlite_path
        self.ledger = folder / "ledger.log"
        self.message = bytes.fromhex(self.facts["message"])
        self.aad = bytes.fromhex(self.facts["aad"])

    def open(self) -> OpenHSM:
        """Open the HSM."""
        return open_site(self.folder, self.kind, self.clock)

    def contents(self) -> dict[str, str]:
        """Return digests of all files but empty locks and the saved index, a cache."""
        return {
            str(path.relative_to(self.folder)): hashlib.sha256(content).hexdigest()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
            and path.name != "index"
            and (content := path.read_bytes())
        }


@pytest.fixture(params=FIXTURE_NAMES)
def closed(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    """Return a copy of each fixture that nothing has opened."""
    name: str = request.param
    return Site(name, tmp_path / "site")


@pytest.fixture(scope="module", params=FIXTURE_NAMES)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Site:
    """Return the copy of each fixture that `hsm` opens."""
    name: str = request.param
    return Site(name, tmp_path_factory.mktemp(name) / "site")


@pytest.fixture(scope="module")
def hsm(site: Site) -> Iterator[OpenHSM]:
    """Open a copy of each fixture, once for all tests that use it."""
    with site.open() as opened:
        yield opened


@pytest.fixture(scope="module")
def session(hsm: OpenHSM) -> Session:
    """Return it as the person sees it who has made its keys."""
    return session_of(hsm, "ann")


def test_there_are_fixtures_of_both_stores() -> None:
    """
    Every release has a fixture of each kind of store.
    """
    releases = {name.rpartition("-")[0] for name in FIXTURE_NAMES}
    kinds = ("filesystem", "sqlite")
    assert releases
    assert sorted(f"{r}-{k}" for r in releases for k in kinds) == FIXTURE_NAMES


def test_ciphertexts_open(site: Site, session: Session) -> None:
    """
    What was encrypted or sealed is decrypted, by the version that did it.
    """
    facts = site.facts
    for made in facts["ciphers"].values():
        ciphertext = bytes.fromhex(made["ciphertext"])
        assert session.decrypt(made["key_id"], ciphertext, site.aad) == site.message
    for made in facts["sealed"].values():
        ciphertext = bytes.fromhex(made["ciphertext"])
        assert session.open(made["key_id"], ciphertext, site.aad) == site.message


def test_signatures_and_macs_verify(site: Site, session: Session) -> None:
    """
    What was signed is good, and is not good for another message.
    """
    facts = site.facts
    signed = [*facts["signatures"].values(), facts["approved"]]
    for made in signed:
        signature = bytes.fromhex(made["signature"])
        session.verify(made["key_id"], site.message, signature)
        with pytest.raises(HSMError):
            session.verify(made["key_id"], b"another", signature)
    mac = facts["mac"]
    session.verify_mac(mac["key_id"], site.message, bytes.fromhex(mac["mac"]))


def test_keys_serve_on(site: Site, session: Session) -> None:
    """
    Old keys are used, counted, rotated and rolled back as new ones are.
    """
    key_id = site.facts["ciphers"]["AES-256-GCM"]["key_id"]
    before = session.versions(key_id)
    assert before[0].use is not None
    assert before[0].use.uses == 1
    sealed = session.encrypt(key_id, b"new", b"")
    session.rotate(key_id)
    session.rollback(key_id, 1)
    assert session.decrypt(key_id, sealed) == b"new"
    assert len(session.versions(key_id)) == len(before) + 2


def test_approvals_are_known(site: Site, hsm: OpenHSM, session: Session) -> None:
    """
    What was consented to is known, and what waited can be consented to and done.
    """
    approved, pending = site.facts["approved"], site.facts["pending"]
    auditor = hsm.act_as(Caller(principal="anton", roles=frozenset({Role.AUDITOR})))
    found = auditor.execute(ops.GetApproval(approval_id=approved["approval_id"]))
    assert found.state is ApprovalState.CONSUMED
    page = auditor.execute(ops.ListApprovals(states=(ApprovalState.PENDING,)))
    assert [item.approval_id for item in page.items] == [pending["approval_id"]]
    auditor.execute(
        ops.Approve(approval_id=pending["approval_id"], digest=pending["digest"])
    )
    made = session.create_key("ML-KEM-1024", idempotency_key=f"{'ML-KEM-1024':->36}")
    assert made.state is KeyState.ACTIVE


def test_purged_material_stays_purged(site: Site, session: Session) -> None:
    """
    What was destroyed is known as such.
    """
    purged = site.facts["purged"]
    states = [str(version.state) for version in session.versions(purged["key_id"])]
    assert states == purged["states"]
    assert states[0] == KeyState.DESTROYED


def test_trail_and_ledger_verify_offline(closed: Site) -> None:
    """
    Trail and ledger verify before anything has opened them, and agree.
    """
    before = closed.contents()
    found = open_verifier(closed.trail, HMAC_KEY).verify()
    assert found.macs_checked
    assert found.mark_checked
    assert found.clean
    attested = verify_ledger(closed.ledger, HMAC_KEY, trail=closed.trail)
    assert attested.purges == 1
    assert closed.contents() == before


def test_whole_store_and_trail_verify(hsm: OpenHSM) -> None:
    """
    The open HSM finds nothing wrong, in keys or trail, and continues the trail.
    """
    auditor = session_of(hsm, "anton", Role.AUDITOR)
    assert auditor.verify_audit().verified > 0
    report = hsm.act_as(
        Caller(principal="anton", roles=frozenset({Role.AUDITOR}))
    ).execute(ops.VerifyStore())
    assert not report.findings


def test_newer_key_ring_is_refused(closed: Site) -> None:
    """
    A key ring of a newer format is named as such, and nothing is written.
    """
    _set_ring_format(closed, NEWER)
    before = closed.contents()
    with pytest.raises(ConfigurationError, match=f"format {NEWER}"):
        closed.open()
    assert closed.contents() == before


@pytest.mark.parametrize("database", DATABASES)
def test_newer_schema_is_refused(tmp_path: Path, database: str) -> None:
    """
    A database of a newer schema is named as such, and nothing is written.
    """
    for name in (name for name in FIXTURE_NAMES if name.endswith("-sqlite")):
        site = Site(name, tmp_path / name)
        _set_schema(site.folder / f"{database}.sqlite", NEWER)
        before = site.contents()
        with pytest.raises(ConfigurationError, match=str(NEWER)):
            site.open()
        assert site.contents() == before


def test_newer_head_mark_is_refused(closed: Site) -> None:
    """
    A head mark of a newer format is no mark, and nothing is written.
    """
    head = closed.trail.with_name(f"{closed.trail.name}.head")
    content = head.read_bytes()
    head.write_bytes(content.replace(b"FerroHSM head 1\n", b"FerroHSM head 2\n"))
    assert head.read_bytes() != content
    before = closed.contents()
    with pytest.raises(AuditTamperedError):
        open_verifier(closed.trail, HMAC_KEY).verify()
    with pytest.raises(AuditTamperedError):
        closed.open()
    assert closed.contents() == before


def test_newer_ciphertext_is_refused(site: Site, session: Session) -> None:
    """
    A ciphertext of a newer format is none that we can decrypt.
    """
    made = site.facts["ciphers"]["AES-256-GCM"]
    ciphertext = bytearray.fromhex(made["ciphertext"])
    ciphertext[4] = 2
    with pytest.raises(DecryptionError):
        session.decrypt(made["key_id"], bytes(ciphertext), site.aad)


def _set_schema(path: Path, version: int) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _set_ring_format(site: Site, number: int) -> None:
    """Let the sealed ring say that it has a format, with a checksum that is right."""
    if site.kind == "sqlite":
        connection = sqlite3.connect(site.folder / "sqlite" / "keys.sqlite")
        query = "SELECT value FROM meta WHERE name = 'ring'"
        stored: bytes = connection.execute(query).fetchone()[0]
        newer = _ring_of_format(stored, number)
        connection.execute("UPDATE meta SET value = ? WHERE name = 'ring'", (newer,))
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        return
    path = site.folder / "keys" / "meta" / "ring"
    path.write_bytes(_ring_of_format(path.read_bytes(), number))


def _ring_of_format(stored: bytes, number: int) -> bytes:
    body = b"FHKR" + bytes([number]) + stored[5:-32]
    return body + hashlib.sha256(body).digest()
