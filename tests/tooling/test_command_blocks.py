# SPDX-License-Identifier: MIT
"""Every block of commands in a document is typed by a test, or says why it is not."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest

from tests.built import DISTS
from tests.e2e.test_embedding_pages import PAGES as EMBEDDING_PAGES
from tests.e2e.test_how_to import STARTS_ITS_OWN, TOLD
from tests.e2e.test_hsm_client import PAGES
from tests.support import REPOSITORY

_TYPED: Final = frozenset(
    {
        "README.md",  # test_readme.py
        "docs/tutorial/newcomer.md",  # test_tutorials.py
        "docs/tutorial/embed-the-hsm.md",  # test_embedding_pages.py
        "docs/tutorial/operator.md",
        "docs/tutorial/approver.md",
        "docs/tutorial/auditor.md",
        "docs/how-to/get-certificates-by-acme.md",  # test_acme_how_to.py
        "docs/how-to/sign-in.md",  # test_provider_sign_in.py
        "docs/how-to/index.md",  # test_how_to.py
        *(f"docs/how-to/{name}.md" for name in (*TOLD, *STARTS_ITS_OWN)),
    }
)
"""Documents all of whose ``sh`` blocks a test types."""

_RUN: Final = frozenset({"README.md", *PAGES, *EMBEDDING_PAGES})  # test_repository.py
"""Documents all of whose ``python`` blocks a test runs."""

_BLOCK: Final = re.compile(
    r"^(?P<before>[^\n]*)\n\n?```(?P<language>sh|bash|shell|console|python|pycon)\n"
    r"(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_REASON: Final = re.compile(r"<!-- not run: (?P<why>[^>]{10,}) -->")
_DOCUMENTS: Final = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "packages/*/*.md")
    for path in REPOSITORY.glob(pattern)
    if "_build" not in path.parts
)


def unaccounted(name: str, text: str) -> list[str]:
    """Return the first lines of blocks that nobody types and that give no reason."""
    return [
        found["text"].partition("\n")[0]
        for found in _BLOCK.finditer(text)
        if not _REASON.search(found["before"])
        and not (found["language"] == "sh" and name in _TYPED)
        and not (found["language"] == "python" and name in _RUN)
    ]


def released() -> set[str]:
    """Return the distributions that the page on distributions lists as released."""
    page = (REPOSITORY / "docs/reference/distributions.md").read_text()
    table = page.partition("## Releases")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([\w-]+)` \| (\S+) \|$", table, re.MULTILINE)
    assert set(DISTS) == {name for name, _ in rows}
    return {name for name, version in rows if version != "none"}


def unreleased_installs(text: str, names: Iterable[str]) -> list[str]:
    """Return the lines that install one of our distributions by name from an index."""
    own = "|".join(names)
    by_name = re.compile(rf"pip install[^`\n]*?(?<![\w./-])(?:{own})(?![\w-]|/)")
    return [line for line in text.splitlines() if own and by_name.search(line)]


def test_only_releases_are_installed_by_name() -> None:
    """No page, message or example installs by name what nobody has released."""
    names = set(DISTS) - released()
    sources = REPOSITORY.glob("packages/*/src/**/*.py")
    others = [p for p in REPOSITORY.glob("examples/**/*") if p.is_file()]
    paths = [*(REPOSITORY / name for name in _DOCUMENTS), *sources, *others]

    found = {
        path.relative_to(REPOSITORY).as_posix(): lines
        for path in paths
        if path.suffix != ".pyc"
        and (lines := unreleased_installs(path.read_text(), names))
    }

    assert {} == found


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ("pip install hsm-core", True),
        ("pip install 'hsm-core[s3]'", True),
        ("pip install --upgrade boto3 hsm-cli", True),
        ("pip install ./packages/hsm-core", False),
        ("pip install -e packages/hsm-core -e packages/hsm-cli", False),
        ("pip install dist/hsm_core-*.whl", False),
        ("pip install pqcrypto", False),
    ],
)
def test_check_of_installs(line: str, is_found: bool) -> None:
    """Names are found, paths are not."""
    assert is_found is bool(unreleased_installs(line, ["hsm-core", "hsm-cli"]))
    assert [] == unreleased_installs(line, [])


@pytest.mark.parametrize("name", _DOCUMENTS)
def test_blocks(name: str) -> None:
    """A document has no block that is neither run nor explained."""
    assert [] == unaccounted(name, (REPOSITORY / name).read_text())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Text.\n\n```sh\nrm -r x\n```\n", ["rm -r x"]),
        ("Text.\n```python\nx = 1\n```\n", ["x = 1"]),
        ("<!-- not run: it needs two machines -->\n```sh\nssh a\n```\n", []),
        ("<!-- not run: why -->\n```sh\nssh a\n```\n", ["ssh a"]),
        ("Text.\n\n```python\n>>> 1\n1\n```\n", [">>> 1"]),
        ("Text.\n\n```text\nanything\n```\n", []),
    ],
)
def test_check_itself(text: str, found: list[str]) -> None:
    """A block without a test and without a reason is found."""
    assert found == unaccounted("unknown.md", text)


def test_typed_documents_exist() -> None:
    """What is said to be typed is there."""
    assert [] == [name for name in _TYPED if not Path(REPOSITORY, name).is_file()]


_HANDED_OUT: Final = re.compile(
    r"export FERROHSM_JWT_SECRET=|hsm-cli[^\n`]*--jwt-secret\b[ =]"
)
"""The secret of the server's tokens, in the hands of somebody who uses an HSM."""


@pytest.mark.parametrize("name", _DOCUMENTS)
def test_nobody_gets_the_token_secret(name: str) -> None:
    """
    No page gives users what can create a token for anybody.

    Dual control would prove nothing: one person could ask and approve.
    """
    text = (REPOSITORY / name).read_text()
    mints = "token mint" in text and not name.startswith("docs/reference/")

    assert [] == _HANDED_OUT.findall(text)
    assert not mints or name == "docs/how-to/tokens.md"


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ("export FERROHSM_JWT_SECRET=@secrets/jwt-secret", True),
        ("hsm-cli --jwt-secret @secret status", True),
        ("unset FERROHSM_JWT_SECRET", False),
        ("hsm-server --auth-jwt-secret @secret", False),
    ],
)
def test_check_of_handed_out_secrets(line: str, is_found: bool) -> None:
    """The server has its secret; clients do not."""
    assert is_found is bool(_HANDED_OUT.search(line))
