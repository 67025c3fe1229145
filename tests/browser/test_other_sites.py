# SPDX-License-Identifier: MIT
"""
Pages of other sites in a signed-in browser.

Their browser shows a client certificate, too. One of the sites has another name, the
other has another port only, so that cookies reach the console from there.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.browser.elsewhere import Elsewhere
from tests.browser.hall import Desk, Hall

SITES = {"other name": "127.0.0.1", "other port": "localhost"}


@pytest.fixture
def elsewhere(hall: Hall) -> Iterator[Elsewhere]:
    """Yield another site."""
    with Elsewhere(hall.site.server_pair) as running:
        yield running


@pytest.fixture(params=list(SITES.values()), ids=list(SITES))
def other(request: pytest.FixtureRequest, elsewhere: Elsewhere) -> str:
    """Return its origin."""
    return f"https://{request.param}:{elsewhere.port}"


@pytest.fixture
def desk(hall: Hall) -> Desk:
    """Yield Ada's browser, with her certificate."""
    seated = hall.desk(certificate_of="ada")
    seated.sign_in(hall.token("ada"))
    return seated


def form(action: str, **fields: str) -> str:
    """Return a page that submits a form by script."""
    inputs = "".join(f"<input name={name} value='{v}'>" for name, v in fields.items())
    return (
        f"<form method=post action='{action}'>{inputs}</form>"
        "<script>document.forms[0].submit()</script>"
    )


def is_signed_in(desk: Desk) -> bool:
    """Return whether the session is valid."""
    page = desk.context.new_page()
    page.goto(f"{desk.origin}/ui")
    signed_in = page.get_by_role("button", name="Sign out").count() == 1
    page.close()
    return signed_in


def test_form(desk: Desk, elsewhere: Elsewhere, other: str) -> None:
    """
    A cross-site form is rejected.
    """
    elsewhere.pages["/"] = form(f"{desk.origin}/ui/sign-out", form_token="guessed")
    with desk.page.expect_navigation(url=f"{desk.origin}/**") as navigation:
        desk.page.goto(f"{other}/")
    answer = navigation.value

    assert answer is not None
    assert answer.status in {401, 403}
    assert is_signed_in(desk)


def test_request_of_a_script(desk: Desk, elsewhere: Elsewhere, other: str) -> None:
    """
    Cross-site scripts can't send requests or read responses.
    """
    elsewhere.pages["/"] = f"""<title>wait</title><script>
    const ask = (path, options) =>
      fetch("{desk.origin}" + path, {{credentials: "include", ...options}})
        .then((answer) => answer.text()).then((text) => text.length, () => "failed");
    Promise.all([
      ask("/ui", {{}}),
      ask("/ui/sign-out", {{method: "POST", mode: "no-cors",
        headers: {{"Content-Type": "application/x-www-form-urlencoded"}},
        body: "form_token=x"}}),
    ]).then((found) => {{ document.title = found.join(" ") }});
    </script>"""
    desk.page.goto(f"{other}/")
    expect(desk.page).to_have_title("failed failed")

    assert is_signed_in(desk)


def test_frame(desk: Desk, elsewhere: Elsewhere, other: str) -> None:
    """
    Console pages can't be framed.
    """
    elsewhere.pages["/"] = f"<iframe src='{desk.origin}/ui'></iframe>"
    desk.page.goto(f"{other}/")
    _, frame = desk.page.frames

    assert "chrome-error://chromewebdata/" == frame.evaluate("location.href")


def test_signing_in_as_somebody_else(
    hall: Hall, elsewhere: Elsewhere, other: str
) -> None:
    """
    A cross-site sign-in form is rejected.
    """
    desk = hall.desk(certificate_of="ada")
    desk.open("/ui/sign-in")
    elsewhere.pages["/"] = form(
        f"{desk.origin}/ui/sign-in", token=hall.token("olga"), form_token="guessed"
    )
    with desk.page.expect_navigation(url=f"{desk.origin}/**") as navigation:
        desk.page.goto(f"{other}/")

    assert navigation.value is not None
    assert navigation.value.status in {401, 403}
    assert not is_signed_in(desk)


def test_certificate_alone_signs_nobody_in(
    hall: Hall, elsewhere: Elsewhere, other: str
) -> None:
    """
    A cross-site certificate sign-in is rejected.
    """
    desk = hall.desk(certificate_of="ada")
    elsewhere.pages["/"] = form(f"{desk.origin}/ui/sign-in", how="certificate")
    with desk.page.expect_navigation(url=f"{desk.origin}/**") as navigation:
        desk.page.goto(f"{other}/")

    assert navigation.value is not None
    assert navigation.value.status in {401, 403}
    assert not is_signed_in(desk)


def test_link(desk: Desk, elsewhere: Elsewhere, other: str) -> None:
    """
    A cross-site link opens its page.
    """
    elsewhere.pages["/"] = f"<a href='{desk.origin}/ui'>console</a>"
    desk.page.goto(f"{other}/")
    desk.page.get_by_role("link").click()

    expect(desk.page.get_by_role("heading", name="Overview", level=1)).to_be_visible()
