# SPDX-License-Identifier: MIT
"""Filters of a view of the trail: by what was answered, and by time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

import hsm_core
from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.handlers.audit import KINDS
from hsm_core._internal.policy.facts import SystemPrincipal
from hsm_core._internal.time.clock import instant
from hsm_core.factory import OpenHSM
from hsm_core.model import AuditEvent, Phase, Role
from hsm_core.testing import FakeClock, caller, memory_hsm
from tests.support import REPOSITORY


@pytest.fixture
def clock() -> FakeClock:
    """Give a clock that stands still."""
    return FakeClock()


@pytest.fixture
def gateway(clock: FakeClock) -> Iterator[OpenHSM]:
    """Give an HSM whose trail has a key, an error, and an hour between the two."""
    with memory_hsm(clock=clock) as opened:
        person = opened.act_as(caller(Role.ADMINISTRATOR, principal="ann"))
        person.execute(ops.CreateKey(algorithm="ed25519", name="signer"))
        clock.advance(3600)
        with pytest.raises(errors.KeyNotFoundError):
            person.execute(ops.RotateKey(key_id="nothing"))
        yield opened


def shown(gateway: OpenHSM, wanted: ops.ListAuditEvents) -> list[AuditEvent]:
    """Return what an auditor is shown of what ann did."""
    auditor = gateway.act_as(caller(Role.AUDITOR, principal="carl"))
    events = [entry.event for entry in auditor.execute(wanted).items]
    return [e for e in events if e.caller and e.caller.principal == "ann"]


def test_what_was_answered_with_a_code(gateway: OpenHSM) -> None:
    """An intent is not an answer, though no error stands in it."""
    good = shown(gateway, ops.ListAuditEvents(code="ok"))
    bad = shown(gateway, ops.ListAuditEvents(code="key_not_found"))

    assert [("CreateKey", Phase.OUTCOME)] == [(e.kind, e.phase) for e in good]
    assert ["RotateKey"] == [e.kind for e in bad]


def test_what_failed(gateway: OpenHSM) -> None:
    """Whatever the error was, it is shown, and nothing else is."""
    found = shown(gateway, ops.ListAuditEvents(failed=True))

    assert ["key_not_found"] == [event.code for event in found]
    assert [] == shown(gateway, ops.ListAuditEvents(failed=True, code="ok"))


def test_when_it_was(gateway: OpenHSM, clock: FakeClock) -> None:
    """The beginning belongs to the time that is asked for, the end does not."""
    now = instant(clock.now())
    hour = timedelta(hours=1)

    late = shown(gateway, ops.ListAuditEvents(since=now))
    early = shown(gateway, ops.ListAuditEvents(until=now))
    between = ops.ListAuditEvents(since=now - hour, until=now)
    never = ops.ListAuditEvents(since=now + hour)

    assert ["RotateKey"] == [event.kind for event in late]
    assert {"CreateKey"} == {event.kind for event in early}
    assert early == shown(gateway, between)
    assert [] == shown(gateway, never)


def test_several_kinds(gateway: OpenHSM) -> None:
    """Records of any of the kinds are shown, and no others."""
    kinds = ("CreateKey", "RotateKey")

    assert ["RotateKey", "CreateKey", "CreateKey"] == [
        event.kind for event in shown(gateway, ops.ListAuditEvents(kind=kinds))
    ]
    assert {"CreateKey"} == {
        event.kind for event in shown(gateway, ops.ListAuditEvents(kind=kinds[:1]))
    }


@pytest.mark.parametrize(
    ("kind", "near"),
    [("sgin", "Sign"), ("sign", "Sign"), ("system.strat", "system.start"), ("%", "")],
)
def test_a_kind_that_there_is_not(gateway: OpenHSM, kind: str, near: str) -> None:
    """An empty page would say that nothing of the sort has happened."""
    for operation in (
        ops.ListAuditEvents(kind=("Sign", kind)),
        ops.ListApprovals(kind=kind),
    ):
        with pytest.raises(
            errors.InvalidInputError, match=f"no kind '{kind}'"
        ) as caught:
            gateway.act_as(caller()).execute(operation)
        assert "kind" == caught.value.facts["field"]
        if isinstance(operation, ops.ListAuditEvents):
            assert near in str(caught.value)


def test_a_code_that_there_is_not(gateway: OpenHSM) -> None:
    """It is refused; codes of requests that were no operation are known."""
    auditor = gateway.act_as(caller())
    with pytest.raises(
        errors.InvalidInputError, match=r"no code 'acces_denied'.*access_denied"
    ):
        auditor.execute(ops.ListAuditEvents(code="acces_denied"))
    for code in ("route_not_found", "recovered-aborted", "aborted"):
        assert () == auditor.execute(ops.ListAuditEvents(code=code)).items


def test_every_kind_that_is_written_is_known() -> None:
    """A kind that the HSM writes can be asked for, and stands in the reference."""
    found = set()
    for path in Path(hsm_core.__file__).parent.rglob("*.py"):
        found |= set(re.findall(r'"(system\.[a-z-]+)"', path.read_text()))
    # Two are of the ledger alone, the others are names of callers.
    found -= {"system.ledger-begun", "system.resumed"}
    found -= {"system.recovery", *SystemPrincipal}
    known = {kind for kind in KINDS if kind.startswith("system.")}
    page = (REPOSITORY / "docs/reference/formats-audit.md").read_text()

    assert found == known
    assert not {kind for kind in known if f"`{kind}`" not in page}


@pytest.mark.parametrize("reference", ["nothing", 'a"b\\c', "\N{SNOWMAN}", "%"])
def test_of_one_key(gateway: OpenHSM, reference: str) -> None:
    """Records about a key are found by what it was called, however that is written."""
    person = caller(Role.ADMINISTRATOR, principal="ann")
    gateway.record_refusal(person, "invalid_input", kind="Sign", key_id=reference)
    refused = shown(gateway, ops.ListAuditEvents(key_id=reference))
    made = shown(gateway, ops.ListAuditEvents(key_id="signer"))

    assert {reference} == {event.key_id for event in refused}
    assert "Sign" in {event.kind for event in refused}
    assert {"CreateKey"} == {event.kind for event in made}


@pytest.mark.parametrize("name", ['x","code":"ok', "a\\", "\N{SNOWMAN}"])
def test_of_one_principal(gateway: OpenHSM, name: str) -> None:
    """Whoever has a name made to mislead is found by it, and by nothing in it."""
    stranger = caller(Role.OPERATOR, principal=name)
    gateway.record_refusal(stranger, "invalid_input", kind="Sign")
    auditor = gateway.act_as(caller(Role.AUDITOR, principal="carl"))
    theirs = auditor.execute(ops.ListAuditEvents(principal=name)).items
    good = auditor.execute(ops.ListAuditEvents(code="ok", kind=("Sign",))).items

    assert ["invalid_input"] == [entry.event.code for entry in theirs]
    assert () == good
