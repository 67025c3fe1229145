# SPDX-License-Identifier: MIT
"""Console server and browsers of its users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from playwright.sync_api import Browser, BrowserContext, Page

from tests.browser.watch import Watch, axe_findings
from tests.e2e.https import Client
from tests.e2e.processes import ServerProcess
from tests.e2e.retention_site import RetentionSite

PEOPLE: Final = {
    "adam": "Administrator",
    "ada": "Operator",
    "olga": "Operator",
    "anton": "Auditor",
    "sam": "Service",
}
"""Who has which role."""
_WAIT_MILLISECONDS: Final = 15_000


class Desk:
    """
    A watched browser with its own cookies.

    Args:
        context: A fresh one.

        origin: Of the server.

    Attributes:
        page: The first tab.
    """

    def __init__(self, context: BrowserContext, origin: str) -> None:
        context.set_default_timeout(_WAIT_MILLISECONDS)
        self.context = context
        self.origin = origin
        self.watch = Watch(context, origin)
        self.page: Page = context.new_page()

    def open(self, path: str, *, status: int = 200) -> Page:
        """
        Open a console page.

        Raises:
            AssertionError: The answer has another status.
        """
        self.expect_refusals(status)
        answer = self.page.goto(self.origin + path)
        assert answer is not None
        assert status == answer.status, self.page.content()
        return self.page

    def expect_refusals(self, *statuses: int) -> None:
        """Allow error responses with these statuses."""
        self.watch.refusals.update(status for status in statuses if status >= 400)

    def check(self) -> None:
        """
        Check the page in both colour schemes, and its behaviour so far.

        Raises:
            AssertionError: axe-core finds something serious, or see `Watch.check`.
        """
        self.watch.check()
        findings = axe_findings(self.page)
        assert [] == findings, "\n".join(findings)
        assert self.fits(), f"{self.page.url} scrolls sideways"

    def fits(self) -> bool:
        """Return whether the page is no wider than the window."""
        return bool(
            self.page.evaluate(
                "document.documentElement.scrollWidth <= window.innerWidth"
            )
        )

    def sign_in(self, token: str) -> None:
        """Sign in with a pasted token."""
        self.open("/ui/sign-in")
        self.page.get_by_label("Access token").fill(token)
        self.page.get_by_role("button", name="Sign in", exact=True).click()
        self.page.get_by_role("button", name="Sign out").wait_for()


class Hall:
    """
    Browsers for one running server.

    Args:
        browser: Chromium.

        site: Whose server.

        server: It runs.
    """

    def __init__(
        self, browser: Browser, site: RetentionSite, server: ServerProcess
    ) -> None:
        self.browser = browser
        self.site = site
        self.server = server
        self._contexts: list[BrowserContext] = []

    @property
    def origin(self) -> str:
        """Origin of the console."""
        return f"https://localhost:{self.server.port}"

    def desk(
        self,
        *,
        certificate_of: str = "",
        scripts: bool = True,
        width: int = 1280,
        phone: bool = False,
    ) -> Desk:
        """
        Open a browser.

        Args:
            certificate_of: Whose certificate it shows; nobody's by default.

            scripts: Whether scripts run.

            width: Of the window, in CSS pixels.

            phone: Whether it is touched, not pointed at.
        """
        shown = [self.site.pair(certificate_of)] if certificate_of else []
        context = self.browser.new_context(
            client_certificates=[
                {
                    "origin": self.origin,
                    "certPath": pair.certificate,
                    "keyPath": pair.key,
                }
                for pair in shown
            ]
            or None,
            ignore_https_errors=True,
            java_script_enabled=scripts,
            viewport={"width": width, "height": 900},
            has_touch=phone,
            reduced_motion="reduce",  # or axe sees colours that are on their way
            locale="en-GB",
            timezone_id="UTC",
        )
        self._contexts.append(context)
        return Desk(context, self.origin)

    def token(self, who: str) -> str:
        """Return the token of one of `PEOPLE`."""
        return self.site.token(who, PEOPLE[who])

    def seated(self, who: str, *, width: int = 1280) -> Desk:
        """Open a browser signed in as one of `PEOPLE`."""
        desk = self.desk(width=width)
        desk.sign_in(self.token(who))
        return desk

    def ask(
        self,
        who: str,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        status: int = 200,
    ) -> Any:
        """
        Send a REST request as one of `PEOPLE`; return the response.

        Raises:
            AssertionError: The answer has another status.
        """
        with self.site.client(self.server.port, who, PEOPLE[who]) as client:
            answer = client.request(method, f"/api/v1{path}", body)
        assert status == answer.status, answer.body
        return answer.json if answer.body else None

    def status_with(self, token: str) -> int:
        """Return the status of listing keys with a token."""
        with Client(self.server.port, self.site.context, token) as client:
            return client.request("GET", "/api/v1/keys").status

    def create(self, name: str, algorithm: str = "EC-P256", **fields: object) -> Any:
        """Create a key as Ada."""
        body = {"algorithm": algorithm, "name": name, **fields}
        return self.ask("ada", "POST", "/keys", body, status=201)

    def close(self) -> None:
        """Close all browsers."""
        for context in self._contexts:
            context.close()
        self._contexts.clear()
