# SPDX-License-Identifier: MIT
"""What the texts of the repository promise, and what must not stand in them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import REPOSITORY, require_program

README = (REPOSITORY / "README.md").read_text()
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MACHINE_PATH = re.compile(
    r"(?<![\w.$}/])/(?:home|media|mnt|opt(?!/homebrew/opt/)|root|Users|work)/"
)
"""Where one person keeps things; Homebrew's prefix is the same on every machine."""


def tracked_texts() -> list[Path]:
    """Return every text file of the repository, as git knows it."""
    git = require_program("git")
    listing = subprocess.run(
        [git, "-c", "safe.directory=*", "ls-files", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode:
        pytest.skip("The tests do not run in a git checkout.")
    paths = [REPOSITORY / name for name in listing.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()]


def lines_with(pattern: re.Pattern[str], *, but_not_below: str = "") -> list[str]:
    """Return the lines of tracked texts that match, as ``path:number: line``."""
    found = []
    for path in tracked_texts():
        name = path.relative_to(REPOSITORY)
        if but_not_below and name.is_relative_to(but_not_below):
            continue
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if pattern.search(line):
                found.append(f"{name}:{number}: {line.strip()}")
    return found


def test_no_path_of_one_machine() -> None:
    """
    A path that exists on one machine only does not stand in the repository.
    """
    assert [] == lines_with(MACHINE_PATH)


PRIVATE_KEY = re.compile(r"BEGIN [A-Z ]*PRIVATE KEY-----[\s\\nr]+[A-Za-z0-9+/=]{60}")
"""A PEM file with something in it, also as it stands in a program."""


def test_no_private_key() -> None:
    """
    O-30: no private key lies in the repository, not even one for tests.
    """
    paths = tracked_texts()

    assert PRIVATE_KEY.search("-----BEGIN EC PRIVATE KEY-----\n" + "MHcCAQEE" * 8)
    assert [] == [path for path in paths if PRIVATE_KEY.search(path.read_text())]
    assert [] == [p for p in paths if p.suffix in {".key", ".p12", ".pfx", ".jks"}]


def test_only_ci_looks_beside_the_repository() -> None:
    """
    Nothing but the CI run knows of a folder beside the clone.
    """
    assert [] == lines_with(re.compile(r"\.\./" + "shared"), but_not_below=".ci")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see /" + "home/ada/notes", True),
        ("'/" + "work/x'", True),
        ("data/work/x", False),
        ("/" + "opt/x/lib", True),
        ("/" + "opt/homebrew/opt/x/lib", False),
        ("https://host/home/x", False),
        ("$HOME/work/x", False),
    ],
)
def test_machine_paths_are_told_from_others(text: str, *, found: bool) -> None:
    """
    Only an absolute path counts.
    """
    assert found == bool(MACHINE_PATH.search(text))


@pytest.mark.parametrize("command", ["./dev demo", "./dev test"])
def test_readme_gives_each_command_on_one_line(command: str) -> None:
    """
    The two commands stand alone in a block, to be copied.
    """
    blocks = [body for _, body in FENCE.findall(README)]

    assert f"{command}\n" in blocks


def test_ci_runs_the_command_of_the_readme() -> None:
    """
    CI runs what the README tells a newcomer to run.
    """
    assert "./dev test" in (REPOSITORY / ".ci" / "run").read_text().splitlines()


def test_readme_example_runs(tmp_path: Path) -> None:
    """
    The embedded example prints what its comments say, and is short.
    """
    (example,) = [body for tag, body in FENCE.findall(README) if tag == "python"]
    shown = re.findall(r"^ *print\(.*\)  # (.*)$", example, re.MULTILINE)

    ran = subprocess.run(
        [sys.executable, "-c", example],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ("", shown) == (ran.stderr, ran.stdout.splitlines())
    assert len(example.splitlines()) <= 12


@pytest.mark.parametrize("dist", ["hsm-core", "hsm-client", "hsm-server", "hsm-cli"])
def test_licence_is_in_every_distribution(dist: str) -> None:
    """
    Each wheel carries the licence, which must lie in the distribution's folder.
    """
    licence = (REPOSITORY / "LICENSE").read_text()

    assert licence == (REPOSITORY / "packages" / dist / "LICENSE").read_text()


def test_decisions_have_numbers_of_their_own() -> None:
    """No two decisions have one number, and a page says the one of its name."""
    pages = sorted((REPOSITORY / "docs/explanation/adr").glob("0*.md"))
    numbers = [page.name[:4] for page in pages]
    assert len(numbers) == len(set(numbers))
    for number, page in zip(numbers, pages, strict=True):
        assert re.match(rf"# (?:ADR )?{number}\b", page.read_text()), page.name
