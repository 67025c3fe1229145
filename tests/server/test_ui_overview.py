# SPDX-License-Identifier: MIT
"""Overview page: status, live part and charts."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from hsm_core.errors import AuditUnavailableError
from hsm_core.model import ApprovalDemand, Role
from hsm_core.operations import HSMStatus, Status
from hsm_core.testing import Faults, caller, memory_hsm
from hsm_server.observability.metrics import Figures
from hsm_server.ui.overview import (
    Card,
    FigureSampler,
    cards,
    chart,
    concern,
    pending_for,
    providers,
)
from hsm_server.vault.access import How, Who
from tests.server.ui_support import SESSION, Browser, open_browser

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def figures(status: HSMStatus | None = None, **changes: object) -> Figures:
    """Return the changed figures of an idle server."""
    idle = Figures(
        uptime_seconds=90061.0,
        status=status,
        operations={},
        failures={},
        operations_per_second=0.0,
        mean_seconds=0.0,
        jwt_failures=0,
        rate_allowed=0,
        rate_blocked=0,
        rate_buckets=0,
        unexpected=0,
        certificates={},
        staples={},
        handshakes={},
    )
    return msgspec.structs.replace(idle, **changes)


@pytest.fixture(scope="module")
def status() -> HSMStatus:
    """Return the status of a healthy HSM."""
    with memory_hsm() as hsm:
        return hsm.act_as(caller()).execute(Status())


def shown(found: Sequence[Card]) -> dict[str, tuple[object, str]]:
    """Return value and tone of every row, by title and label."""
    return {
        f"{card.title}: {row.label}": (row.value, row.kind)
        for card in found
        for row in card.rows
    }


def test_healthy(status: HSMStatus) -> None:
    """A healthy HSM has no alert and only good badges."""
    rows = shown(cards(figures(status), NOW))

    assert "" == concern(status)
    assert ("operational", "ok") == rows["Health: State"]
    assert ("unlocked", "ok") == rows["Health: Seal"]
    assert "ok" == rows["Health: Integrity"][1]
    assert ("1 d 1 h", "") == rows["Server: Uptime"]
    assert not {"bad", "warn"} & {kind for _, kind in rows.values()}


def test_failing_audit_log(status: HSMStatus) -> None:
    """An audit log that can't be written is the top alert."""
    audit = msgspec.structs.replace(
        status.audit, available=False, state="failing", cause="full"
    )
    failing = msgspec.structs.replace(status, state="degraded", audit=audit)

    assert "audit log can't be written (full)" in concern(failing)
    rows = shown(cards(figures(failing), NOW))
    assert ("failing", "bad") == rows["Audit log and stores: Audit log"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": "locked"}, "locked"),
        ({"state": "error"}, "error state"),
        ({"tampered_keys": 1}, "1 key was altered"),
        ({"tampered_keys": 2}, "2 keys were altered"),
        ({"state": "degraded"}, "with problems"),
    ],
    ids=["locked", "error", "one key", "two keys", "degraded"],
)
def test_alerts(status: HSMStatus, changes: dict[str, object], words: str) -> None:
    """Each problem has one sentence."""
    assert words in concern(msgspec.structs.replace(status, **changes))


def test_full_audit_disk(status: HSMStatus) -> None:
    """A full audit disk differs from a failed audit log."""
    audit = msgspec.structs.replace(status.audit, state="reserve", cause="full")
    full = msgspec.structs.replace(status, state="degraded", audit=audit)

    assert "disk is full" in concern(full)
    rows = shown(cards(figures(full), NOW))
    assert ("reserve", "bad") == rows["Audit log and stores: Audit log"]


def test_silent_vault() -> None:
    """Without a vault process, only front-end figures are shown."""
    assert "does not respond" in concern(None)
    assert {"Rate limiter", "Requests", "TLS", "Server"} == {
        card.title for card in cards(figures(None), NOW)
    }


@pytest.mark.parametrize(
    ("days", "kind"), [(-1, "bad"), (0, "bad"), (13, "warn"), (15, "ok")]
)
def test_expiring_certificate(days: int, kind: str) -> None:
    """A certificate is marked two weeks before it expires."""
    ends = {"ecdsa": NOW + timedelta(days=days)}

    rows = shown(cards(figures(None, certificates=ends), NOW))

    assert kind == rows["TLS: Certificate (ecdsa)"][1]


def test_failed_self_test(status: HSMStatus) -> None:
    """A failed self-test is shown at its provider."""
    first, *others = (a for a in status.algorithms if a.provider)
    stopped = msgspec.structs.replace(first, status="stopped")

    found = providers([stopped, *others])

    failed = {name: names for name, _, _, names in found if names}
    assert {first.provider: [first.algorithm.value]} == failed
    assert 1 + len(others) == sum(number for _, _, number, _ in found)


