# SPDX-License-Identifier: MIT
"""Commands of the audit log."""

import base64
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from hsm_core.factory import OpenHSM, open_hsm
from hsm_core.model import Role
from hsm_core.operations import Operation, VerifyAudit
from hsm_core.session import Session
from hsm_core.settings import AuditStoreKind, Settings
from hsm_core.testing import caller
from tests.cli.support import Answering, Shell

HMAC_KEY = base64.b64encode(b"\x02" * 32).decode()


class TestAuditEvents:
    def test_table(self, shell: Shell) -> None:
        """Records are listed newest first, with the head of the log below."""
        shell.ok("create", "ed25519", "--name", "k")
        shell.ok("sign", "k", "--text", "x")
        outcome = shell.ok("audit", "events", "--limit", "2")
        kinds = [line.split()[2] for line in outcome.lines[1:3]]

        assert ["Sign", "CreateKey"] == kinds
        assert outcome.lines[-1].startswith("head: ")
        assert "next: --start-seq " in outcome.lines[-1]

    def test_filters(self, shell: Shell) -> None:
        """Filters by key, principal, operation, order and start apply."""
        uuid = shell.ok("create", "ed25519", "--json").json["key_id"]
        shell.ok("sign", uuid, "--text", "x")

        def seqs(*options: str) -> list[int]:
            page = shell.ok("audit", "events", "--json", *options).json
            return [item["event"]["seq"] for item in page["items"]]

        assert 1 == len(seqs("--kind", "Sign", "--key-id", uuid))
        assert [] == seqs("--principal", "nobody")
        assert [1, 2, 3] == seqs("--ascending", "--start-seq", "1", "--limit", "3")
        assert [] == seqs("--until", "2001-01-01")
        assert seqs("--kind", "Sign") == seqs("--kind", "Sign", "--since", "2001-01-01")
        assert [] == seqs("--failed", "--since", "2001-01-01T00:00:00Z")
        assert 1 == len(seqs("--kind", "Sign", "--code", "ok"))
        both = sorted(seqs("--kind", "Sign") + seqs("--kind", "CreateKey"))
        assert both == sorted(seqs("--kind", "Sign", "--kind", "CreateKey"))
        assert both == sorted(seqs("--kind", "Sign,CreateKey"))
        refused = shell("audit", "events", "--kind", "Sgin")
        assert (2, True) == (refused.code, "Did you mean Sign" in refused.err)

    def test_auditor(self, gateway: OpenHSM, monkeypatch: pytest.MonkeyPatch) -> None:
        """An auditor can read the audit log, and can't sign."""
        owner = Session(gateway.act_as(caller()))
        owner.create_key("ed25519", name="k")
        shell = Shell(monkeypatch, gateway.act_as(caller(Role.AUDITOR)))
        denied = shell("sign", "k", "--text", "x")

        assert 3 == denied.code
        assert "[access_denied]" in denied.err
        assert "access_denied" in shell.ok("audit", "events", "--limit", "1").text


@contextmanager
def in_use(settings: Settings) -> Iterator[None]:
    """Have an HSM open that has recorded something."""
    with open_hsm(settings, master_key=b"\x01" * 32, hmac_key=b"\x02" * 32) as gateway:
        session = Session(gateway.act_as(caller()))
        session.create_key("aes", name="box")
        session.encrypt("box", b"x")
        yield


