# SPDX-License-Identifier: MIT
"""Filters of a view of the log, and the lines that it skips unread."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import hsm_core
from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.audit.reading import EventFilter
from hsm_core._internal.audit.record import RecordCodec, event_of
from hsm_core._internal.handlers.audit import KINDS
from hsm_core._internal.policy.facts import SystemPrincipal
from hsm_core._internal.time.clock import instant
from hsm_core.factory import OpenHSM
from hsm_core.model import AuditedCaller, AuditedKey, AuditEvent, Phase, Role
from hsm_core.operations import ListAuditEvents
from hsm_core.protocols import AuditDraft
from hsm_core.testing import FakeClock, FakeEntropy, caller, memory_hsm
from tests.core.audit_support import stored
from tests.support import REPOSITORY


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


_PLAIN = ("ann", "Sign", "ok", "key_not_found", "")
_HOSTILE = (
    'x","code":"ok',
    'ok"',
    '","caller":{"principal":"ann"}',
    "a\\",
    'a\\"b',
    "\\u0061nn",
    "line\nbreak",
    "\x7f\x80",
    "\N{SNOWMAN}",
    "\N{GRINNING FACE}",
    "\u2028",
    "a/b",
    "<ann>",
)
_TEXTS = st.one_of(
    st.sampled_from(_PLAIN), st.sampled_from(_HOSTILE), st.text(max_size=6)
)
_TIMES = st.integers(0, 3)


def line_of(event: AuditEvent) -> bytes:
    """Return the record of an event."""
    names = set(AuditDraft.__struct_fields__) & set(AuditEvent.__struct_fields__)
    draft = AuditDraft(**{name: getattr(event, name) for name in names})
    codec = RecordCodec("0" * 32, bytes(32), FakeEntropy(0).random_bytes)
    record = stored(codec.encode(draft, event.seq, event.prev, event.time)[0])
    found = event_of(record, event.seq)
    assert all(getattr(found, name) == getattr(event, name) for name in names)
    return record


def event(**fields: Any) -> AuditEvent:
    """Return an event; *principal* and *name* are of the caller and the key."""
    principal, name = fields.pop("principal", None), fields.pop("name", "")
    usual: dict[str, Any] = {"phase": Phase.SINGLE, "kind": "Sign", "code": "ok"}
    usual["time"] = 1
    return AuditEvent(
        format=2,
        seq=3,
        prev="a" * 64,
        caller=None if principal is None else AuditedCaller(principal=principal),
        key=AuditedKey(algorithm="ed25519", name=name, owner=name),
        **usual | fields,
    )


EVENTS = st.builds(
    event,
    phase=st.sampled_from(Phase),
    kind=_TEXTS,
    code=_TEXTS,
    time=_TIMES,
    principal=st.none() | _TEXTS,
    key_id=_TEXTS,
    name=_TEXTS,
    operation_id=st.just("1"),
    request_id=_TEXTS,
)
VIEWS = st.builds(
    ListAuditEvents,
    principal=_TEXTS,
    kind=st.lists(_TEXTS, max_size=2).map(tuple),
    code=st.just("") | _TEXTS,
    key_id=st.just("") | _TEXTS,
    failed=st.booleans(),
)


def is_wanted(
    found: AuditEvent, view: ListAuditEvents, since: int | None, until: int | None
) -> bool:
    """Return whether a view shows an event: by its fields alone."""
    code = "" if found.phase is Phase.INTENT else found.code
    principal = found.caller.principal if found.caller else ""
    wanted = (view.principal, view.code, view.key_id)
    present = (principal, code, found.key_id)
    return (
        all(want in ("", have) for want, have in zip(wanted, present, strict=True))
        and (not view.kind or found.kind in view.kind)
        and not (view.failed and code in ("", "ok"))
        and (since is None or since <= found.time)
        and (until is None or found.time < until)
    )


def sieve(
    view: ListAuditEvents, since: int | None = None, until: int | None = None
) -> EventFilter:
    """Return the sieve of a view that knows its key."""
    made = EventFilter(view, since, until)
    made.learn_keys({view.key_id})
    return made


@settings(max_examples=200, deadline=None)
@example(event(phase=Phase.OUTCOME, code='"'), ListAuditEvents(failed=True), None, None)
@given(EVENTS, VIEWS, st.none() | _TIMES, st.none() | _TIMES)
def test_nothing_is_missed(
    found: AuditEvent, view: ListAuditEvents, since: int | None, until: int | None
) -> None:
    """Whatever stands in its texts, what a view would show is looked at."""
    if is_wanted(found, view, since, until):
        assert sieve(view, since, until).lets_through(line_of(found))


@settings(max_examples=100, deadline=None)
@given(EVENTS, st.none() | _TIMES, st.none() | _TIMES)
def test_its_own_texts_find_it(
    found: AuditEvent, since: int | None, until: int | None
) -> None:
    """A view that names what stands in a record gets it, within its time."""
    view = ListAuditEvents(
        principal=found.caller.principal if found.caller else "",
        kind=(found.kind,),
        code="" if found.phase is Phase.INTENT else found.code,
        key_id=found.key_id,
    )
    if is_wanted(found, view, since, until):
        assert sieve(view, since, until).lets_through(line_of(found))


_SKIPPED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "principal": ({"principal": "bob"}, {}),
    "kind": ({"kind": ("Verify", "Open")}, {}),
    "code": ({"code": "key_not_found"}, {}),
    "key": ({"key_id": "other"}, {}),
    "good": ({"failed": True}, {}),
    "intent": (
        {"failed": True},
        {"phase": Phase.INTENT, "code": "", "operation_id": "1"},
    ),
    "escaped": ({"code": "key_not_found"}, {"principal": 'x","code":"key_not_found'}),
}


@pytest.mark.parametrize("case", _SKIPPED)
def test_what_is_skipped(case: str) -> None:
    """A record of somebody or something else is not looked at."""
    wanted, written = _SKIPPED[case]
    line = line_of(event(**{"principal": "ann", "key_id": "mine"} | written))

    assert not sieve(ListAuditEvents(**wanted)).lets_through(line)


@pytest.mark.parametrize(("since", "until"), [(2, None), (None, 1), (2, 3), (0, 0)])
def test_other_times_are_skipped(since: int | None, until: int | None) -> None:
    """A record before the beginning, or at the end or after it, is not looked at."""
    assert not sieve(ListAuditEvents(), since, until).lets_through(line_of(event()))


def test_damage_is_looked_at() -> None:
    """Where a head can't be read, the record is; so that the damage comes to light."""
    view = sieve(ListAuditEvents(failed=True), since=2)

    assert view.lets_through(line_of(event(time=2)).replace(b'"kind"', b'"k1nd"'))


def test_text_that_is_no_unicode() -> None:
    """Half of a surrogate pair stands in no record, and is no reason to fail."""
    assert sieve(ListAuditEvents(principal="\ud800")).lets_through(line_of(event()))
