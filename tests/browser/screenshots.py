# SPDX-License-Identifier: MIT
"""Screenshots of every console page: light, dark and phone."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from playwright.sync_api import sync_playwright

from tests.browser.hall import Desk, Hall
from tests.browser.scene import Scene, dress
from tests.e2e.retention_site import RetentionSite

_FOLDER: Final = Path(".nox/screenshots")
PHONE: Final = 360
_DESKTOP: Final = 1280
_SCHEMES: Final[Mapping[str, Literal["light", "dark"]]] = {
    "light": "light",
    "dark": "dark",
    "phone": "light",
}


def pages(scene: Scene) -> Mapping[str, str]:
    """Return all pages by name."""
    key, approvals = f"/ui/keys/{scene.key_id}", "/ui/approvals"
    return {
        "overview": "/ui",
        "keys": "/ui/keys",
        "key": key,
        "key-create": "/ui/keys/new",
        "key-create-form": "/ui/keys/new?algorithm=ML-DSA-65",
        "key-rotate": f"{key}/rotate",
        "key-rollback": f"{key}/rollback",
        "key-revoke": f"{key}/revoke",
        "key-destroy": f"{key}/destroy",
        "key-policy": f"{key}/policy",
        "key-history": f"{key}/history",
        "key-try": f"{key}/try/sign",
        "approvals": approvals,
        "approvals-history": f"{approvals}?tab=history",
        "approval": f"{approvals}/{scene.pending}",
        "approval-denied": f"{approvals}/{scene.denied}",
        "audit": "/ui/audit",
        "audit-event": "/ui/audit/12",
        "audit-verify": "/ui/audit/verify",
        "retention": "/ui/retention",
        "retention-holds": "/ui/retention/holds",
        "retention-key": f"/ui/retention/keys/{scene.key_id}",
        "missing": "/ui/keys/00000000-0000-4000-8000-000000000000",
    }


def main(folder: Path = _FOLDER) -> None:
    """
    Start a server with sample data and take all screenshots.

    Raises:
        FileNotFoundError: There is no ``chromium``.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        raise FileNotFoundError("chromium")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        site = RetentionSite(Path(scratch) / "site")
        with site.start("--client-auth", "optional") as server:
            browser = playwright.chromium.launch(executable_path=chromium)
            hall = Hall(browser, site, server)
            scene = dress(hall)
            for look in _SCHEMES:
                _look(hall, scene, look, folder)
            hall.close()
            browser.close()


def _look(hall: Hall, scene: Scene, look: str, folder: Path) -> None:
    desk = hall.desk(width=PHONE if look == "phone" else _DESKTOP)
    desk.page.emulate_media(color_scheme=_SCHEMES[look])
    desk.open("/ui/sign-in")
    _take(desk, folder / f"sign-in-{look}.png")
    roles = ("Administrator", "Operator", "Auditor")
    desk.sign_in(hall.site.token("grace", *roles))
    for name, path in pages(scene).items():
        desk.page.goto(desk.origin + path)
        _take(desk, folder / f"{name}-{look}.png")
    desk.context.close()


def _take(desk: Desk, path: Path) -> None:
    desk.page.wait_for_load_state("load")
    # What scripts fetch by themselves comes a moment later; streams never end.
    desk.page.wait_for_timeout(300)
    desk.page.screenshot(path=path, full_page=True)
    sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else _FOLDER)
