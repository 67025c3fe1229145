# SPDX-License-Identifier: MIT
"""Sign-in by client certificate and by OpenID Connect provider."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from hsm_server.identity.oidc_config import RETURN_PATH
from tests.browser.conftest import OPTIONAL
from tests.browser.hall import Desk, Hall
from tests.browser.test_signing_in import SESSION
from tests.e2e.retention_site import RetentionSite
from tests.server.oidc_issuer import CLIENT_ID, CLIENT_SECRET, OIDCIssuer
from tests.support import free_port

POLICY = """
version: 1
extends: default
identities:
  - principal: vera
    roles: [Auditor]
    certificate_subjects: ["CN=vera"]
"""


def private(path: Path, text: str) -> Path:
    """Write a file with mode 0600."""
    path.touch(mode=0o600)
    path.write_text(text)
    return path


@pytest.mark.parametrize("auth", ["optional", "required"])
def test_by_certificate(
    hall_of: Callable[..., Hall], tmp_path: Path, auth: str
) -> None:
    """
    A certificate known to the policy signs in and is bound to the session.
    """
    policy = private(tmp_path / "policy.yaml", POLICY)
    hall = hall_of(
        *("--isolation", "inline", "--client-auth", auth),
        *("--client-cert-identities", "--policy-config", str(policy)),
    )
    desk = hall.desk(certificate_of="vera")
    page = desk.open("/ui/sign-in")
    desk.check()
    page.get_by_role("button", name="Sign in with this certificate").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    expect(page.get_by_text("vera", exact=True)).to_be_visible()
    desk.check()
    other = hall.desk(certificate_of="olga")
    other.context.add_cookies(
        [
            {
                "name": str(c.get("name")),
                "value": str(c.get("value")),
                "url": desk.origin,
            }
            for c in desk.context.cookies()
        ]
    )
    other.page.goto(f"{desk.origin}/ui")

    expect(other.page.get_by_role("button", name="Sign out")).to_have_count(0)


def by_provider(hall: Hall, issuer: OIDCIssuer, user: str) -> Desk:
    """Sign in at the provider as a chosen user."""
    desk = hall.desk(certificate_of=user)
    desk.watch.also = {issuer.url}
    desk.expect_refusals(404)  # The provider has no icon.
    travel(desk, user)
    return desk


def travel(desk: Desk, user: str) -> None:
    """Sign in at the provider in a browser as a chosen user."""
    page = desk.open("/ui/sign-in?next=%2Fui%2Fkeys")
    desk.check()
    page.get_by_role("link", name="Sign in with Example ID").click()
    page.get_by_role("button", name=user).click()


def session_of(desk: Desk) -> str:
    """Return the secret of a browser's session."""
    (found,) = [c for c in desk.context.cookies() if c.get("name") == SESSION]
    return found.get("value", "")


def is_signed_in(hall: Hall, session: str) -> bool:
    """Return whether a session cookie is valid in a fresh browser."""
    desk = hall.desk(certificate_of="olga")
    desk.context.add_cookies(
        [{"name": SESSION, "value": session, "url": hall.origin, "secure": True}]
    )
    return desk.open("/ui/keys").url.endswith("/ui/keys")


def test_by_provider(chromium: Browser, tmp_path: Path) -> None:
    """
    The callback signs in and ends the previous session.
    """
    port = free_port()
    redirect = f"https://localhost:{port}{RETURN_PATH}"
    # Under another name it is another site, and strict cookies stay behind.
    with OIDCIssuer(tmp_path / "issuer", redirect, "127.0.0.1") as issuer:
        issuer.people["guest"] = ["staff"]
        site = RetentionSite(tmp_path / "site")
        private(tmp_path / "keys.json", issuer.key_set().decode())
        private(tmp_path / "secret", CLIENT_SECRET)
        config = {
            "issuer": issuer.url,
            "client_id": CLIENT_ID,
            "client_secret_file": "secret",
            "redirect_uri": redirect,
            "ca_bundle": str(issuer.bundle),
            "jwks_file": "keys.json",
            "title": "Example ID",
            "principal_claim": "preferred_username",
            "roles_claim": "groups",
            "roles": {"hsm-operators": "Operator"},
        }
        path = private(tmp_path / "oidc.yaml", json.dumps(config))
        flags = ("--bind", f"127.0.0.1:{port}", "--oidc-config", str(path))
        with site.start(*OPTIONAL, *flags) as server:
            hall = Hall(chromium, site, server)
            desk = by_provider(hall, issuer, "olga")
            heading = desk.page.get_by_role("heading", name="Keys", level=1)
            expect(heading).to_be_visible()
            expect(desk.page.get_by_text("olga", exact=True)).to_be_visible()
            desk.check()
            former = session_of(desk)
            was_signed_in = is_signed_in(hall, former)
            travel(desk, "olga")
            expect(heading).to_be_visible()
            assert [True, False] == [was_signed_in, is_signed_in(hall, former)]
            assert is_signed_in(hall, session_of(desk))
            desk.check()
            guest = by_provider(hall, issuer, "guest")
            guest.expect_refusals(401)
            expect(guest.page.get_by_role("alert")).to_contain_text(
                "does not accept the identity"
            )
            guest.check()
            hall.close()
            assert 0 == server.stop()
            assert CLIENT_SECRET not in server.output
