# SPDX-License-Identifier: MIT
"""Retention: what is old is purged once, with consent, and attested as it was done."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.policy import engine
from hsm_core._internal.retention.service import removal_method
from hsm_core.errors import HSMError, KeyStateError
from hsm_core.model import ApprovalState, AuditEvent, KeyId, KeyState
from hsm_core.settings import KeyStoreKind
from tests.core.audit_support import read_lines
from tests.core.dual_disk import KINDS
from tests.core.governance_steps import Site, make_template
from tests.core.retention_support import World, events_of

UNASKED = """
version: 1
rules:
  - {name: all, effect: allow}
"""
RETIRED, SCHEDULED = KeyState.RETIRED, KeyState.PURGE_SCHEDULED
ACTIVE, DESTROYED = KeyState.ACTIVE, KeyState.DESTROYED


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return an HSM in memory whose old versions are kept for 30 days."""
    made = World(tmp_path)
    yield made
    made.close()


def until(world: World, days: float) -> datetime:
    """Return an instant so many days from now."""
    now = datetime.fromtimestamp(world.clock.now() / 1e6, UTC)
    return now + timedelta(days=days)


def asked_versions(world: World) -> list[list[int | None]]:
    """Return the versions that each approval request is about."""
    return [
        [f.number for f in asked.operation.fields if f.name.startswith("versions.")]
        for asked in world.asked()
    ]


class TestPurge:
    def test_an_old_version_is_purged_once(self, world: World) -> None:
        """After window, consent and grace the material goes, and is attested once."""
        key = world.old_key()
        world.pass_time(29)

        assert [] == world.waiting()

        world.pass_time(2)
        (asked,) = world.waiting("PurgeVersion")

        assert [RETIRED, ACTIVE] == world.states(key)

        world.pass_time(5)
        world.consent()
        world.sweep()

        assert [SCHEDULED, ACTIVE] == world.states(key)

        world.pass_time(0.9, every=0.1)

        assert [SCHEDULED, ACTIVE] == world.states(key)

        world.pass_time(30)

        assert [DESTROYED, ACTIVE] == world.states(key)
        assert 1 == len(world.asked())
        intent, outcome = world.attested()
        assert ("intent", "outcome") == (intent.phase, outcome.phase)
        assert "ok" == outcome.code
        assert asked.approval_id == intent.parameters["approval_id"]
        report = world.session.retention()
        assert (1, 1, 0) == (
            report.scheduled_total,
            report.completed_total,
            report.queue,
        )

    def test_a_purged_version_decrypts_nothing(self, world: World) -> None:
        """Its material is gone; what the key protects now is not touched."""
        key = world.old_key(1)
        old = world.session.encrypt(key, b"old")
        world.session.rotate(key)
        new = world.session.encrypt(key, b"new")
        world.pass_time(31)

        assert b"old" == world.session.decrypt(key, old)

        world.consent()
        world.sweep()
        with pytest.raises(KeyStateError):
            world.session.decrypt(key, old)
        world.pass_time(2)

        assert [DESTROYED, ACTIVE] == world.states(key)
        with pytest.raises(HSMError):
            world.session.decrypt(key, old)
        assert b"new" == world.session.decrypt(key, new)

    def test_material_goes_with_its_last_version(self, world: World) -> None:
        """Versions made by rollback share material: they wait for each other."""
        key = world.old_key(2)
        world.session.rollback(key, 1)
        world.pass_time(20)
        world.session.rotate(key)
        # Versions 1 and 3 share material; 3 was retired 20 days after 1 and 2.
        world.pass_time(12)

        assert [[2]] == asked_versions(world)

        world.pass_time(20)

        assert [[2], [1, 3]] == asked_versions(world)

        world.consent()
        world.pass_time(3)

        assert [DESTROYED] * 3 + [ACTIVE] == world.states(key)
        assert ["1", "3"] in [e.parameters.get("versions") for e in world.attested()]

    def test_a_revoked_version_is_kept_from_its_revocation_on(
        self, world: World
    ) -> None:
        """The window opens when it was revoked, however old it is."""
        key = world.old_key()
        world.pass_time(20)
        world.session.revoke(key, version=1)
        world.pass_time(29)

        assert [] == world.waiting()

        world.pass_time(2)

        assert 1 == len(world.waiting())


