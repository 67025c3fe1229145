# SPDX-License-Identifier: MIT
"""Audit pages on a node of a cluster: records of all nodes, by time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import closing
from html import unescape
from pathlib import Path

import aiohttp
import pytest

from hsm_core.factory import OpenHSM, open_async, open_hsm
from hsm_core.operations import CreateKey, ListAuditEvents, Sign
from hsm_core.settings import Settings
from hsm_core.testing import caller
from hsm_server.ui import audit
from tests.server.ui_support import Browser, open_browser

PATIENCE = 60.0


def _node(name: str, url: str, folder: Path) -> OpenHSM:
    mark = folder / f"{name}.mark"
    settings = Settings(store=url, node_name=name, node_mark=mark)
    return open_hsm(settings, master_key=bytes(32), hmac_key=bytes(32), test_all=False)


@pytest.fixture
async def browser(database: str, tmp_path: Path) -> AsyncIterator[Browser]:
    """Yield a browser that is signed in at one of two nodes."""
    first, second = (_node(name, database, tmp_path) for name in ("a", "b"))
    with closing(first), closing(second):
        other = second.act_as(caller())
        for _ in range(60):
            other.execute(ListAuditEvents(limit=1))
        key = first.act_as(caller()).execute(CreateKey(algorithm="Ed25519", name="k"))
        for signer in (first.act_as(caller()), other) * 15:
            signer.execute(Sign(key_id=key.key_id, message=b"m"))
        async with open_browser(gateway=open_async(first)) as opened:
            await opened.sign_in()
            yield opened


def _link(text: str, before: str) -> str:
    return unescape(text.partition(before)[2].partition('"')[0])


def _places(text: str) -> list[str]:
    return re.findall(r">([ab] [0-9]+)</a>", text)


def _records(text: str) -> list[str]:
    return re.findall(r">audit record ([ab] [0-9]+)</a>", text)


async def test_records_of_all_nodes(browser: Browser) -> None:
    """Each row names its node; older pages and single records are of the same logs."""
    page = await browser.get("/ui/audit")
    older = await browser.get(_link(page.text, 'rel="next" href="'))
    link = unescape(page.text.partition('">b ')[0].rpartition('href="')[2])
    record = await browser.get(link)

    assert ">a " in page.text
    assert ">b " in page.text
    assert ">b " in older.text
    assert set(_places(page.text)).isdisjoint(_places(older.text))
    assert "?log=" in link
    assert 200 == record.status
    assert "Node" in record.words


async def test_the_history_of_a_key(browser: Browser) -> None:
    """It shows the records of all nodes by time, back to the first one."""
    page = await browser.get("/ui/keys/k/history")
    found, older = _records(page.text), 0
    while path := _link(page.text, '<a class="button quiet" href="/ui/keys'):
        page = await browser.get(f"/ui/keys{path}")
        found, older = found + _records(page.text), older + 1
    link = re.findall(r'href="(/ui/audit/[^"]+)"', page.text)[-1]
    record = await browser.get(link)

    assert 1 <= older
    assert ["b", "a"] * 15 == [place[0] for place in found[:30]]
    assert len(found) == len(set(found))
    assert "CreateKey" in page.words
    assert 200 == record.status
    assert "CreateKey" in record.words


async def test_new_records_of_all_nodes(browser: Browser) -> None:
    """The live view goes on behind the list, with rows that name their nodes."""
    page = await browser.get("/ui/audit?kind=ListAuditEvents")
    place = page.text.partition('class="live"')[2]
    start, live = _link(place, 'data-start="'), _link(place, 'data-live="')
    url = f"{live}&start={start}"
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    lines: list[str] = []
    async with (
        asyncio.timeout(PATIENCE),
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client,
        client.get(f"{browser.base}{url}", headers={"Cookie": cookie}) as response,
    ):
        while not any("</tr>" in line for line in lines):
            lines.append((await response.content.readline()).decode())

    # The list itself was recorded behind what it shows.
    (row,) = _places("".join(lines))
    positions = [part[32:] for part in start.split(",")]
    assert "a" == row[0]
    assert row[2:] in positions
    assert 2 == len(positions)


async def test_every_log_is_verified(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page goes on in the log that it began, then with that of the next node."""
    monkeypatch.setattr(audit, "_VERIFIED_AT_ONCE", 8)
    page = await browser.get("/ui/audit/verify")
    page = await browser.submit(page, "/ui/audit/verify")
    begun = re.findall(r'name="log" value="([0-9a-f]{32})"', page.text)
    shown = [page.words]
    for _ in range(20):
        if "Audit log intact" in page.words:
            break
        page = await browser.submit(page, "/ui/audit/verify")
        shown.append(page.words)

    assert 1 == len(begun)
    assert "of node a" in shown[0]
    assert "of node a" in shown[1]
    assert "Audit log intact" in shown[-1]
    assert "of node b" in shown[-1]
