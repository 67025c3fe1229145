# SPDX-License-Identifier: MIT
"""The demonstration that the README starts with."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support import REPOSITORY, require_program, require_service

DEMO = REPOSITORY / "examples" / "demo" / "run.py"
SECONDS = 270


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """Give an artefact to sign in place of a wheel that is built first."""
    path = tmp_path / "artefact-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("artefact.py", "answer = 42\n" * 1000)
    return path


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Give the folder in which the demonstration makes its own."""
    require_program("openssl")
    path = tmp_path / "scratch"
    path.mkdir()
    return path


def start(scratch: Path, *arguments: str, path: str = "") -> subprocess.Popen[str]:
    """Start the demonstration."""
    environment = os.environ | {"TMPDIR": str(scratch)}
    if path:
        environment["PATH"] = path
    return subprocess.Popen(
        [sys.executable, str(DEMO), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def processes_in(folder: Path) -> list[int]:
    """Return the processes that run in a folder, or in one that was removed there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            where = os.readlink(process / "cwd")
        except OSError:
            continue
        if where.startswith(str(folder)):
            found.append(int(process.name))
    return found


def test_demo(scratch: Path) -> None:
    """
    The demonstration shows every step, exits 0, and leaves nothing behind.
    """
    require_service("The package hatchling", find_spec("hatchling"))
    with start(scratch) as demo:
        told, _ = demo.communicate(timeout=SECONDS)

    assert 0 == demo.returncode, told
    assert 2 == told.count("Verified OK")
    assert "The treasure is buried under the third oak." in told
    assert "Both halves must be broken to read this." in told
    assert "Signature Verified Successfully" in told
    assert "[signature_mismatch]" in told
    assert "[access_denied]" in told
    assert "damaged at record 7" in told
    assert "[key_tampered]" in told
    assert "\x1b" not in told
    assert ([], []) == (list(scratch.iterdir()), processes_in(scratch))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_cleans_up(
    scratch: Path, wheel: Path, number: signal.Signals
) -> None:
    """
    A demonstration that is interrupted ends its processes and removes its files.
    """
    with start(scratch, "--wheel", str(wheel)) as demo:
        assert demo.stdout is not None
        told = ""
        while "listening on" not in told:
            line = demo.stdout.readline()
            assert line, told
            told += line
        assert processes_in(scratch)
        demo.send_signal(number)
        told, _ = demo.communicate(timeout=SECONDS)

    assert 128 + number == demo.returncode, told
    assert "Traceback" not in told
    assert ([], []) == (list(scratch.iterdir()), processes_in(scratch))


def test_demo_says_what_is_missing(scratch: Path, wheel: Path) -> None:
    """
    Without openssl the demonstration ends with a sentence, and leaves nothing behind.
    """
    with start(scratch, "--wheel", str(wheel), path=str(scratch)) as demo:
        told, _ = demo.communicate(timeout=SECONDS)

    assert 1 == demo.returncode
    assert "The program openssl is not installed." in told
    assert "Traceback" not in told
    assert [] == list(scratch.iterdir())


class Onlooker:
    """Stands in for a stage: notes what is said, and answers one question."""

    def __init__(self, status: object) -> None:
        self.said: list[str] = []
        self.run_words: list[tuple[str, ...]] = []
        self.transcript = self
        self._status = json.dumps({"algorithms": [status]})

    def step(self, text: str) -> None:
        """Note it."""
        self.said.append(text)

    say = step

    def run(self, *words: str, show: bool = True) -> SimpleNamespace:
        """Answer with the status."""
        self.run_words.append(words)
        return SimpleNamespace(status=0, out=self._status, err="")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"status": "unavailable", "hint": "Install OpenSSL 3.5."}, "Install OpenSSL"),
        ({"status": "stopped"}, "It is stopped."),
    ],
)
def test_demo_without_slh_dsa(
    monkeypatch: pytest.MonkeyPatch, status: dict[str, str], said: str
) -> None:
    """
    Where nobody serves SLH-DSA the demonstration says what to install, and goes on.
    """
    monkeypatch.syspath_prepend(str(DEMO.parent))
    from quantum import show_slh_dsa

    onlooker = Onlooker({"algorithm": "SLH-DSA-SHA2-128f", **status})
    show_slh_dsa(onlooker, "artefact")  # type: ignore[arg-type]

    assert said in onlooker.said[-1]
    assert ["status"] == [words[-2] for words in onlooker.run_words]