class TestWhatIsKept:
    def test_a_current_version_is_never_asked_for(self, world: World) -> None:
        """Not the only one, not an active one, not a revoked one without successor."""
        only = world.old_key(1)
        revoked = world.old_key(1)
        world.session.revoke(revoked)
        world.pass_time(400, every=50)

        assert not world.asked()
        assert [ACTIVE] == world.states(only)
        assert [KeyState.REVOKED] == world.states(revoked)

    def test_what_was_rolled_back_to_is_never_asked_for(self, world: World) -> None:
        """Version 1 has the material that the key uses now."""
        key = world.old_key(2)
        world.session.rollback(key, 1)
        world.pass_time(400, every=50)

        assert [2] == [item.version for item in world.session.retention().items]
        assert [RETIRED, RETIRED, ACTIVE] == world.states(key)

    def test_a_hold_keeps_all(self, world: World) -> None:
        """It is not purged, not scheduled and not destroyed while it is held."""
        key = world.old_key()
        world.session.hold(key, "case 4711")
        world.pass_time(100, every=10)

        assert not world.asked()
        assert "case 4711" == world.session.describe(key).hold
        with pytest.raises(KeyStateError, match="case 4711"):
            world.session.destroy(key)

        world.session.release(key, "closed")
        world.pass_time(1)

        assert 1 == len(world.waiting())

    def test_a_hold_takes_back_what_is_scheduled(self, world: World) -> None:
        """At once, and the version serves again."""
        key = world.old_key(1)
        old = world.session.encrypt(key, b"old")
        world.session.rotate(key)
        world.pass_time(31)
        world.consent()
        world.sweep()
        world.session.hold(key, "wait")

        assert b"old" == world.session.decrypt(key, old)

        world.pass_time(5)
        world.session.release(key, "go on")
        world.sweep()

        assert [SCHEDULED, ACTIVE] == world.states(key)

        world.pass_time(0.9)

        # The grace period began anew.
        assert [SCHEDULED, ACTIVE] == world.states(key)

    def test_an_extension_takes_back_what_is_scheduled(self, world: World) -> None:
        """Until it ends; then people are asked, or have consented already."""
        key = world.old_key()
        world.pass_time(31)
        world.consent()
        world.sweep()
        world.session.extend_retention(key, 1, until(world, 40))

        assert [RETIRED, ACTIVE] == world.states(key)

        world.pass_time(39)

        assert [RETIRED, ACTIVE] == world.states(key)

        world.pass_time(2)

        assert 2 == len(world.asked())

    def test_an_extension_is_never_taken_back(self, world: World) -> None:
        """Neither by a shorter one nor by one into the past."""
        key = world.old_key()
        world.session.extend_retention(key, 1, until(world, 100))
        for days in (-1, 0, 50):
            with pytest.raises(HSMError, match="until"):
                world.session.extend_retention(key, 1, until(world, days))
        found = world.session.versions(key)[0].retain_until

        assert found == until(world, 100)


