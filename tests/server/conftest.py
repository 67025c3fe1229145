# SPDX-License-Identifier: MIT
"""Fixtures of the server's tests."""

from collections.abc import AsyncIterator

import pytest

from tests.server.support import API, close_api, open_api


@pytest.fixture
async def api() -> AsyncIterator[API]:
    """Give a client of the application over a fresh memory HSM."""
    opened = await open_api()
    yield opened
    await close_api(opened)