def test_requests_that_others_decide() -> None:
    """Own, decided and other roles' requests are excluded."""
    alice = Who(principal="alice", roles=("Operator",), how=How.TOKEN, until=0.0)
    mine, other, foreign = (
        _approval(requester="alice"),
        _approval(requester="bob"),
        _approval(requester="bob", roles=(Role.AUDITOR,)),
    )

    assert [other] == list(pending_for(alice, [mine, other, foreign]))


class _Operation(msgspec.Struct):
    requester: str


class _Approval(msgspec.Struct):
    operation: _Operation
    demands: tuple[ApprovalDemand, ...]
    decisions: tuple[()] = ()


def _approval(*, requester: str, roles: tuple[Role, ...] = ()) -> Any:
    return _Approval(_Operation(requester), (ApprovalDemand(rule="r", roles=roles),))


def test_chart() -> None:
    """The newest value is at the right, the maximum at the top."""
    drawn = chart("Things", [0.0, 4.0, 2.0])

    assert ("2.00", "4.00") == (drawn.now, drawn.most)
    assert drawn.line.endswith("240.0,32.0")
    assert ",2.0 " in drawn.line


@pytest.mark.parametrize("values", [[], [3.0]], ids=["none", "one"])
def test_chart_of_one_point(values: list[float]) -> None:
    """One point has no line."""
    assert "" == chart("Things", values).line


def test_chart_of_zeros() -> None:
    """Zeros make a flat line."""
    assert "62.0" in chart("Things", [0.0] * 100).line


class Server:
    """A server with changeable figures and clock."""

    def __init__(self) -> None:
        self.time = 100.0
        self.figures = figures()
        self.asked = 0

    def snapshot(self) -> Figures:
        """Return the figures."""
        self.asked += 1
        return self.figures


async def test_viewers_share_a_sample() -> None:
    """Figures are read once in two seconds, for any number of viewers."""
    server = Server()
    sampler = FigureSampler(server.snapshot, lambda: server.time)

    await asyncio.gather(*(sampler.look() for _ in range(10)))

    assert 1 == server.asked


async def test_rates() -> None:
    """Rates count the operations between samples, without live views."""
    server = Server()
    sampler = FigureSampler(server.snapshot, lambda: server.time)
    await sampler.look()
    server.time += 2.0
    server.figures = figures(operations={"Sign": 8, "live_view": 2}, mean_seconds=0.004)

    await sampler.look()

    ((per_second, milliseconds),) = sampler.rates
    assert (5.0, 4.0) == (per_second, round(milliseconds, 6))


async def test_chart_starts_again_after_a_pause() -> None:
    """After a pause the chart starts again."""
    server = Server()
    sampler = FigureSampler(server.snapshot, lambda: server.time)
    for pause in (2.0, 2.0, 60.0):
        await sampler.look()
        server.time += pause

    await sampler.look()

    assert [] == list(sampler.rates)


@pytest.mark.parametrize("role", [role.value for role in Role])
async def test_every_role_has_an_overview(browser: Browser, role: str) -> None:
    """Every role sees the status and the latest audit record."""
    page = await browser.follow(await browser.sign_in([role]))

    assert 200 == page.status
    head = browser.execute(Status()).audit
    assert head.log_id in page.words
    for words in ("operational", "Rate limiter", "Key cache", "JWT failures", "Uptime"):
        assert words in page.words


async def test_stream_ends_with_the_session(signed_in: Browser) -> None:
    """The live stream ends with the session."""
    async with signed_in.stream("/ui/overview/live") as lines:
        assert "event: part" == await anext(lines)
        await signed_in.submit(await signed_in.get("/ui"), "/ui/sign-out")
        async for _ in lines:
            pass


async def test_stream_needs_a_session(browser: Browser) -> None:
    """The live stream needs a session."""
    browser.cookies[SESSION] = "A" * 43

    shown_page = await browser.get("/ui/overview/live")

    assert 303 == shown_page.status


async def test_sign_in_while_the_audit_log_fails() -> None:
    """Sign-in works while the audit log fails, and the overview shows the failure."""
    faults = Faults()
    async with open_browser(faults=faults) as browser:
        faults.fail_trail("full")
        faults.plan("audit.append", AuditUnavailableError(), times=99)

        page = await browser.follow(await browser.sign_in())

    assert 200 == page.status
    assert "The audit log can't be written (full)" in page.words
    assert 'id="concern" hidden' not in page.text
