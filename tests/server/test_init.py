# SPDX-License-Identifier: MIT
"""``hsm-server init``: complete or not there, whoever asks and whatever interrupts."""

import base64
import json
import os
import pty
import re
import select
import shlex
import signal
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs12

from hsm_core.people import People
from hsm_core.policies import load_policy
from hsm_server.main import main

PATIENCE_SECONDS = 120.0
STEPS_APART = 9
"""Steps between two interruptions; there are about 60 steps."""

PASSWORD = re.compile(r"\b[a-z]{5}(?:-[a-z]{5}){3}\b")
FILES = {
    *("ca.pem", "hsm.toml", "policy.yaml", "tls/server.pem"),
    *("secrets/audit.key", "secrets/ca.key", "secrets/root.key"),
    *("people/ada.p12", "people/ada.pem", "people/revoked.crl"),
    *("data/approvals.sqlite", "data/audit.sqlite", "data/keys.sqlite"),
}


def command(*words: str) -> list[str]:
    """Return the command line of ``hsm-server init``."""
    return [sys.executable, "-m", "hsm_server", "init", *words]


def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command without a terminal."""
    return subprocess.run(
        command(*words), input=stdin, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Give a way to run the command in this process, for what it refuses."""
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("os.umask", lambda _: 0)

    def run(*words: str, stdin: str = "") -> Result:
        return CliRunner().invoke(main, ["init", *words], input=stdin)

    return run


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder, with their content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Give an HSM that was made without a terminal, and what was printed."""
    folder = tmp_path_factory.mktemp("init") / "hsm"
    done = run(
        *(str(folder), "--yes", "--host", "hsm.example.com", "--second", "grace")
    )
    assert (0, "") == (done.returncode, done.stderr)
    return folder, done.stdout


class TestWithoutATerminal:
    """Flags answer the questions."""

    def test_everything_is_there_and_private(self, made: tuple[Path, str]) -> None:
        """Every file is its owner's alone."""
        folder, _ = made

        assert FILES <= set(contents(folder))
        for path in (folder, *folder.rglob("*")):
            assert 0 == stat.S_IMODE(path.stat().st_mode) & 0o077, path

    def test_no_secret_is_printed(self, made: tuple[Path, str]) -> None:
        """Output that is no terminal is often kept: passwords go to files."""
        folder, out = made
        for name in ("ada", "grace"):
            password = (folder / f"people/{name}.password").read_bytes().strip()
            data = (folder / f"people/{name}.p12").read_bytes()
            assert pkcs12.load_pkcs12(data, password).key is not None
            assert password.decode() not in out
        for name in ("root", "audit"):
            assert (folder / f"secrets/{name}.key").read_text().strip() not in out
        assert not PASSWORD.search(out)

    def test_settings_are_relative_to_the_directory(
        self, made: tuple[Path, str]
    ) -> None:
        """It can be moved: no path begins with a slash."""
        folder, _ = made

        found = tomllib.loads((folder / "hsm.toml").read_text())

        assert "0.0.0.0:8443" == found["listener"]["bind"]
        assert "@secrets/root.key" == found["secrets"]["master-key"]
        assert str(folder) not in (folder / "hsm.toml").read_text()

    def test_the_policy_asks_two_people(self, made: tuple[Path, str]) -> None:
        """It is valid, without warnings, for what can't be undone or leaves the HSM."""
        folder, _ = made

        policy = load_policy(folder / "policy.yaml", for_use=True)

        (rule,) = [rule for rule in policy.rules if rule.name == "two-people"]
        assert not policy.warnings
        text = (folder / "policy.yaml").read_text()
        for operation in ("DestroyKey", "ExportKey", "RevokeKey", "RecoverStore"):
            assert f"- {operation}" in text
        assert "require-approval" == rule.effect
        roles = {p.name: p.roles for p in People(folder).all()}
        assert ("Administrator",) == roles["ada"]
        assert ("Auditor", "Operator") == roles["grace"]

    def test_the_certificate_is_for_the_host(self, made: tuple[Path, str]) -> None:
        """And for clients on this machine."""
        folder, _ = made
        data = (folder / "tls/server.pem").read_bytes()

        leaf = x509.load_pem_x509_certificates(data)[0]

        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        found = names.value.get_values_for_type(x509.DNSName)
        assert ["hsm.example.com", "localhost"] == found

    def test_the_check_finds_nothing_wrong(
        self, made: tuple[Path, str], tmp_path: Path
    ) -> None:
        """Settings are valid, keys open the stores, and the copy is the root key."""
        folder, out = made
        copy = tmp_path / "copy"
        copy.touch(mode=0o600)
        copy.write_bytes((folder / "secrets/root.key").read_bytes())

        words = ["check", "--config", str(folder / "hsm.toml")]
        done = CliRunner().invoke(main, [*words, "--root-copy", str(copy)])

        assert 0 == done.exit_code, done.output
        (shown,) = re.findall(r"fingerprint ([0-9A-F-]{14})", out)
        assert f"is the root key of this server, {shown}" in done.output

    def test_an_existing_hsm_is_not_touched(
        self, made: tuple[Path, str], run_here: Callable[..., Result]
    ) -> None:
        """Exit status 3; the message names the directory."""
        folder, _ = made
        before = contents(folder)

        done = run_here(str(folder), "--yes")

        assert 3 == done.exit_code
        assert f"{folder} already holds an HSM" in done.stderr
        assert before == contents(folder)

    def test_other_files_are_not_touched(
        self, tmp_path: Path, run_here: Callable[..., Result]
    ) -> None:
        """A directory that is not empty is somebody's; a missing parent is a typo."""
        (tmp_path / "a file").touch()

        taken = run_here(str(tmp_path), "--yes")
        missing = run_here(str(tmp_path / "no/hsm"), "--yes")

        assert 3 == taken.exit_code
        assert "contains a file" in taken.stderr
        assert 2 == missing.exit_code
        assert "does not exist" in missing.stderr
        assert ["a file"] == [path.name for path in tmp_path.iterdir()]

    def test_a_directory_of_another_user(
        self,
        tmp_path: Path,
        run_here: Callable[..., Result],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The server of that user could not read what another one has made."""
        mine = os.geteuid()
        (tmp_path / "hsm").mkdir()
        monkeypatch.setattr("os.geteuid", lambda: mine + 1)

        done = run_here(str(tmp_path / "hsm"), "--yes")

        assert 2 == done.exit_code
        assert f"belongs to user {mine}" in done.stderr

    def test_questions_need_a_terminal(
        self, tmp_path: Path, run_here: Callable[..., Result]
    ) -> None:
        """Nothing is guessed without ``--yes``."""
        done = run_here(str(tmp_path / "hsm"), "--host", "localhost", stdin="\n" * 9)

        assert 2 == done.exit_code
        assert "--yes" in done.stderr
        assert [] == list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("words", "problem"),
        [
            (["--host", "a b"], "must be an IP address or a DNS name"),
            (["--admin", "../ada"], "1 to 64 letters"),
            (["--admin", "system"], "reserved"),
            (["--second", "Ada"], "must not be ada"),
        ],
    )
    def test_bad_answers(
        self,
        tmp_path: Path,
        run_here: Callable[..., Result],
        words: list[str],
        problem: str,
    ) -> None:
        """The message says what is allowed; nothing is made."""
        done = run_here(str(tmp_path / "hsm"), "--yes", *words)

        assert 2 == done.exit_code
        assert problem in " ".join(done.stderr.split())
        assert [] == list(tmp_path.iterdir())

    def test_a_root_key_that_others_can_read(
        self, tmp_path: Path, run_here: Callable[..., Result]
    ) -> None:
        """It is refused, and nothing is made."""
        root = tmp_path / "root"
        root.write_bytes(base64.b64encode(bytes(32)))
        root.chmod(0o644)

        done = run_here(str(tmp_path / "hsm"), "--yes", "--root", str(root))

        assert 3 == done.exit_code
        assert "mode 0644" in done.stderr
        assert [root] == list(tmp_path.iterdir())

    def test_odd_paths(self, tmp_path: Path, run_here: Callable[..., Result]) -> None:
        """A path is one value of the settings, and one word of the next commands."""
        folder = tmp_path / 'a"\n[b] $(c)'
        folder.mkdir()
        root = folder / "root"
        root.touch(mode=0o600)
        root.write_bytes(base64.b64encode(bytes(32)))
        (folder / ".hsm.init-ab_12345").mkdir(mode=0o700)
        (folder / ".hsm.init-notes").mkdir(mode=0o700)
        (folder / ".hsm.init-of_other").mkdir()
        (folder / ".hsm.init-of_other").chmod(0o755)
        done = run_here(str(folder / "hsm"), "--yes", "--root", str(root))
        file = folder / "hsm" / "hsm.toml"
        settings = tomllib.loads(file.read_text())

        assert 0 == done.exit_code, done.output
        assert f"@{root}" == settings["secrets"]["master-key"]
        assert f"serve --config {shlex.quote(str(file))}\n" in done.stdout
        # Of what is beside it, what a killed call left over is removed.
        assert [".hsm.init-notes", ".hsm.init-of_other", "hsm", "root"] == sorted(
            path.name for path in folder.iterdir()
        )


class TestAlone:
    """One person, files, and a root key that is there already."""

    def test_no_name_controls_the_terminal(self, tmp_path: Path) -> None:
        """Results and errors show an escape sequence, and don't send it."""
        folder = tmp_path / "red\x1b[31m"
        made, taken = run(str(folder), "--yes"), run(str(folder), "--yes")

        assert (0, 3) == (made.returncode, taken.returncode)
        assert f"--config '{tmp_path}/red\\x1b[31m/hsm.toml'" in made.stdout
        assert "red\\x1b[31m" in taken.stderr
        assert "\x1b" not in made.stdout + taken.stderr

    def test_one_person(self, tmp_path: Path) -> None:
        """It says in one line that dual control is off; the key is not copied."""
        root = tmp_path / "root"
        root.write_bytes(base64.b64encode(bytes(range(32))))
        root.chmod(0o600)
        folder = tmp_path / "hsm"
        folder.mkdir()

        done = run(
            *(str(folder), "--yes", "--store", "files", "--root", str(root)),
            *("--admin", "bob"),
        )

        assert 0 == done.returncode, done.stderr
        assert "Dual control is off. To turn it on: hsm-cli people add" in done.stdout
        assert not (folder / "secrets/root.key").exists()
        assert f'master-key = "@{root}"' in (folder / "hsm.toml").read_text()
        assert (folder / "data/keys").is_dir()
        policy = load_policy(folder / "policy.yaml", for_use=True)
        (person,) = policy.people
        assert ("bob", 3) == (person.principal, len(person.roles))
        assert "two-people" not in {rule.name for rule in policy.rules}
        text = (folder / "policy.yaml").read_text()
        # As the comment above those lines asks.
        (folder / "policy.yaml").write_text(re.sub(r"(?m)^# (?=rules:| )", "", text))
        edited = load_policy(folder / "policy.yaml")
        assert "two-people" in {rule.name for rule in edited.rules}


class Terminal:
    """The command on a terminal."""

    def __init__(self, *words: str, folder: Path) -> None:
        self.pid, self._end = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.environ["TERM"] = "dumb"

            os.execv(sys.executable, command(*words))  # noqa: S606 (no shell)
        self._data = b""

    @property
    def text(self) -> str:
        """All that was printed."""
        return self._data.decode(errors="replace").replace("\r\n", "\n")

    def read(self, until: str = "", *, again: str = "") -> str:
        """Read until something is printed, or the end; type *again* every second."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not until or until not in self.text:
            assert time.monotonic() < end, self.text
            if not select.select([self._end], [], [], 1)[0]:
                self.type(again)
                continue
            try:
                data = os.read(self._end, 4096)
            except OSError:
                break  # Linux reports the end of a terminal as EIO.
            if not data:
                break
            self._data += data
        assert until in self.text
        return self.text

    def type(self, text: str) -> None:
        """Type something."""
        os.write(self._end, text.encode())

    def end(self) -> int:
        """Read to the end, and return the exit status."""
        self.read()
        os.close(self._end)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class TestOnATerminal:
    """Five questions."""

    def test_five_questions(self, tmp_path: Path) -> None:
        """A bad answer is asked again; passwords are shown once, and not kept."""
        folder = tmp_path / "hsm"
        folder.mkdir()
        terminal = Terminal(".", folder=folder)
        for question, answer in (
            ("1/5 Host name that clients use [localhost]: ", "not a name\n"),
            ("DNS name", "\n"),
            ("2/5 First administrator [ada]: ", "\n"),
            ("3/5 Second person, who approves (empty: none) []: ", "grace\n"),
            ("4/5 Store: 1 SQLite, one machine (default)  2 files [1]: ", "3\n"),
            ("Answer 1 or 2.", "1\n"),
            ("5/5 Root key", "\n"),
        ):
            terminal.read(question)
            terminal.type(answer)

        status = terminal.end()

        assert 0 == status, terminal.text
        assert f"New HSM in {folder}. Five questions" in terminal.text
        passwords = PASSWORD.findall(terminal.text)
        assert 2 == len(passwords)
        for name, password in zip(("ada", "grace"), passwords, strict=True):
            data = (folder / f"people/{name}.p12").read_bytes()
            assert pkcs12.load_pkcs12(data, password.encode()).key is not None
        assert not list(folder.rglob("*.password"))
        assert "Passwords are shown once." in terminal.text
        assert f"old, empty directory. Run: cd {folder}" in terminal.text

    def test_ctrl_c_at_a_question(self, tmp_path: Path) -> None:
        """It ends at once, and nothing is there."""
        terminal = Terminal("hsm", "--host", "localhost", folder=tmp_path)
        terminal.read("2/5 First administrator")
        terminal.type("\x03")
        # Python misses a signal that arrives right before it waits for a line.
        terminal.read("Nothing was created.", again="\x03")

        assert 130 == terminal.end()
        assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interruptions(tmp_path: Path, number: signal.Signals) -> None:
    """
    Whenever it is interrupted, the directory is complete or not there.

    After SIGINT nothing else is left. What is left by a kill is removed by the next
    call.
    """
    words = [sys.executable, "-m", "tests.server.interrupted_init", str(tmp_path)]
    first = 1 if number == signal.SIGINT else 1 + STEPS_APART // 2
    done = subprocess.run(
        [*words, str(int(number)), str(first), str(STEPS_APART)],
        capture_output=True,
        text=True,
        timeout=600,
    )

    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert 0 == done.returncode, done.stderr
    *interrupted, (_, last, found, _) = outcomes
    assert (0, ["hsm"]) == (last, found)
    assert 4 < len(interrupted)
    for step, status, found, text in interrupted:
        place = tmp_path / f"{int(number)}-{step}"
        if "hsm" in found:
            assert FILES <= set(contents(place / "hsm"))
        elif number == signal.SIGINT:
            assert (130, []) == (status, found), text
            assert "Nothing was created." in text
        else:
            assert all(name.startswith(".hsm.init-") for name in found), found
    if number == signal.SIGKILL:
        left = [one for one in interrupted if one[2] and "hsm" not in one[2]]
        place = tmp_path / f"{int(number)}-{left[-1][0]}"
        assert 0 == run(str(place / "hsm"), "--yes").returncode
        assert ["hsm"] == [path.name for path in place.iterdir()]
