# SPDX-License-Identifier: MIT
"""Chromium and server fixtures of the console tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.hall import Hall
from tests.e2e.processes import ServerProcess
from tests.e2e.retention_site import RetentionSite
from tests.support import require_service

OPTIONAL = ("--client-auth", "optional")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Yield the system's Chromium, headless, or skip."""
    path = os.environ.get("FERROHSM_CHROMIUM") or shutil.which("chromium")
    require_service("The program chromium", path)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> RetentionSite:
    """Return the site of the shared server."""
    return RetentionSite(tmp_path_factory.mktemp("console") / "site")


@pytest.fixture(scope="session")
def server(site: RetentionSite) -> Iterator[ServerProcess]:
    """Yield the shared server; each test uses its own key names."""
    with site.start(*OPTIONAL) as running:
        yield running
        assert 0 == running.stop()


@pytest.fixture
def hall(
    chromium: Browser, site: RetentionSite, server: ServerProcess
) -> Iterator[Hall]:
    """Yield browsers for the shared server."""
    made = Hall(chromium, site, server)
    yield made
    made.close()


@pytest.fixture
def hall_of(chromium: Browser, tmp_path: Path) -> Iterator[Callable[..., Hall]]:
    """Yield a function that starts a separate server with more flags."""
    with ExitStack() as running:

        def start(*flags: str) -> Hall:
            own = RetentionSite(tmp_path / "site")
            server = running.enter_context(own.start(*OPTIONAL, *flags))
            made = Hall(chromium, own, server)
            running.callback(made.close)
            return made

        yield start
