# SPDX-License-Identifier: MIT
"""Accessibility and layout of every page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import OPTIONAL
from tests.browser.hall import Desk, Hall
from tests.browser.scene import Scene, dress
from tests.browser.screenshots import PHONE, pages
from tests.e2e.retention_site import RetentionSite

NAMES = list(pages(Scene("key", "pending", "denied")))


@pytest.fixture(scope="module")
def paths_and_desk(
    chromium: Browser, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, str], Desk]]:
    """Yield a browser and the pages of a server with sample data."""
    site = RetentionSite(tmp_path_factory.mktemp("pages") / "site")
    with site.start(*OPTIONAL, "--isolation", "inline") as server:
        hall = Hall(chromium, site, server)
        scene = dress(hall)
        desk = hall.desk(width=PHONE, phone=True)
        desk.sign_in(site.token("grace", "Administrator", "Operator", "Auditor"))
        yield dict(pages(scene)), desk
        hall.close()


@pytest.mark.parametrize("name", NAMES)
def test_page(paths_and_desk: tuple[dict[str, str], Desk], name: str) -> None:
    """
    A page has no serious axe-core finding and no horizontal scrolling.
    """
    paths, desk = paths_and_desk
    desk.page.set_viewport_size({"width": PHONE, "height": 800})
    desk.open(paths[name], status=404 if name == "missing" else 200)
    desk.check()
    desk.page.set_viewport_size({"width": 1280, "height": 900})

    assert desk.fits()
    assert 1 == desk.page.get_by_role("heading", level=1).count()
    assert desk.page.title().endswith("FerroHSM")
