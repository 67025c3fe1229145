# SPDX-License-Identifier: MIT
"""
Runs pkcs11-check over the PKCS#11 interface, and compares it with what is known.

``python -m tests.pkcs11_check`` runs the tests of a few subjects, ``all`` after it
every test but vectors, and then the same over SoftHSM2 through the same transport, for
comparison. A test that fails must stand in ``failures.toml`` with a reason, and one
that stands there must fail.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from tests.cli.pkcs11_support import module, running_token
from tests.support import require_program, require_service

KNOWN: Final = Path(__file__).with_name("failures.toml")
"""Tests that fail, with the clause that says why."""

SUBSET: Final = "ecdsa or pss or session_state or keypair"
"""Subjects that show most in least time."""

WHOLE: Final = (
    "not wycheproof and not acvp and not cctv and not x509 "
    "and not TestTemplateConstraintAttributes"
)
"""
Everything but vectors, which come by download, and templates inside of attributes.

If the token has those, as SoftHSM2 does, they abort p11-kit's client, and so the suite.
"""

_ROLES: Final = ("operator", "administrator")
_PIN: Final = "1234"
_SECONDS: Final = 3600
_SOFTHSM: Final = Path("/usr/lib/softhsm/libsofthsm2.so")


class Results(msgspec.Struct, frozen=True):
    """
    Results of a run.

    Attributes:
        passed: Number of tests that passed.
        failed: Names of those that failed.
        expected: Number of those that the suite expects to fail.
        skipped: Number of those that did not apply.
    """

    passed: int
    failed: frozenset[str]
    expected: int
    skipped: int

    @property
    def rate(self) -> float:
        """Part of the tests that passed, of those that passed or failed."""
        return self.passed / max(self.passed + len(self.failed), 1)

    def __str__(self) -> str:
        return (
            f"{self.passed} passed, {len(self.failed)} failed, {self.expected} "
            f"expected failures, {self.skipped} skipped: {self.rate:.2%}"
        )


def run(folder: Path, socket: Path, match: str) -> Results:
    """
    Run the suite against a token on a socket.

    Args:
        folder: Where it may write.

        socket: The socket of p11-kit's protocol.

        match: Expression that selects tests; empty for all.
    """
    words = ("--isolation", "none", "--skip-slow", "-t", "120")
    chosen = ("--match", match) if match else ()
    settings = folder / "pytest.ini"
    settings.write_text("[pytest]\n")  # The suite may lie below our own settings.
    program = (sys.executable, "-m", "pkcs11_check", "test", "-m", module())
    with (folder / "printed.txt").open("w+") as printed:
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(
                (*program, *words, *chosen),
                cwd=folder,
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(folder),
                    "TMPDIR": str(folder),
                    "COLUMNS": "400",
                    "PYTEST_ADDOPTS": f"-c {settings}",
                    "P11_KIT_SERVER_ADDRESS": f"unix:path={socket}",
                    "P11TEST_PIN": _PIN,
                },
                stdout=printed,
                stderr=subprocess.STDOUT,
                timeout=_SECONDS,
                check=False,
            )
        printed.seek(0)
        return read(printed.read())


class UnfinishedError(Exception):
    """A run of the suite that has no result, with the end of what it printed."""


_SUMMARY: Final = re.compile(r"(\d+) (passed|failed|skipped|xfailed|error)")
_FAILED: Final = re.compile(
    r"^(?:FAILED|ERROR) (?:\S*/testcases/)?(\S.*?)(?: - |$)", re.MULTILINE
)


def read(printed: str) -> Results:
    """
    Return the results that pytest printed.

    Raises:
        UnfinishedError: There is no summary, as the suite has not run to its end, or
            it names other failures than it counts.
    """
    lines = [line for line in printed.splitlines() if " passed" in line]
    if not lines:
        raise UnfinishedError(f"has not run to its end:\n{printed[-4000:]}")
    counts = {word: int(number) for number, word in _SUMMARY.findall(lines[-1])}
    failed = frozenset(_FAILED.findall(printed))
    if len(failed) != counts.get("failed", 0) + counts.get("error", 0):
        raise UnfinishedError(f"names other failures:\n{printed[-4000:]}")
    return Results(
        counts.get("passed", 0),
        failed,
        counts.get("xfailed", 0),
        counts.get("skipped", 0),
    )


def known() -> Mapping[str, str]:
    """Return the reasons of the tests that fail, by name."""
    groups = tomllib.loads(KNOWN.read_text("utf-8")).get("failure", [])
    return {test: group["reason"] for group in groups for test in group["tests"]}


@contextmanager
def softhsm(folder: Path) -> Iterator[Path]:
    """Serve a new token of SoftHSM2 on a socket, by p11-kit's own server."""
    require_service("SoftHSM2", [_SOFTHSM] if _SOFTHSM.exists() else [])
    tokens, settings = folder / "tokens", folder / "softhsm2.conf"
    tokens.mkdir()
    settings.write_text(f"directories.tokendir = {tokens}\nlog.level = ERROR\n")
    environment = {**os.environ, "SOFTHSM2_CONF": str(settings)}
    words = (
        "--init-token",
        "--free",
        "--label",
        "t",
        "--pin",
        _PIN,
        "--so-pin",
        "5678",
    )
    subprocess.run(
        (require_program("softhsm2-util"), *words),
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    socket = folder / "softhsm.sock"
    served = ("--provider", _SOFTHSM, "-f", "-n", socket, "pkcs11:")
    server = subprocess.Popen(
        (require_program("p11-kit"), "server", *served),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not socket.exists() and server.poll() is None:
            time.sleep(0.05)
        yield socket
    finally:
        server.terminate()
        server.wait(30)


def judge(ours: Results, *, is_whole: bool) -> list[str]:
    """Return what is wrong with our results."""
    reasons = known()
    wrong = [] if ours.passed else ["nothing passes"]
    wrong += [
        f"fails, without a reason: {name}" for name in ours.failed - reasons.keys()
    ]
    if is_whole:
        passing = reasons.keys() - ours.failed
        wrong += [f"passes, or is gone: {name}" for name in passing]
    return sorted(wrong)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def main(words: list[str]) -> int:
    """Run what the command line asks for; return the exit status."""
    is_whole = words == ["all"]
    match = WHOLE if is_whole else SUBSET
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            with running_token(folder, pin=_PIN.encode(), roles=_ROLES) as token:
                ours = run(folder, token.socket, match)
        except UnfinishedError as error:
            wrong.append(f"FerroHSM: the suite {error}")
        else:
            _say(f"FerroHSM: {ours}")
            wrong += judge(ours, is_whole=is_whole)
        if is_whole:
            try:
                with softhsm(folder) as socket:
                    _say(f"SoftHSM2: {run(folder, socket, match)}")
            except UnfinishedError as error:
                wrong.append(f"SoftHSM2: the suite {error}")
    _say("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
