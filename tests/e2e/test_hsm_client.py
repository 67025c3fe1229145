# SPDX-License-Identifier: MIT
"""Programs over `hsm_client` and a development server, those of its pages first."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm_client import HSMError, aio
from hsm_core.operations import ListAuditEvents
from tests.e2e.processes import ServerProcess, program
from tests.support import REPOSITORY

PAGES = ("packages/hsm-client/README.md", "docs/how-to/use-an-hsm-from-python.md")
BLOCK = re.compile(r"(-->\n)?```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PRINTED = re.compile(r"^ *print\(.*\)  # (.+)$", re.MULTILINE)


def read(page: str) -> str:
    """Return the text of a page."""
    return (REPOSITORY / page).read_text()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the folder of a user who has started a development server."""
    home = tmp_path_factory.mktemp("home")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FERROHSM_")}
    kept |= {"XDG_CONFIG_HOME": str(home / "config"), "TMPDIR": str(home)}
    command = [*program("hsm-server"), "--dev"]
    with ServerProcess(command, kept, home / "server.log") as server:
        server.wait_ready()
        yield home
        server.stop()


@pytest.fixture
def user(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the environment of that user."""
    for name in [name for name in os.environ if name.startswith("FERROHSM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))


@pytest.mark.usefixtures("user")
@pytest.mark.parametrize("page", PAGES)
def test_page(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every program of a page runs after the ones before it, as it says."""
    programs = [source for why, source in BLOCK.findall(read(page)) if not why]
    assert programs
    for source in programs:
        expected = PRINTED.findall(source)
        assert expected
        exec(compile(source, page, "exec"), {"__name__": "__main__"})  # noqa: S102
        assert expected == capsys.readouterr().out.splitlines(), source


@pytest.mark.usefixtures("user")
async def test_many_uses_at_once() -> None:
    """Tasks share a connection, each gets its own answer, and a key object lives."""
    async with aio.connect() as hsm:
        key = await hsm.create("AES-256-GCM", name="at-once")
        texts = [b"%d" % number for number in range(60)]
        ciphertexts = await asyncio.gather(*map(key.encrypt, texts))
        await key.rotate()

        assert texts == await asyncio.gather(*map(key.decrypt, ciphertexts))
        assert 2 == key.version
        with pytest.raises(HSMError) as caught:
            await hsm.key("nobody-made-this")
        assert "key_not_found" == caught.value.code


@pytest.mark.usefixtures("user")
async def test_live_view() -> None:
    """A view shows what happens while it is open, until it is closed."""
    async with aio.connect() as hsm:
        status = await hsm.status()
        view = hsm.follow(ListAuditEvents(start_seq=status.audit.head_seq + 1))
        async with contextlib.aclosing(view):
            key = await hsm.create("Ed25519", name="watched")
            async with asyncio.timeout(60):
                async for entry in view:
                    if entry.event.kind == "CreateKey":
                        break

        assert key.id == entry.event.key_id
