# SPDX-License-Identifier: MIT
"""Lines that a view of the trail skips unread: none that it would have shown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsm_core._internal.audit.reading import Prefilter
from hsm_core._internal.audit.record import FRAME, decode_event, encode_event
from hsm_core._internal.lib import encoding
from hsm_core.model import AuditedCaller, AuditedKey, AuditEvent, Phase
from hsm_core.operations import ListAuditEvents

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
    """Return the stored form of an event, with a MAC that nobody looks at."""
    payload = encode_event(event)
    assert decode_event(payload) == event
    return encoding.join(FRAME, payload, bytes(32))


def event(**fields: Any) -> AuditEvent:
    """Return an event; *principal* and *name* are of the caller and the key."""
    principal, name = fields.pop("principal", None), fields.pop("name", "")
    usual: dict[str, Any] = {"phase": Phase.SINGLE, "kind": "Sign", "code": "ok"}
    usual["time"] = 1
    return AuditEvent(
        format=1,
        log_id="0" * 32,
        seq=3,
        prev="a" * 64,
        epoch=1,
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
    node=_TEXTS,
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
) -> Prefilter:
    """Return the sieve of a view that knows its key."""
    made = Prefilter(view, since, until)
    made.learn_keys({view.key_id})
    return made


@settings(max_examples=200, deadline=None)
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
    "intent": ({"failed": True}, {"phase": Phase.INTENT, "code": ""}),
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

    assert view.lets_through(line_of(event(time=2)).replace(b'"format"', b'"f0rmat"'))


def test_text_that_is_no_unicode() -> None:
    """Half of a surrogate pair stands in no record, and is no reason to fail."""
    assert sieve(ListAuditEvents(principal="\ud800")).lets_through(line_of(event()))
