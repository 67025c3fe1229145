# SPDX-License-Identifier: MIT
"""Checks of credentials after authentication, just before a record is written."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from hsm_core.algorithms import Algorithm
from hsm_core.errors import AuthenticationError
from hsm_core.factory import OpenHSM, open_async
from hsm_core.operations import CreateKey, Sign
from hsm_core.protocols import AsyncHSMGateway, Request
from hsm_core.settings import Settings
from hsm_core.testing import caller, memory_hsm
from hsm_server.certificates import certificate_facts
from hsm_server.config.settings import ConsoleSettings, TokenRules
from hsm_server.identity.token_keys import TokenTrust
from hsm_server.vault.access import Reply, Visitor
from hsm_server.vault.gatekeeper import Gatekeeper
from hsm_server.vault.local_vault import LocalVault
from tests.server.ipc_support import OverSockets
from tests.server.support import SECRET, SetClock, claims, mint, until
from tests.server.test_certificates import ANN, OFF_THE_POLICY, policy, put_in_force

NOW = 2_000_000_000.0
TRUST = TokenTrust.of_secret(SECRET, TokenRules())
OTHERS = TokenTrust.of_secret(b"another secret, as long as it must be", TokenRules())
TOKEN = mint(claims(iat=int(NOW), exp=int(NOW) + 300))
BY_TOKEN = Visitor(credential=TOKEN)
FACTS = certificate_facts(ANN.der)
BY_CERTIFICATE = Visitor(certificate=ANN.der)


class Place:
    """An HSM that knows Ann by her certificate, and its gatekeeper."""

    def __init__(self, hsm: OpenHSM) -> None:
        self.hsm = hsm
        self.clock = SetClock(NOW)
        self.gateway: AsyncHSMGateway = open_async(hsm)
        self.keeper = Gatekeeper(
            self.gateway,
            TRUST,
            lambda: None,
            self.clock,
            console=ConsoleSettings(idle_seconds=60),
        )

    def later(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.seconds += seconds


@pytest.fixture
def place() -> Iterator[Place]:
    """Give a place."""
    settings = Settings(certificate_identities=True)
    with memory_hsm(policy=policy(), settings=settings) as hsm:
        yield Place(hsm)


ENDS: dict[str, tuple[Visitor, Callable[[Place], None]]] = {
    "token expired": (BY_TOKEN, lambda place: place.later(3600)),
    "token key withdrawn": (BY_TOKEN, lambda place: place.keeper.use(OTHERS)),
    "certificate expired": (BY_CERTIFICATE, lambda place: place.later(4e9)),
    "certificate unknown": (
        BY_CERTIFICATE,
        lambda place: put_in_force(place.hsm, OFF_THE_POLICY),
    ),
    "certificate with other roles": (
        BY_CERTIFICATE,
        lambda place: put_in_force(place.hsm, policy("Auditor")),
    ),
}


@pytest.mark.parametrize("end", ENDS)
async def test_refused_later(place: Place, end: str) -> None:
    """What would be refused if it were shown again is refused, on any thread."""
    visitor, end_it = ENDS[end]
    place.clock.seconds = NOW if visitor is BY_TOKEN else FACTS.begins_at
    check = place.keeper.authenticate(visitor).check
    check()
    await asyncio.to_thread(check)
    end_it(place)

    with pytest.raises(AuthenticationError):
        check()
    with pytest.raises(AuthenticationError):
        await asyncio.to_thread(check)


async def test_withdrawn_keys_of_others(place: Place) -> None:
    """A change of keys that leaves the token valid refuses nobody."""
    check = place.keeper.authenticate(BY_TOKEN).check
    place.keeper.use(TokenTrust.of_secret(SECRET, TokenRules()))
    check()


SESSION_ENDS: dict[str, Callable[[Place, Visitor], None]] = {
    "idle": lambda place, _: place.later(61),
    "ended": lambda place, _: place.keeper.on_clock_reset(),
    "its token key withdrawn": lambda place, _: place.keeper.use(OTHERS),
}


@pytest.mark.parametrize("end", SESSION_ENDS)
async def test_ended_session(place: Place, end: str) -> None:
    """A session counts until it ends, and the check does not prolong it."""
    keeper = place.keeper
    signed_in = await keeper.sign_in(BY_TOKEN, await keeper.admit(BY_TOKEN))
    visitor = Visitor(session=signed_in.session)
    check = keeper.authenticate(visitor).check
    for _ in range(2):
        place.later(29)
        check()
    SESSION_ENDS[end](place, visitor)

    with pytest.raises(AuthenticationError):
        check()


class Watched:
    """A gateway that lets a token expire once requests are begun."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def __getattr__(self, name: str) -> Any:
        return getattr(self._place.gateway, name)

    def execute_many(self, requests: list[Request]) -> list[asyncio.Future[Any]]:
        """Begin requests, an hour later."""
        self._place.later(3600)
        return self._place.gateway.execute_many(requests)


@pytest.fixture(params=["inline", "process"])
async def vault(
    request: pytest.FixtureRequest, place: Place
) -> AsyncIterator[LocalVault | Any]:
    """Give a vault whose callers' tokens expire between authentication and record."""
    gateway: Any = Watched(place)
    with contextlib.ExitStack() as stack:
        if request.param == "inline":
            yield LocalVault(gateway, place.keeper)
            return
        over = OverSockets()
        stack.callback(over.close)
        yield over(gateway, place.keeper)


async def test_each_way_is_checked(vault: Any, place: Place) -> None:
    """Uses and changes that were begun in time are refused at their record."""
    admin = place.hsm.act_as(caller())
    made = CreateKey(algorithm=Algorithm.ED25519, name="signer")
    key_id = admin.execute(made).key_id
    sign = Sign(key_id=key_id, message=b"m")
    for operation in (sign, CreateKey(algorithm=Algorithm.ED25519)):
        place.clock.seconds = NOW
        with pytest.raises(AuthenticationError):
            await vault.execute(
                BY_TOKEN, operation, idempotency_key=None, known=lambda _: None
            )
    place.clock.seconds = NOW
    replies: list[Reply] = []
    assert vault.begin(BY_TOKEN, sign, replies.append) is not None
    await until(lambda: replies)

    assert isinstance(replies[0].error, AuthenticationError)
