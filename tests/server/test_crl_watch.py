# SPDX-License-Identifier: MIT
"""Revocation lists that are out of date, or soon will be."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from io import StringIO
from typing import Any, Final

import msgspec
import pytest

from hsm_server.config.settings import LogFormat, LogLevel
from hsm_server.config.tls import StatusCheck
from hsm_server.observability.logs import make_logger
from hsm_server.observability.metrics import Metrics
from hsm_server.tls.sources import ExpiryWatch
from hsm_server.tls.state import ActiveState, Alarms, ClientRules, TLSState
from tests.pki import SERVER, self_signed_root
from tests.server.ocsp_support import FakeClock, settle
from tests.server.tls_support import s_client, serving, state_of

ROOT: Final = self_signed_root("clients")
SHOWN: Final = ROOT.issue("localhost", use=SERVER)
HOURS: Final = 3600
PART: Final = "client_crl"


class Place:
    """A state with a list that ends in ten hours, and who watches it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.out = StringIO()
        logger = make_logger(self.out, LogLevel.DEBUG, LogFormat.JSON)
        self.alarms = Alarms(logger, Metrics())
        self.active = ActiveState(
            state_of(SHOWN.pair, client=rules(timedelta(hours=10))), self._publish
        )
        self.watch = ExpiryWatch(self.alarms, logger, self.clock)

    async def _publish(self, state: TLSState) -> None:
        """Stand in for who serves."""

    @contextlib.asynccontextmanager
    async def work(self) -> AsyncIterator[None]:
        """Let it watch."""
        task = asyncio.create_task(self.watch.run(self.active))
        await settle()
        try:
            yield
        finally:
            assert not task.done(), task
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @property
    def warnings(self) -> list[dict[str, Any]]:
        """What was logged of lists that will end."""
        lines = map(json.loads, self.out.getvalue().splitlines())
        return [line for line in lines if line["event"] == "revocation list ends soon"]


def rules(end: timedelta, check: StatusCheck = StatusCheck.OFF) -> ClientRules:
    """Return rules with a list that ends so long from now."""
    return ClientRules(
        authorities=(ROOT.der,),
        revocation_lists=(ROOT.revocation_list(end=end),),
        status_check=check,
    )


async def test_list_that_ends() -> None:
    """It is told once before, and alarms when it has ended, until there is another."""
    place = Place()
    async with place.work():
        await place.clock.advance(8 * HOURS)
        assert [] == place.warnings
        await place.clock.advance(1.9 * HOURS)
        assert 1 == len(place.warnings)
        assert {} == place.alarms.reasons
        await place.clock.advance(0.2 * HOURS)
        assert "expired at" in place.alarms.reasons[PART]
        newer = rules(timedelta(hours=40))
        await place.active.change(lambda state: with_client(state, newer))
        await settle()
        assert {} == place.alarms.reasons
    assert 1 == len(place.warnings)


async def test_reload_and_no_lists() -> None:
    """A reload looks at once; where there are no lists, nothing is wrong."""
    place = Place()
    place.clock.at += timedelta(hours=11)
    await place.watch.reload(place.active)
    assert PART in place.alarms.reasons
    await place.active.change(lambda state: with_client(state, None))
    await place.watch.reload(place.active)

    assert {} == place.alarms.reasons


async def test_a_list_of_no_client_ca() -> None:
    """It is an alarm until it is removed, as after its CA was withdrawn."""
    place = Place()
    stranger = self_signed_root("A stranger").revocation_list()
    lists = (ROOT.revocation_list(), stranger)
    orphaned = ClientRules(authorities=(ROOT.der,), revocation_lists=lists)
    await place.active.change(lambda state: with_client(state, orphaned))
    await place.watch.reload(place.active)
    during = place.alarms.reasons
    mended = msgspec.structs.replace(orphaned, revocation_lists=lists[:1])
    await place.active.change(lambda state: with_client(state, mended))
    await place.watch.reload(place.active)

    assert "of CN=A stranger is from no CA of --client-ca" in during[PART]
    assert {} == place.alarms.reasons


def with_client(state: TLSState, client: ClientRules | None) -> TLSState:
    """Return a state with other rules about clients."""
    return msgspec.structs.replace(state, client=client)


@pytest.mark.parametrize("check", StatusCheck)
def test_clients_under_a_list_that_has_ended(
    check: StatusCheck, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """They are refused, whatever OCSP is asked, and are told so by an alert."""
    client = ROOT.issue("client")
    cert, key = map(str, client.write(tmp_path_factory.mktemp("client"), "client"))
    state = state_of(SHOWN.pair, client=rules(-timedelta(minutes=1), check))
    with serving(state, "asyncio") as server:
        sent = s_client(server, "-cert", cert, "-key", key)

    assert "HTTP/1.1" not in sent.output
    assert "alert" in sent.errors