class TestConsent:
    def test_a_request_that_nobody_answers_is_made_again(self, world: World) -> None:
        """After it has expired, and a day."""
        key = world.old_key()
        world.pass_time(100)

        assert [RETIRED, ACTIVE] == world.states(key)
        assert len(world.asked()) > 2
        states = [found.state for found in world.asked()]
        assert {ApprovalState.EXPIRED} == set(states[:-1])
        assert ApprovalState.PENDING is states[-1]

    def test_without_a_demand_for_consent_nothing_is_purged(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A policy that asks nobody purges nothing, and the status says so."""
        monkeypatch.setattr(engine, "_PURGE", frozenset())
        policy = tmp_path / "policy.yaml"
        policy.write_text(UNASKED)
        policy.chmod(0o600)
        world = World(tmp_path, policy_config=policy)
        key = world.old_key()
        world.pass_time(60)

        assert [RETIRED, ACTIVE] == world.states(key)
        assert "approvals" == world.session.retention().paused
        world.close()


class TestFailingKeys:
    def test_one_key_that_fails_keeps_no_other_back(self, tmp_path: Path) -> None:
        """A tampered key is counted; the others are purged."""
        world = World(tmp_path, memory=False)
        keys = [world.old_key() for _ in range(4)]
        world.close()
        found = next(
            path
            for path in (tmp_path / "keys").rglob("*")
            if path.is_file() and keys[1] in str(path) and b'"mac"' in path.read_bytes()
        )
        found.write_bytes(found.read_bytes().replace(b"AES-256", b"AES-128"))
        world.open()
        world.pass_time(31)
        world.consent()
        world.pass_time(2)

        assert 3 == world.session.retention().completed_total
        assert world.session.retention().failures
        world.close()


class TestTrail:
    def test_every_step_is_recorded_under_a_reserved_name(self, world: World) -> None:
        """No person, and no token, can have the scheduler's name."""
        world.old_key()
        world.pass_time(31)
        world.consent()
        world.pass_time(2)
        events = [entry.event for entry in world.session.audit_events(limit=200)]
        steps = {"SchedulePurge", "PurgeVersion"}
        found = [e for e in events if e.kind in steps]

        assert steps == {e.kind for e in found}
        assert {"system.retention"} == {
            e.caller.principal for e in found if e.caller is not None
        }

    def test_the_trail_says_how_far_the_ledger_reaches(self, world: World) -> None:
        """After intent and outcome of each purge."""
        world.old_key()
        world.pass_time(31)
        world.consent()
        world.pass_time(2)
        events = [entry.event for entry in world.session.audit_events(limit=200)]
        anchors = [e for e in events if e.kind == "system.ledger"]
        head = world.session.retention().ledger

        assert head is not None
        assert 2 == len(anchors)
        assert head.head_hash == anchors[0].parameters["leaf_hash"]
        assert [0, 1, 2] == [e.seq for e in events_of(world.retention.ledger.log)]


PLACES = ["purge.after_ledger_intent", "purge.after_mutation"]
KEYS, VERSIONS = 3, 71
PURGES = KEYS * (VERSIONS - 1)


def interrupt_at(world: World, place: str, count: int) -> None:
    """Let the process end when it comes to a place for the so-manieth time."""
    seen = 0

    def strike(name: str) -> None:
        nonlocal seen
        seen += name == place
        if seen == count:
            raise KeyboardInterrupt

    with install(strike), pytest.raises(KeyboardInterrupt):
        world.sweep()


def reopen(world: World) -> None:
    """Close it and open it again, without the thread that sweeps by itself."""
    world.close()
    world.open()
    world.hsm.worker.stop(10)


def test_each_purge_is_attested_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted between steps, after an intent and after a removal."""
    # A process ends here, and no machine: what was written is there afterwards.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    world = World(tmp_path, memory=False, retention_max_purges=PURGES)
    world.hsm.worker.stop(10)
    keys = [world.old_key(VERSIONS) for _ in range(KEYS)]
    world.ripen()
    while not world.session.retention().completed_total:
        world.retention.step()  # A part of a sweep, as the HSM's thread does it.
    reopen(world)
    for number, place in enumerate(PLACES, 20):
        before = len(world.attested())
        interrupt_at(world, place, number)
        assert before + number < len(world.attested()) < 2 * PURGES
        reopen(world)
    for _ in range(2):
        world.sweep()

    wanted = [KeyState.DESTROYED] * (VERSIONS - 1) + [KeyState.ACTIVE]
    assert [wanted] * KEYS == [world.states(key) for key in keys]
    check_ledger(world, keys)
    world.close()


def check_ledger(world: World, keys: list[str]) -> None:
    """Check that each version has one intent and one outcome that is well."""
    assert world.ledger_log is not None
    events = [e for e in events_of(world.ledger_log) if e.kind == "purge"]
    intents = {e.operation_id: e for e in events if e.phase == "intent"}
    ends = [e for e in events if e.phase == "outcome"]
    done = Counter(
        (intents[e.operation_id].key_id, intents[e.operation_id].version)
        for e in ends
        if e.code == "ok"
    )
    versions = [(key, n) for key in keys for n in range(1, VERSIONS)]

    assert Counter(versions) == done
    assert len(intents) == len(ends) == PURGES
    assert {"ok"} == {e.code for e in ends}


COPIES = "Deletion does not reach backups, snapshots, or remnants on media"
OPENED = "Anyone with an old copy and the root key can still decrypt it."
ONLY_REMOVED = "has another hard link, was only removed"


def attested(site: Site) -> list[AuditEvent]:
    """Return what the ledger says of purges."""
    assert site.gateway.retention is not None
    log = site.gateway.retention.ledger.log
    return [event for event in events_of(log) if event.kind == "purge"]


def sealed_forms(folder: Path, kind: str) -> dict[str, bytes]:
    """Return all sealed forms in a store that is closed, by their SHA-256."""
    if kind == "filesystem":
        found = [path.read_bytes() for path in (folder / "keys").rglob("v0000*")]
    else:
        with closing(sqlite3.connect(folder / "keys.sqlite")) as database:
            found = [row[0] for row in database.execute("SELECT blob FROM blobs")]
    return {hashlib.sha256(content).hexdigest(): content for content in found}


@pytest.mark.parametrize("kind", KINDS)
def test_the_intent_claims_what_is_done(tmp_path: Path, kind: str) -> None:
    """The very sealed form that it names is there before, and in no file after."""
    now = make_template(tmp_path, kind)
    before = sealed_forms(tmp_path, kind)
    site = Site(tmp_path, kind, now)
    site.sweep()
    intent, outcome = attested(site)
    digests = intent.parameters["blob_sha256"]
    assert isinstance(digests, list)
    gone = before[digests[0]]
    site.gateway.close()

    wanted = {"filesystem": "overwritten-and-removed", "sqlite": "row-deleted"}
    for event in (intent, outcome):
        note = str(event.parameters["note"])
        assert wanted[kind] == event.parameters["method"]
        assert COPIES in note
        assert OPENED in note
        assert (kind == "filesystem") is (ONLY_REMOVED in note)
    assert [str(len(gone))] == intent.parameters["blob_bytes"]
    # What is secret in it is the end; a page may break the whole of it in two.
    for path in (p for p in tmp_path.rglob("*") if p.is_file()):
        assert gone[-48:] not in path.read_bytes(), path.name


def test_material_of_many_versions(tmp_path: Path) -> None:
    """It is purged at once, and the ledger has one digest of all sealed forms."""
    count = 300
    world = World(tmp_path)
    key = world.old_key()
    for _ in range(count - 1):
        world.session.rollback(key, 1)
    world.session.rotate(key)
    store = world.hsm._services.inventory.store  # noqa: SLF001 (what is sealed in it)
    numbers = [n for n in range(1, count + 2) if n != 2]
    blobs = [store.get_blob(KeyId(key), n) or b"" for n in numbers]
    world.pass_time(31, every=15.5)
    world.consent()
    world.sweep()
    world.pass_time(2)
    states = world.states(key)
    intent, outcome = [e for e in world.attested() if e.version == numbers[-1]]
    world.close()

    lines = [
        f"{number} {hashlib.sha256(blob).hexdigest()} {len(blob)}\n"
        for number, blob in zip(numbers, blobs, strict=True)
    ]
    assert [DESTROYED] * (count + 1) == states[:-1]
    assert "ok" == outcome.code
    assert (
        hashlib.sha256("".join(lines).encode()).hexdigest()
        == (intent.parameters["blobs_sha256"])
    )
    assert [str(number) for number in numbers] == intent.parameters["versions"]
    assert "blob_sha256" not in intent.parameters


def test_in_memory_no_file_is_claimed(tmp_path: Path) -> None:
    """Nothing was overwritten, and nothing is said to have been."""
    world = World(tmp_path)
    world.old_key()
    world.ripen()
    world.sweep()
    events = world.attested()
    world.close()

    assert ["forgotten"] * 2 == [event.parameters["method"] for event in events]
    for event in events:
        assert OPENED in str(event.parameters["note"])
        assert ONLY_REMOVED not in str(event.parameters["note"])


@pytest.mark.parametrize("store", ["vault", "vault:secret/hsm", "elsewhere:x"])
def test_only_a_file_is_said_to_be_overwritten(store: str) -> None:
    """A store that nobody knows here was told to delete, and no more."""
    assert "object-deleted" == removal_method(store)
    assert "overwritten-and-removed" == removal_method(KeyStoreKind.FILESYSTEM)


def test_a_file_with_a_second_name_is_said_not_to_be_reached(tmp_path: Path) -> None:
    """The other name keeps the sealed form, and the ledger says that this may be."""
    site = Site(tmp_path, "filesystem", make_template(tmp_path, "filesystem"))
    (blob,) = (p for p in (tmp_path / "keys").rglob("v00000001") if p.is_file())
    kept = blob.read_bytes()
    os.link(blob, tmp_path / "second-name")
    site.sweep()
    (intent, _) = attested(site)

    assert KeyState.DESTROYED is site.oldest()
    assert not blob.exists()
    assert kept == (tmp_path / "second-name").read_bytes()
    assert ONLY_REMOVED in str(intent.parameters["note"])
    site.gateway.close()


def test_the_claims_are_in_the_file_itself(tmp_path: Path) -> None:
    """Whoever reads the ledger without the HSM reads them in plain words."""
    site = Site(tmp_path, "filesystem", make_template(tmp_path, "filesystem"))
    site.sweep()
    site.gateway.close()
    lines = [str(line) for line in read_lines(tmp_path / "ledger.log")]

    assert 2 == sum(COPIES in line and OPENED in line for line in lines)
