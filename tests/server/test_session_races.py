# SPDX-License-Identifier: MIT
"""Sixteen windows of one console session, in the middle of which that ends."""

from __future__ import annotations

import asyncio
import os
import random

from hsm_core.model import Phase
from hsm_core.operations import CreateKey, ListAuditEvents
from tests.server.ui_support import SESSION, Browser

TRIALS = int(os.environ.get("FERROHSM_RACES", "2"))
WINDOWS = 16


async def trial(browser: Browser) -> None:
    """Rotate keys in sixteen windows, sign out, and look for what came later."""
    assert 303 == (await browser.sign_in()).status
    cookie = f"{SESSION}={browser.cookies[SESSION]}"
    keys = [browser.execute(CreateKey(algorithm="aes")).key_id for _ in range(WINDOWS)]
    warm, over, late = asyncio.Semaphore(0), asyncio.Event(), list[str]()

    async def rotate(key: str) -> None:
        path = f"/ui/keys/{key}/rotate"
        # Whoever has seen the secret keeps it, whatever a browser is told.
        page = await browser.get(path, Cookie=cookie)
        while True:
            was_over = over.is_set()
            done = await browser.submit(page, path, Cookie=cookie)
            page = await browser.get(path, Cookie=cookie)
            warm.release()
            if done.status != 303 or "sign-in" in done.location:
                return
            if was_over:
                late.append(done.location)
                return

    async with asyncio.timeout(120), asyncio.TaskGroup() as windows:
        for key in keys:
            windows.create_task(rotate(key))
        for _ in keys:
            await warm.acquire()
        await asyncio.sleep(random.random() * 0.02)
        home = await browser.get("/ui", Cookie=cookie)
        await browser.submit(home, "/ui/sign-out", Cookie=cookie)
        over.set()

    newest = browser.execute(ListAuditEvents(limit=1000)).items
    events = [entry.event for entry in reversed(newest)]
    signed_out = max(e.seq for e in events if e.kind == "SignOut")
    begun = [e.seq for e in events if e.phase is Phase.INTENT and e.seq > signed_out]
    done = {e.key_id for e in events if (e.kind, e.code) == ("RotateKey", "ok")}
    assert {*keys} <= done
    assert [] == late
    assert [] == begun


async def test_a_session_that_ends(browser: Browser) -> None:
    """After the answer to the sign-out nothing is done, and begun after its record."""
    for _ in range(TRIALS):
        await trial(browser)
