# SPDX-License-Identifier: MIT
"""Audit pages on a node of a cluster: records of all nodes, by time."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import closing
from html import unescape
from pathlib import Path

import pytest

from hsm_core.factory import OpenHSM, open_async, open_hsm
from hsm_core.operations import ListAuditEvents
from hsm_core.settings import Settings
from hsm_core.testing import caller
from tests.server.ui_support import Browser, open_browser


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
        async with open_browser(gateway=open_async(first)) as opened:
            await opened.sign_in()
            yield opened


def _link(text: str, before: str) -> str:
    return unescape(text.partition(before)[2].partition('"')[0])


def _places(text: str) -> list[str]:
    return re.findall(r">([ab] [0-9]+)</a>", text)


async def test_records_of_all_nodes(browser: Browser) -> None:
    """Each row names its node; older pages and single records are of the same logs."""
    page = await browser.get("/ui/audit")
    older = await browser.get(_link(page.text, 'rel="next" href="'))
    link = unescape(page.text.partition('">b ')[0].rpartition('href="')[2])
    record = await browser.get(link)

    assert "Follow live" not in page.words
    assert ">a " in page.text
    assert ">b " in page.text
    assert ">b " in older.text
    assert set(_places(page.text)).isdisjoint(_places(older.text))
    assert "?log=" in link
    assert 200 == record.status
    assert "Node" in record.words


async def test_every_log_is_verified(browser: Browser) -> None:
    """The page goes on with the log of the next node."""
    page = await browser.get("/ui/audit/verify")
    page = await browser.submit(page, "/ui/audit/verify")

    assert "of node a" in page.words
    page = await browser.submit(page, "/ui/audit/verify")
    assert "Audit log intact" in page.words
    assert "of node b" in page.words
