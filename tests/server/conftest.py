# SPDX-License-Identifier: MIT
"""Fixtures of the server's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.server.support import API, has_connections, open_api, until
from tests.server.ui_support import Browser, open_browser

if TYPE_CHECKING:
    from tests.server.acme_hostile import HostileCA
    from tests.server.oidc_issuer import OIDCIssuer


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


@pytest.fixture
async def issuer(tmp_path: Path) -> AsyncIterator[OIDCIssuer]:
    """Give an OpenID Connect provider that runs."""
    from tests.server.oidc_issuer import OIDCIssuer

    with OIDCIssuer(tmp_path / "issuer") as running:
        yield running
        # A connection that it is slow to close would outlast the loop.
        await until(lambda: not has_connections())


@pytest.fixture
def ca(tmp_path: Path) -> Iterator[HostileCA]:
    """Give an ACME CA that does as it is told."""
    from tests.server.acme_hostile import hostile_ca

    with hostile_ca(tmp_path) as found:
        yield found
