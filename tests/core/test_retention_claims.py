# SPDX-License-Identifier: MIT
"""What the ledger says of how material was removed is what was really done."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hsm_core._internal.retention.service import removal_method
from hsm_core.model import AuditEvent, KeyState
from hsm_core.settings import KeyStoreKind
from tests.core.audit_support import read_lines
from tests.core.governance_steps import KINDS, Site, make_template
from tests.core.retention_support import DAY, World, events_of, keep_pipeline

__all__ = ["keep_pipeline"]

COPIES = "Backups, snapshots and what a medium, such as an SSD, keeps"
OPENED = "Whoever has an old copy and the root key can still open it."
ONLY_REMOVED = "has a second name, was only removed"


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


def test_in_memory_no_file_is_claimed(tmp_path: Path) -> None:
    """Nothing was overwritten, and nothing is said to have been."""
    world = World(tmp_path)
    world.old_key()
    world.pass_time(31, every=15.5)
    world.people.grant()
    world.sweep()
    world.clock.advance(1.5 * DAY)
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
