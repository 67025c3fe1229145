# SPDX-License-Identifier: MIT
"""Fixtures of the server's tests."""

from collections.abc import AsyncIterator

import pytest

from tests.server.support import API, open_api


@pytest.fixture
async def api() -> AsyncIterator[API]:
    """Give a client of the application over a fresh memory HSM."""
    async with open_api() as opened:
        yield opened
