# SPDX-License-Identifier: MIT
"""No two stores get one file, and what can't be a path is refused by name."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from hsm_core.errors import ConfigurationError, UnsafeFileModeError
from hsm_core.factory import open_hsm
from hsm_core.settings import (
    ApprovalStoreKind,
    AuditStoreKind,
    KeyStoreKind,
    Settings,
)

KEY = bytes(range(32))


def refused(settings: Settings) -> ConfigurationError:
    """Return the error that such settings get."""
    with pytest.raises(ConfigurationError) as caught:
        open_hsm(settings, master_key=b"\1" * 32, hmac_key=b"\2" * 32)
    assert type(caught.value) is ConfigurationError
    return caught.value


def databases(keys: Path, trail: Path, **facts: object) -> Settings:
    """Return settings with keys and trail in SQLite."""
    return Settings(
        key_store=KeyStoreKind.SQLITE,
        sqlite_path=keys,
        audit_store=AuditStoreKind.SQLITE,
        audit_sqlite_path=trail,
        **facts,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("keys", "trail"),
    [
        ("one", "one"),
        ("one", "./folder/../one"),
        ("one", "link/one"),
        ("one", "one-wal"),
        ("one.lock", "one"),
        ("one.head", "one"),
        ("one.reserve", "one"),
    ],
)
def test_keys_and_trail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: str, trail: str
) -> None:
    """
    Neither the database of the other nor a file beside it, by any path to it.
    """
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to(tmp_path)
    Path("folder").mkdir()
    before = sorted(tmp_path.rglob("*"))

    error = refused(databases(Path(keys), tmp_path / trail))

    assert "sqlite_path and audit_sqlite_path must not share a path" in str(error)
    assert "audit_sqlite_path" == error.facts["field"]
    assert before == sorted(tmp_path.rglob("*"))


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_links(tmp_path: Path, link: object) -> None:
    """
    Two names of one file are one file, and it stays as it is.
    """
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"content")
    assert callable(link)
    link(one, two)

    assert "must not share a path" in str(refused(databases(one, two)))
    assert b"content" == one.read_bytes()


def test_the_others(tmp_path: Path) -> None:
    """
    Approvals, backups, trails in files and places in URIs are looked at as well.
    """
    one, two = tmp_path / "one", tmp_path / "two"
    in_files = Settings(key_dir=one, audit_log=two, approval_dir=one)
    cases = [
        databases(
            one,
            two,
            approval_store=ApprovalStoreKind.SQLITE,
            approval_sqlite_path=one,
        ),
        Settings(
            key_store=f"sqlite:{one}",
            audit_log=one,
            approval_store=ApprovalStoreKind.MEMORY,
        ),
        Settings(key_store=f"filesystem:{one}", audit_log=two, backup_dir=one),
        Settings(
            key_dir=one,
            audit_log=two,
            approval_store=ApprovalStoreKind.FILE,
            approval_dir=one,
        ),
    ]
    for settings in cases:
        assert "must not share a path" in str(refused(settings))
    # Where approvals are in memory, nothing lies in their directory.
    with open_hsm(in_files, master_key=b"\1" * 32, hmac_key=b"\2" * 32):
        pass


def test_inside_the_directory_of_the_keys(tmp_path: Path) -> None:
    """
    Audit log and approvals are no files of the key store.
    """
    keys, trail = tmp_path / "keys", tmp_path / "audit.log"
    cases = [
        Settings(key_dir=keys, audit_log=keys / "audit.log"),
        Settings(
            key_dir=keys,
            audit_store=AuditStoreKind.SQLITE,
            audit_sqlite_path=keys / "below" / "audit.sqlite",
        ),
        Settings(
            key_dir=keys,
            audit_log=trail,
            approval_store=ApprovalStoreKind.FILE,
            approval_dir=keys / "approvals",
        ),
    ]
    for settings in cases:
        assert "must be outside the directory of the keys" in str(refused(settings))


@pytest.mark.parametrize("path", [".", "sub/.."])
def test_beside_the_folder_where_it_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """
    Trail and approvals of a store in ``.`` lie beside it, not in it.
    """
    monkeypatch.chdir(tmp_path)
    settings = Settings(key_dir=Path(path))

    assert tmp_path.parent == settings.folder
    assert settings.audit_log == tmp_path.parent / "audit.log"
    assert settings.approval_dir.parent == tmp_path.parent


@pytest.mark.parametrize("path", ["", ".", "..", "/", "a/..", "a\0b"])
@pytest.mark.parametrize("field", ["sqlite_path", "audit_sqlite_path", "audit_log"])
def test_no_file(tmp_path: Path, field: str, path: str) -> None:
    """
    What can't name a file is refused by the name of its setting.
    """
    kind = AuditStoreKind.FILE if field == "audit_log" else AuditStoreKind.SQLITE
    facts = {
        "key_store": KeyStoreKind.SQLITE,
        "audit_store": kind,
        "sqlite_path": tmp_path / "keys",
        "audit_sqlite_path": tmp_path / "trail",
    }
    settings = Settings(**facts | {field: Path(path)})  # type: ignore[arg-type]

    error = refused(settings)

    assert f"{field} must be the path of a file." == str(error)
    assert field == error.facts["field"]


def test_no_directory() -> None:
    """
    What can't name a directory is refused by the name of its setting.
    """
    error = refused(Settings(key_dir=Path("a\0b")))

    assert "key_dir must be the path of a directory." == str(error)


def _files(folder: Path) -> Settings:
    return Settings(
        key_dir=folder / "keys",
        audit_log=folder / "audit.log",
        approval_store=ApprovalStoreKind.FILE,
    )


@pytest.mark.parametrize("made", [["data"], ["data", "data/keys", "data/approvals"]])
@pytest.mark.parametrize("mode", [0o755, 0o775, 0o777])
def test_empty_folders_become_private(
    tmp_path: Path, made: list[str], mode: int
) -> None:
    """
    What somebody made with mkdir is taken as it is meant, if nothing else is in it.
    """
    for name in made:
        (tmp_path / name).mkdir()
    if len(made) == 1:
        (tmp_path / "data").chmod(mode)
    else:
        (tmp_path / "data").chmod(0o700)
        for name in made[1:]:
            (tmp_path / name).chmod(mode)

    with open_hsm(_files(tmp_path / "data"), master_key=KEY, hmac_key=KEY[::-1]):
        pass

    assert {0o700} == {(tmp_path / name).stat().st_mode & 0o777 for name in made}


def test_a_folder_with_something_in_it_stays_open(tmp_path: Path) -> None:
    """
    It is refused, with the command that mends it, and nothing in it was changed.
    """
    folder = tmp_path / "a folder"
    folder.mkdir(0o755)
    folder.chmod(0o755)
    (folder / "something").touch()

    with pytest.raises(UnsafeFileModeError) as caught:
        open_hsm(_files(folder), master_key=KEY, hmac_key=KEY[::-1])

    assert str(caught.value).endswith(f"Run: chmod 700 '{folder}'")
    assert 0o755 == folder.stat().st_mode & 0o777
    command = str(caught.value).partition("Run: ")[2]
    subprocess.run(shlex.split(command), check=True)
    with open_hsm(_files(folder), master_key=KEY, hmac_key=KEY[::-1]):
        pass


def test_a_folder_of_somebody_else_stays_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Its mode is its owner's business.
    """
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    with pytest.raises(ConfigurationError):
        open_hsm(_files(tmp_path / "data"), master_key=KEY, hmac_key=KEY[::-1])

    assert 0o755 == (tmp_path / "data").stat().st_mode & 0o777
