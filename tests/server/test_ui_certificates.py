# SPDX-License-Identifier: MIT
"""Sessions by client certificate, and sessions bound to one."""

from collections.abc import Iterator

import msgspec
import pytest

from hsm_core.errors import AuthenticationError
from hsm_core.factory import open_async
from hsm_core.model import Role
from hsm_core.policies import parse_policy
from hsm_core.settings import Settings
from hsm_core.testing import memory_hsm
from hsm_server.config.settings import TokenRules
from hsm_server.identity.clock import FlooredClock
from hsm_server.identity.token_keys import TokenTrust
from hsm_server.vault.access import How, Visitor
from hsm_server.vault.gatekeeper import Gatekeeper
from tests.pki import self_signed_root
from tests.server.support import SECRET, mint
from tests.server.ui_support import open_browser

ROOT = self_signed_root("Root")
ANN, EVE = ROOT.issue("ann"), ROOT.issue("eve")
POLICY = parse_policy(
    "version: 1\nextends: default\nidentities:\n"
    "  - {principal: ann, roles: [Operator], certificate_subjects: ['CN=ann']}"
)
OTHER_SECRET = b"tests only: another one of 32 bytes"


@pytest.fixture
def failures() -> list[None]:
    """Return the failure counter."""
    return []


@pytest.fixture
def keeper(failures: list[None]) -> Iterator[Gatekeeper]:
    """Return the authentication of Ann by certificate alone."""
    settings = Settings(certificate_identities=True)
    with memory_hsm(policy=POLICY, settings=settings) as hsm:
        yield Gatekeeper(
            open_async(hsm),
            TokenTrust.of_secret(SECRET, TokenRules()),
            lambda: failures.append(None),
            FlooredClock(),
        )


async def begin(keeper: Gatekeeper, visitor: Visitor) -> str:
    """Sign in and return the session's secret."""
    signed_in = await keeper.sign_in(visitor, await keeper.admit(visitor))
    return signed_in.session


async def test_a_certificate_begins_a_session(keeper: Gatekeeper) -> None:
    """A certificate session lasts while the certificate is sent."""
    secret = await begin(keeper, Visitor(certificate=ANN.der))

    who = keeper.who(Visitor(session=secret, certificate=ANN.der))

    assert ("ann", (Role.OPERATOR,)) == (who.principal, who.roles)
    assert (How.CERTIFICATE, "CN=ann") == (who.how, who.certificate_subject)


@pytest.mark.parametrize("shown", [b"", EVE.der], ids=["none", "another"])
@pytest.mark.parametrize("credential", ["", "token"])
async def test_a_stolen_cookie_is_worth_nothing(
    keeper: Gatekeeper, failures: list[None], shown: bytes, credential: str
) -> None:
    """A session is bound to the certificate of its sign-in."""
    token = mint() if credential else ""
    secret = await begin(keeper, Visitor(credential=token, certificate=ANN.der))

    with pytest.raises(AuthenticationError):
        await keeper.admit(Visitor(session=secret, certificate=shown))

    assert [None] == failures
    whole = Visitor(session=secret, certificate=ANN.der)
    assert keeper.who(whole).principal in {"ann", "alice"}


async def test_a_key_that_is_gone_ends_its_sessions(
    keeper: Gatekeeper, failures: list[None]
) -> None:
    """A session's credential is verified again with the current keys."""
    secret = await begin(keeper, Visitor(credential=mint()))
    keeper.use(TokenTrust.of_secret(OTHER_SECRET, TokenRules()))

    with pytest.raises(AuthenticationError):
        await keeper.admit(Visitor(session=secret))

    assert [] == failures
    keeper.use(TokenTrust.of_secret(SECRET, TokenRules()))
    with pytest.raises(AuthenticationError):
        await keeper.admit(Visitor(session=secret))


async def test_a_session_and_a_credential_are_no_visitor(keeper: Gatekeeper) -> None:
    """A visitor can't choose between two identities."""
    secret = await begin(keeper, Visitor(credential=mint()))

    with pytest.raises(AuthenticationError):
        await keeper.admit(Visitor(session=secret, credential=mint()))


async def test_a_session_begins_no_other(keeper: Gatekeeper) -> None:
    """A new sign-in does not extend the absolute time-out."""
    secret = await begin(keeper, Visitor(credential=mint()))

    with pytest.raises(AuthenticationError):
        await begin(keeper, Visitor(session=secret))


async def test_an_unused_look_is_no_use(keeper: Gatekeeper) -> None:
    """Background requests are authenticated."""
    secret = await begin(keeper, Visitor(credential=mint()))

    quiet = msgspec.structs.replace(Visitor(session=secret), is_background=True)

    assert "alice" == keeper.who(quiet).principal


async def test_the_button_needs_a_certificate() -> None:
    """Without a certificate, certificate sign-in is not offered and fails."""
    async with open_browser() as browser:
        page = await browser.get("/ui/sign-in")
        shown = await browser.submit(page, "/ui/sign-in", {"how": "certificate"})

    assert "this client certificate" not in page.words
    assert 401 == shown.status
