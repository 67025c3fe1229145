# SPDX-License-Identifier: MIT
"""The manual pages are those of the commands, and a formatter finds nothing wrong."""

import subprocess
import tomllib

import pytest

from tests.support import require_program
from tests.tooling.man_pages import pages

PAGES = {path.name: (path, text) for path, text in pages().items()}


@pytest.mark.parametrize("name", PAGES)
def test_page_is_the_commands(name: str) -> None:
    """
    The page is what `python -m tests.tooling.man_pages` writes.
    """
    path, text = PAGES[name]
    assert path.read_text("utf-8") == text


@pytest.mark.parametrize("name", PAGES)
def test_page_is_in_the_wheel(name: str) -> None:
    """
    The page is installed where man looks for it.
    """
    path, _ = PAGES[name]
    text = (path.parent.parent / "pyproject.toml").read_text("utf-8")
    shared = tomllib.loads(text)["tool"]["hatch"]["build"]["targets"]["wheel"]
    section = path.suffix.removeprefix(".")
    wanted = {f"man/{name}": f"share/man/man{section}/{name}"}
    assert shared["shared-data"] == wanted


@pytest.mark.parametrize("name", PAGES)
def test_formatter_has_no_warnings(name: str) -> None:
    """
    Groff reads the page without a word.
    """
    groff = require_program("groff")
    done = subprocess.run(
        [groff, "-man", "-ww", "-z", str(PAGES[name][0])],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""


@pytest.mark.parametrize("name", PAGES)
def test_every_line_is_text_or_a_known_request(name: str) -> None:
    """
    No word of a help text is taken for a request to the formatter.
    """
    lines = PAGES[name][1].splitlines()
    requests = {line.split()[0] for line in lines if line.startswith((".", "'"))}
    assert requests <= {".TH", ".SH", ".SS", ".PP", ".TP", ".B", ".nf", ".fi"}