class TestAuditVerify:
    @pytest.fixture
    def trail(self, tmp_path: Path) -> Iterator[Path]:
        """Give the live file of an audit log in use, with a few records."""
        path = tmp_path / "audit.log"
        with in_use(Settings(key_dir=tmp_path / "keys", audit_log=path)):
            yield path

    @pytest.fixture
    def database(self, tmp_path: Path) -> Iterator[Path]:
        """Give the database of a SQLite audit log in use."""
        path = tmp_path / "audit.sqlite"
        settings = Settings(
            key_store="memory",
            audit_store=AuditStoreKind.SQLITE,
            audit_sqlite_path=path,
        )
        with in_use(settings):
            yield path

    @pytest.fixture
    def closed(self, database: Path, tmp_path: Path) -> Path:
        """Give a copy as after a kill, not in use."""
        copy = tmp_path / "copy" / database.name
        copy.parent.mkdir()
        for file in tmp_path.glob("audit.sqlite*"):
            shutil.copyfile(file, copy.with_name(file.name))
        with closing(sqlite3.connect(copy)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return copy

    def test_server(self, shell: Shell, gateway: OpenHSM) -> None:
        """The server's audit log is verified range by range up to its head."""
        inner, calls = gateway.act_as(caller()), list[int]()

        def three_at_a_time(operation: Operation[Any]) -> object:
            if not isinstance(operation, VerifyAudit):
                return inner.execute(operation)
            calls.append(operation.start_seq)
            return inner.execute(VerifyAudit(start_seq=operation.start_seq, limit=3))

        shell.hsm = Answering(three_at_a_time)
        for name in ("a", "b", "c"):
            shell.ok("create", "aes", "--name", name)
        record = shell.ok("audit", "verify", "--json").json
        terminal = shell("audit", "verify", terminal=True)
        seq, leaf_hash = shell.ok("audit", "verify").lines[-1].split()[1:]
        there = ("--start-seq", seq, "--limit", "1", "--json")
        [head] = shell.ok("audit", "events", *there).json["items"]

        assert record["verified"] == record["head_seq"] + 1
        assert calls[:3] == [0, 3, 6]
        assert leaf_hash == head["leaf_hash"]
        assert "records verified" in terminal.err
        assert terminal.err.endswith("\r\x1b[K")

    def test_files(self, bare_shell: Shell, trail: Path) -> None:
        """An audit log in files is verified while in use, without a server."""
        line = ("audit", "verify", "--audit-path", str(trail))
        key = trail.parent / "hmac-key"
        key.write_text(f"{HMAC_KEY}\n")
        key.chmod(0o600)
        full = bare_shell.ok(*line, "--hmac-key", f"@{key}", "--json").json
        chain = bare_shell.ok(*line)

        assert (True, 5) == (full["macs_checked"], full["records"])
        assert full["records"] == full["head_seq"] + 1
        assert "the hash chain only" in chain.text
        assert (False, True) == (full["clean"], full["in_use"])
        for outcome in (chain, bare_shell.ok(*line, "--hmac-key", f"@{key}")):
            assert "in use by a server" in outcome.text
            assert "closed cleanly" not in outcome.text

    def test_key_from_environment(
        self, bare_shell: Shell, trail: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The HMAC key may be in the environment, without a warning."""
        monkeypatch.setenv("FERROHSM_HMAC_KEY", HMAC_KEY)
        outcome = bare_shell.ok("audit", "verify", "--audit-path", str(trail))

        assert "every MAC and the hash chain" in outcome.text

    def test_key_on_the_command_line(self, bare_shell: Shell, trail: Path) -> None:
        """A key on the command line works, and warns without repeating it."""
        outcome = bare_shell(
            *("audit", "verify", "--audit-path", str(trail), "--hmac-key", HMAC_KEY)
        )

        assert 0 == outcome.code
        assert "warning: other users can see --hmac-key" in outcome.err
        assert HMAC_KEY not in outcome.err

    def test_one_changed_byte(self, bare_shell: Shell, trail: Path) -> None:
        """A changed byte is detected; the error names the record and the reason."""
        copy = trail.with_name("copy.log")
        copy.write_bytes(trail.read_bytes().replace(b"CreateKey", b"DeleteKey", 1))
        outcome = bare_shell(
            *("audit", "verify", "--audit-path", str(copy), "--json"),
        )

        assert (7, b"") == (outcome.code, outcome.out)
        assert '"code":"audit_tampered"' in outcome.err
        assert '"seq":' in outcome.err
        assert '"reason":' in outcome.err

    @pytest.mark.parametrize(
        ("key", "code"),
        [
            (base64.b64encode(b"\x03" * 32).decode(), "wrong_audit_key"),
            (base64.b64encode(b"\x03" * 31).decode(), "configuration"),
            ("standard base64", "configuration"),
            ("@/nonexistent", "configuration"),
        ],
    )
    def test_wrong_key(
        self, bare_shell: Shell, trail: Path, closed: Path, key: str, code: str
    ) -> None:
        """A wrong key is distinguished from tampering."""
        for path in (trail, closed):
            line = ("audit", "verify", "--audit-path", str(path), "--hmac-key", key)
            outcome = bare_shell(*line)

            assert 2 == outcome.code
            assert f"[{code}]" in outcome.err

    def test_no_trail(self, bare_shell: Shell, tmp_path: Path) -> None:
        """A missing audit log is an error."""
        outcome = bare_shell("audit", "verify", "--audit-path", str(tmp_path / "none"))

        assert 2 == outcome.code
        assert "No audit log found at" in outcome.err

    @pytest.mark.parametrize("command", ["verify", "events", "follow"])
    def test_directory_and_file_confused(
        self, bare_shell: Shell, trail: Path, command: str
    ) -> None:
        """A directory in place of the file, or the reverse, is named with the fault."""
        words = ("audit", command, "--audit-path")
        directory = bare_shell(*words, str(trail.parent))
        below = bare_shell(*words, str(trail / "audit.log"))

        assert (2, 2) == (directory.code, below.code)
        assert f"{trail.parent} is not a regular file. [configuration]" in directory.err
        assert f"can't be read: {trail}: Not a directory. [configuration]" in below.err

    def test_unreadable_database(self, bare_shell: Shell, closed: Path) -> None:
        """The error names the database."""
        head = closed.with_name(f"{closed.name}.head")
        head.unlink()
        head.mkdir()
        outcome = bare_shell(
            *("audit", "verify", "--audit-path", str(closed), "--hmac-key", HMAC_KEY)
        )

        assert 2 == outcome.code
        assert f"{closed} can't be read. [configuration]" in outcome.err

    def test_database_in_use(self, bare_shell: Shell, database: Path) -> None:
        """A SQLite audit log in use is not verified offline."""
        outcome = bare_shell("audit", "verify", "--audit-path", str(database))

        assert 2 == outcome.code
        assert "[store_locked]" in outcome.err
        assert "Verify it through the running server" in outcome.err

    def test_database(
        self, bare_shell: Shell, closed: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A SQLite audit log is verified with and without the key."""
        line = ("audit", "verify", "--audit-path", str(closed))
        chain = bare_shell.ok(*line)
        monkeypatch.setenv("FERROHSM_HMAC_KEY", HMAC_KEY)
        full = bare_shell.ok(*line, "--json").json

        assert (True, False) == (full["macs_checked"], full["clean"])
        assert full["records"] == full["head_seq"] + 1
        assert "the hash chain only" in chain.text
        assert "not checked; pass --hmac-key" in chain.text

    def test_database_edited(self, bare_shell: Shell, closed: Path) -> None:
        """An edited row is named with the reason; the exit code is 7."""
        with closing(sqlite3.connect(closed)) as connection, connection:
            connection.execute(
                "UPDATE records SET line = "
                "CAST(replace(line, 'CreateKey', 'DeleteKey') AS BLOB) WHERE seq = 2"
            )
        outcome = bare_shell(
            *("audit", "verify", "--audit-path", str(closed), "--json"),
            *("--hmac-key", HMAC_KEY),
        )

        assert (7, b"") == (outcome.code, outcome.out)
        assert '"code":"audit_tampered"' in outcome.err
        assert '"seq":2' in outcome.err
        assert '"reason":"mac"' in outcome.err

    @pytest.mark.parametrize("log", ["trail", "closed"])
    def test_local_records(
        self,
        bare_shell: Shell,
        log: str,
        request: pytest.FixtureRequest,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Whole records of a local log are shown without a server, also as JSON."""
        path: Path = request.getfixturevalue(log)
        line = ("audit", "events", "--audit-path", str(path))
        page = bare_shell.ok(*line, "--kind", "Encrypt", "--json").json
        monkeypatch.setenv("FERROHSM_HMAC_KEY", HMAC_KEY)
        table = bare_shell.ok(*line, "--limit", "2")
        [entry] = page["items"]

        assert "box" == entry["event"]["key"]["name"]
        assert "Encrypt" in table.text
        assert "next: --start-seq " in table.text

    @pytest.mark.parametrize(
        ("command", "flag", "option"),
        [
            ("events", "--audit-path", ["--log-id", "0" * 32]),
            ("events", "--audit-path", ["--cursor", f"{'0' * 32}5"]),
            ("events", "--audit-path", ["--show-curl"]),
            ("follow", "--audit-path", ["--show-rule"]),
            ("verify", "--audit-path", ["--wait"]),
            ("verify", "--store", ["--approval-id", "0"]),
        ],
    )
    def test_options_without_effect(
        self,
        bare_shell: Shell,
        trail: Path,
        command: str,
        flag: str,
        option: list[str],
    ) -> None:
        """Options of a cluster, and of requests, are refused without a server."""
        outcome = bare_shell("audit", command, flag, str(trail), *option)

        assert (2, b"") == (outcome.code, outcome.out)
        assert f"{option[0]} can't be used with {flag}" in outcome.err

    def test_local_records_of_a_damaged_log(
        self, bare_shell: Shell, trail: Path
    ) -> None:
        """None is shown, and the exit code is 7."""
        copy = trail.with_name("copy.log")
        copy.write_bytes(trail.read_bytes().replace(b"CreateKey", b"DeleteKey", 1))
        outcome = bare_shell("audit", "events", "--audit-path", str(copy), "--json")

        assert (7, b"") == (outcome.code, outcome.out)

    def test_following_a_local_log(self, trail: Path) -> None:
        """Records come one per line until Ctrl-C."""
        words = ("audit", "follow", "--audit-path", str(trail), "--start-seq", "0")
        with subprocess.Popen(
            [sys.executable, "-m", "hsm_cli", *words, "--json"],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            lines = [json.loads(process.stdout.readline()) for _ in range(5)]
            process.send_signal(signal.SIGINT)

        assert list(range(5)) == [line["event"]["seq"] for line in lines]

    def test_following_a_local_log_into_a_closed_pipe(self, trail: Path) -> None:
        """The command ends with the exit code of a broken pipe, and no message."""
        words = ("audit", "follow", "--audit-path", str(trail), "--start-seq", "0")
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [sys.executable, "-m", "hsm_cli", *words],
            check=False,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=writing,
            stderr=subprocess.PIPE,
        )
        os.close(writing)

        assert (141, b"") == (done.returncode, done.stderr)

    def test_following_a_local_database(self, bare_shell: Shell, closed: Path) -> None:
        """It can't be followed, and the error says what can."""
        outcome = bare_shell("audit", "follow", "--audit-path", str(closed))

        assert 2 == outcome.code
        assert "only be followed through its server" in outcome.err

    def test_key_without_path(self, shell: Shell) -> None:
        """--hmac-key requires --audit-path."""
        outcome = shell("audit", "verify", "--hmac-key", "@file")

        assert 2 == outcome.code
        assert "--hmac-key requires --audit-path" in outcome.err


class TestAuditRecover:
    @pytest.fixture
    def forked(self, tmp_path: Path) -> Path:
        """Give a forked audit log: a copy's records were appended to it."""

        def write(folder: str) -> Path:
            path = tmp_path / folder / "audit.log"
            settings = Settings(key_store="memory", audit_log=path)
            with open_hsm(settings, master_key=bytes(32), hmac_key=b"\x02" * 32) as hsm:
                Session(hsm.act_as(caller(Role.OPERATOR))).create_key("ed25519")
            return path

        common = write("a").read_bytes()
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        path, other = write("a"), write("b")
        with path.open("ab") as file:
            file.write(other.read_bytes()[len(common) :])
        return path

    def test_both_branches_are_kept(
        self, shell: Shell, forked: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One branch stays and verifies; the other moves to a file that is named."""
        monkeypatch.setenv("FERROHSM_HMAC_KEY", HMAC_KEY)
        there = ["--audit-path", str(forked)]
        assert shell("audit", "verify", *there).code == 7

        found = shell.ok("--json", "audit", "recover", *there).json

        assert found["kept_as"].startswith("audit.log.fork-")
        assert forked.with_name(found["kept_as"]).stat().st_size
        shell.ok("audit", "verify", *there)

    def test_a_trail_in_order_is_left_alone(
        self, shell: Shell, forked: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A log that is not forked, or without its key, is not changed."""
        path = forked.parent.with_name("b") / "audit.log"
        before = path.read_bytes()
        there = ["--audit-path", str(path)]

        preview = shell("audit", "recover", *there, "--show-curl")
        assert shell("audit", "recover", *there).code == 2
        monkeypatch.setenv("FERROHSM_HMAC_KEY", HMAC_KEY)
        outcome = shell("audit", "recover", *there)

        assert "--show-curl" in preview.err
        assert "not forked" in outcome.err
        assert outcome.code
        assert before == path.read_bytes()
