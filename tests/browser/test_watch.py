# SPDX-License-Identifier: MIT
"""Self-tests of the page checks."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route

from tests.browser.watch import Watch, axe_findings

ORIGIN = "https://console.test"
GOOD = "<h1>Good</h1>"


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    """Yield a browser without network."""
    made = chromium.new_context()
    yield made
    made.close()


def show(context: BrowserContext, body: str, *, status: int = 200) -> Page:
    """Show a local page under a strict policy."""

    def answer(route: Route) -> None:
        route.fulfill(
            status=status,
            content_type="text/html",
            headers={"Content-Security-Policy": "default-src 'none'; img-src *"},
            body=f"<!doctype html><html lang=en><title>T</title><main>{body}</main>",
        )

    context.route("**/*", answer)
    page = context.new_page()
    page.goto(ORIGIN)
    return page


def test_a_quiet_page(context: BrowserContext) -> None:
    """
    A harmless page has no findings.
    """
    watch = Watch(context, ORIGIN)
    page = show(context, GOOD)

    watch.check()
    assert [] == axe_findings(page)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("<p style='color:red'>x</p>", "style-src"),
        ("<script>document.title = 'x'</script>", "script-src"),
        ("<img alt='' src=https://elsewhere.test/x.png>", "https://elsewhere.test"),
    ],
    ids=["inline style", "inline script", "elsewhere"],
)
def test_complaints(context: BrowserContext, body: str, complaint: str) -> None:
    """
    Inline style, inline script and cross-origin requests are found.
    """
    watch = Watch(context, ORIGIN)
    show(context, GOOD + body)

    with pytest.raises(AssertionError, match=complaint):
        watch.check()


def test_status_of_error(context: BrowserContext) -> None:
    """
    An error response is a finding unless expected.
    """
    watch = Watch(context, ORIGIN)
    page = show(context, GOOD, status=409)

    with pytest.raises(AssertionError, match="409"):
        watch.check()
    watch.refusals.add(409)
    page.reload()
    watch.check()


def test_script_that_fails(context: BrowserContext) -> None:
    """
    An uncaught script error is found.
    """
    watch = Watch(context, ORIGIN)
    page = show(context, GOOD)
    with page.expect_event("pageerror"):
        page.evaluate("setTimeout(() => { throw new Error('broken') }, 0), null")

    with pytest.raises(AssertionError, match="broken"):
        watch.check()


def test_unreadable_field(context: BrowserContext) -> None:
    """
    A field without a label is serious.
    """
    page = show(context, GOOD + "<input name=x>")

    assert any("label" in finding for finding in axe_findings(page))
