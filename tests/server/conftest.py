# SPDX-License-Identifier: MIT
"""Fixtures of the server's tests."""

from collections.abc import AsyncIterator

import pytest

from tests.server.support import API, open_api
from tests.server.ui_support import Browser, open_browser


@pytest.fixture
async def api() -> AsyncIterator[API]:
    """Give a client of the application over a fresh memory HSM."""
    async with open_api() as opened:
        yield opened


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Give a browser that nobody has signed in with."""
    async with open_browser() as opened:
        yield opened


@pytest.fixture
async def signed_in(browser: Browser) -> Browser:
    """Give a browser that somebody with every role has signed in with."""
    shown = await browser.sign_in()
    assert 303 == shown.status, shown.text
    return browser
