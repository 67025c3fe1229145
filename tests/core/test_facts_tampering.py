# SPDX-License-Identifier: MIT
"""Every attack on facts lines is detected and named, by both readers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hsm_core.errors import AuditTamperedError
from hsm_core.factory import open_verifier
from hsm_core.session import Session
from hsm_core.settings import AuditStoreKind, AuditSync, Settings
from hsm_core.testing import caller
from tests.core.facts_attacks import (
    FACTS_ATTACKS,
    DatabaseLines,
    FactsAttack,
    FileLines,
    Lines,
)
from tests.core.second_reader import BadLogError, Log, read_database, read_files
from tests.self_tests import open_tested

KEY = b"\x02" * 32
KINDS = {"files": FileLines, "sqlite": DatabaseLines}


def path_in(folder: Path, kind: str) -> Path:
    """Return where a log lies."""
    return folder / ("audit.log" if kind == "files" else "audit.sqlite")


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give the folder of a log of each kind, with uses by two people."""
    made = {}
    for kind in KINDS:
        made[kind] = folder = tmp_path_factory.mktemp(kind)
        settings = Settings(
            key_dir=folder / "keys",
            audit_store=AuditStoreKind.FILE
            if kind == "files"
            else AuditStoreKind.SQLITE,
            audit_log=folder / "audit.log",
            audit_sqlite_path=folder / "audit.sqlite",
            audit_segment_bytes=10_000,
            audit_sync=AuditSync.BOUNDED,
        )
        with open_tested(settings) as gateway:
            alice, bob = (
                Session(gateway.act_as(caller(principal=name)))
                for name in ("alice", "bob")
            )
            key = alice.create_key("p256").key_id
            for number in range(45):
                (bob, alice, alice)[number % 3].sign(key, b"m" * number)
    return made


@pytest.fixture
def path(logs: dict[str, Path], kind: str, tmp_path: Path) -> Path:
    """Give a copy of a log."""
    shutil.copytree(logs[kind], tmp_path / "log")
    return path_in(tmp_path / "log", kind)


def read(path: Path, key: bytes | None) -> Log:
    """Read a log with the second reader."""
    return (read_files if path.suffix == ".log" else read_database)(path, key)


@pytest.mark.parametrize("kind", KINDS)
def test_both_readers_read_the_same(path: Path, kind: str) -> None:
    """Without an attack they agree on the newest record, with the key and without."""
    for key in (KEY, None):
        found = open_verifier(path, key).verify()

        assert (found.head_seq, found.head_hash) == read(path, key).head


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_back_is_what_was_read(path: Path, kind: str) -> None:
    """The kit changes nothing by itself."""
    before = read(path, KEY)
    KINDS[kind](path).save()

    assert before == read(path, KEY)


@pytest.mark.parametrize("attack", FACTS_ATTACKS, ids=lambda attack: attack.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_an_attack_is_detected_and_named(
    path: Path, kind: str, attack: FactsAttack
) -> None:
    """The first entry that is said less or other of is named, without the key too."""
    lines: Lines = KINDS[kind](path)
    seq = attack(lines)
    lines.save()

    for key in (KEY, None):
        with pytest.raises(BadLogError) as second:
            read(path, key)
        with pytest.raises(AuditTamperedError) as first:
            open_verifier(path, key).verify()
        assert (seq, "facts") == (second.value.seq, second.value.reason)
        assert {"seq": seq, "reason": "facts"} == first.value.facts
