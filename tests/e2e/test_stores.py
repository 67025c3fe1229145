# SPDX-License-Identifier: MIT
"""A server over each kind of store: a whole life, a restart, an offline look."""

import contextlib
import hashlib
import json
import sqlite3
from pathlib import Path

import pytest

from tests.e2e.processes import ServerExitError
from tests.e2e.site import Site

LOCKED = 7


def flags_of(site: Site, kind: str) -> list[str]:
    """Return the flags of a server that keeps everything in this kind of store."""
    if kind == "filesystem":
        return []
    folder = site.key_dir.parent
    return [
        *("--key-store", "sqlite", "--sqlite-path", str(folder / "keys.sqlite")),
        *("--audit-store", "sqlite", "--audit-sqlite-path", str(trail_of(site, kind))),
        *("--approval-store", "sqlite"),
        *("--approval-sqlite-path", str(folder / "approvals.sqlite")),
    ]


def trail_of(site: Site, kind: str) -> Path:
    """Return where the trail lies."""
    if kind == "filesystem":
        return site.audit_log
    return site.key_dir.parent / "audit.sqlite"


@pytest.mark.parametrize("kind", ["filesystem", "sqlite"])
def test_a_whole_life_over_a_restart(site: Site, tmp_path: Path, kind: str) -> None:
    """Every change of a key works, survives, and stands in a trail that verifies."""
    message = tmp_path / "message"
    message.write_bytes(b"attack at dawn")
    flags = flags_of(site, kind)
    with site.start(*flags) as server:
        port = server.port

        def hsm(*words: str, code: int = 0) -> bytes:
            done = site.cli(port, *words, roles="administrator,operator")
            assert code == done.returncode, done.stderr
            return done.stdout

        hsm("create", "aes", "--name", "box")
        first = hsm("encrypt", "box", "--in", str(message), "--out", "-")
        hsm("rotate", "box")
        hsm("rollback", "box", "--version", "1")
        hsm("create", "EC-P256", "--name", "signer")
        hsm("revoke", "signer", "--reason", "test")
        hsm("create", "EC-P256", "--name", "gone")
        hsm("destroy", "gone", "--yes")
        assert 0 == server.stop()

    with site.start(*flags) as server:
        port = server.port
        done = site.cli(port, "decrypt", "box", "--in", "-", "--out", "-", data=first)
        assert b"attack at dawn" == done.stdout, done.stderr
        shown = json.loads(site.cli(port, "describe", "box", "--json").stdout)
        assert 3 == shown["version"]
        again = site.cli(port, "sign", "signer", "--in", str(message), "--out", "-")
        assert again.returncode
        listed = json.loads(site.cli(port, "list", "--json").stdout)
        assert {"box", "signer"} == {item["name"] for item in listed["items"]}
        done = site.cli(port, "store", "verify", roles="auditor")
        assert 0 == done.returncode, done.stderr
        assert 0 == server.stop()

    site.verify_log(path=trail_of(site, kind))


def test_a_backup_is_as_good_as_its_original(site: Site, tmp_path: Path) -> None:
    """Copies made under load agree with each other, and start as the databases do."""
    folder = tmp_path / "copies"
    flags = [*flags_of(site, "sqlite"), "--backup-dir", str(folder)]
    with site.start(*flags) as server:
        site.cli(server.port, "create", "EC-P256", "--name", "before")
        done = site.cli(
            server.port, "store", "back-up", "--json", roles="administrator"
        )
        assert 0 == done.returncode, done.stderr
        made = json.loads(done.stdout)
        site.cli(server.port, "create", "EC-P256", "--name", "after")
        refused = site.cli(server.port, "store", "back-up")
        assert refused.returncode
        assert 0 == server.stop()

    copy = folder / made["folder"]
    for file in made["files"]:
        content = (copy / file["name"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert 0o600 == (copy / file["name"]).stat().st_mode & 0o777
    site.verify_log(path=copy / "audit.sqlite")
    restored = [
        *("--key-store", "sqlite", "--sqlite-path", str(copy / "keys.sqlite")),
        *("--audit-store", "sqlite"),
        *("--audit-sqlite-path", str(copy / "audit.sqlite")),
    ]
    with site.start(*restored) as server:
        listed = json.loads(site.cli(server.port, "list", "--json").stdout)
        status = json.loads(site.cli(server.port, "status", "--json").stdout)
        assert ["before"] == [item["name"] for item in listed["items"]]
        assert "operational" == status["state"]
        assert 0 == server.stop()


def test_a_database_belongs_to_one_server(site: Site) -> None:
    """A second server refuses, and so do other programs and the offline verifier."""
    flags = flags_of(site, "sqlite")
    database = site.key_dir.parent / "keys.sqlite"
    with site.start(*flags) as server:
        with pytest.raises(ServerExitError) as caught:
            site.start(*flags)
        assert LOCKED == caught.value.status
        with contextlib.closing(sqlite3.connect(database, timeout=0)) as other:
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("SELECT count(*) FROM keys")
        with pytest.raises(AssertionError, match="server"):
            site.verify_log(path=trail_of(site, "sqlite"))
        done = site.cli(server.port, "audit", "verify", roles="auditor")
        assert 0 == done.returncode, done.stderr
        assert 0 == server.stop()
