# SPDX-License-Identifier: MIT
"""Checks of every page that a test opens: errors, CSP and cross-origin requests."""

from __future__ import annotations

import re
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request

_REFUSED: Final = re.compile(
    r"Failed to load resource: the server responded with a status of (\d{3})"
)
_SCHEMES: Final[tuple[Literal["dark", "light"], ...]] = ("dark", "light")
_IMPACTS: Final = frozenset({"serious", "critical"})
_OPTIONS: Final = {"resultTypes": ["violations"], "preload": False}
_AXE: Final = Axe()
_TELL_VIOLATIONS: Final = """
document.addEventListener("securitypolicyviolation", (event) => console.error(
  `CSP: ${event.effectiveDirective} ${event.blockedURI} ${event.sourceFile}`));
"""

_SETTLE: Final = "() => new Promise((done) => setTimeout(done, 30))"
"""What a page has done so far is told before this ends."""


class Watch:
    """
    Listener on all pages of a browser context.

    Args:
        context: Before its first page.

        origin: The only one that requests may go to.

    Attributes:
        also: Other origins that a test sends the browser to.
        refusals: Statuses of errors that a test has brought about on purpose.
    """

    def __init__(self, context: BrowserContext, origin: str) -> None:
        self.also: set[str] = set()
        self.refusals: set[int] = set()
        self._context = context
        self._origin = origin
        self._complaints: list[str] = []
        context.add_init_script(_TELL_VIOLATIONS)
        context.on("console", self._heard)
        context.on("weberror", lambda error: self._complain(f"script: {error.error}"))
        context.on("request", self._requested)

    def check(self) -> None:
        """
        Check for findings since the last call.

        Raises:
            AssertionError: A script failed, the browser complained, the policy of the
                page was violated, or a request went elsewhere.
        """
        for page in self._context.pages:
            page.evaluate(_SETTLE)
        complaints = [text for text in self._complaints if not self._is_meant(text)]
        self._complaints.clear()
        assert [] == complaints, "\n".join(complaints)

    def _is_meant(self, text: str) -> bool:
        found = _REFUSED.search(text)
        return found is not None and int(found[1]) in self.refusals

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            where = message.location
            self._complain(f"{message.type}: {message.text} ({where['url']})")

    def _requested(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if f"{parts.scheme}://{parts.netloc}" not in {self._origin, *self.also}:
            self._complain(f"request: {request.url}")

    def _complain(self, text: str) -> None:
        self._complaints.append(text)


def axe_findings(page: Page) -> list[str]:
    """Return serious axe-core findings in both colour schemes."""
    found = []
    for scheme in _SCHEMES:
        page.emulate_media(color_scheme=scheme)
        result: dict[str, Any] = _AXE.run(page, options=_OPTIONS).response
        found += [
            f"{scheme}: {finding['id']} ({finding['impact']}) {node['target']} "
            f"{node['html'][:200]} {node['failureSummary'][:300]}"
            for finding in result["violations"]
            if finding["impact"] in _IMPACTS
            for node in finding["nodes"]
        ]
    return found
