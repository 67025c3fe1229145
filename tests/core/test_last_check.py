# SPDX-License-Identifier: MIT
"""The last check: what is recorded still stood when the audit log was locked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.stores.memory.audit import MemoryAuditLog
from hsm_core.factory import OpenHSM
from hsm_core.model import ApprovalState, Phase, Role
from hsm_core.policies import parse_policy
from hsm_core.protocols import Request
from hsm_core.session import Session
from hsm_core.testing import caller, memory_hsm
from tests.core.dual_support import approve
from tests.core.dual_support import ask as ask_for
from tests.core.hsm_support import session_of


def withdrawn() -> None:
    """Refuse a caller whose token has expired meanwhile."""
    raise errors.AuthenticationError("The token has expired.")


def ask(gateway: OpenHSM, operation: ops.Operation[Any], check: Any) -> Any:
    """Execute an operation under an event loop, with a check of the credential."""
    request = Request(caller(), operation, check=check)
    return asyncio.run(_answer(gateway, request))


async def _answer(gateway: OpenHSM, request: Request) -> Any:
    (answer,) = gateway.act_as_async().execute_many([request])
    return await answer


def events_of(gateway: OpenHSM, key_id: str) -> list[tuple[str, Phase, str]]:
    """Return kind, phase and code of the records of a key, oldest first."""
    asked = ops.ListAuditEvents(key_id=key_id, limit=1000, ascending=True)
    page = gateway.act_as(caller()).execute(asked)
    return [(e.event.kind, e.event.phase, e.event.code) for e in page.items]


@pytest.mark.parametrize(
    "operation",
    [
        lambda key: ops.Sign(key_id=key, message=b"m"),
        lambda key: ops.SignBatch(key_id=key, items=(ops.SignItem(message=b"m"),)),
        lambda key: ops.RotateKey(key_id=key),
    ],
)
def test_a_credential_that_ends_while_it_is_used(
    gateway: OpenHSM, session: Session, operation: Callable[[str], Any]
) -> None:
    """The refusal is answered and recorded, and nothing else; a second time, too."""
    key = session.create_key("ed25519").key_id
    asked = operation(key)
    before = len(events_of(gateway, key))

    for _ in range(3):
        with pytest.raises(errors.AuthenticationError, match="expired"):
            ask(gateway, asked, withdrawn)

    refused = (type(asked).__name__, Phase.SINGLE, "authentication_failed")
    assert [refused] * 3 == events_of(gateway, key)[before:]
    assert 1 == session.describe(key).version


def test_a_credential_that_still_counts(gateway: OpenHSM, session: Session) -> None:
    """The check is asked once for each use and each change."""
    key, asked = session.create_key("ed25519").key_id, list[int]()

    for _ in range(3):
        ask(gateway, ops.Sign(key_id=key, message=b"m"), lambda: asked.append(1))
    ask(gateway, ops.RotateKey(key_id=key), lambda: asked.append(1))

    assert 4 == len(asked)


_ASKING = (
    "version: 1\nextends: default\nrules:\n  - {name: asking, effect: "
    "require-approval, match: {operations: [RotateKey]}, approval: {quorum: 1}}\n"
)


@pytest.mark.parametrize(
    ("consent", "is_granted"),
    [
        (lambda name, digest: ops.Approve(approval_id=name, digest=digest), False),
        (lambda name, digest: ops.Approve(approval_id=name, digest=digest), True),
        (lambda name, digest: ops.Deny(approval_id=name, reason="no"), False),
        (lambda name, digest: ops.Withdraw(approval_id=name), True),
    ],
    ids=["approve", "again", "deny", "withdraw"],
)
def test_a_credential_that_ends_before_a_consent(
    consent: Callable[[str, str], ops.Operation[Any]], *, is_granted: bool
) -> None:
    """The consent is refused and recorded as refused; the approval is as it was."""
    ann, grace = caller(principal="ann"), caller(Role.AUDITOR, principal="grace")
    with memory_hsm(policy=parse_policy(_ASKING)) as gateway:
        key, hsm = session_of(gateway).create_key("ed25519"), gateway.act_as(grace)
        request = ask_for(gateway.act_as(ann), ops.RotateKey(key_id=key.key_id))
        look = ops.GetApproval(approval_id=request.approval_id)
        if is_granted:
            approve(hsm, request)
        before = hsm.execute(look)
        asked = consent(request.approval_id, request.digest)

        with pytest.raises(errors.AuthenticationError, match="expired"):
            asyncio.run(_answer(gateway, Request(grace, asked, check=withdrawn)))

        assert before == hsm.execute(look)
        refused = ops.ListAuditEvents(
            kind=(type(asked).__name__,), code="authentication_failed"
        )
        page = gateway.act_as(caller()).execute(refused)
        assert [Phase.SINGLE] == [entry.event.phase for entry in page.items]


def test_a_credential_that_ends_before_a_request_is_cancelled() -> None:
    """The request stays open."""
    ann = caller(principal="ann")
    with memory_hsm(policy=parse_policy(_ASKING)) as gateway:
        key, hsm = session_of(gateway).create_key("ed25519"), gateway.act_as(ann)
        name = ask_for(hsm, ops.RotateKey(key_id=key.key_id)).approval_id
        cancel = Request(ann, ops.CancelApproval(approval_id=name), check=withdrawn)

        with pytest.raises(errors.AuthenticationError, match="expired"):
            asyncio.run(_answer(gateway, cancel))

        found = hsm.execute(ops.GetApproval(approval_id=name))
        assert ApprovalState.PENDING is found.state


def _together(gateway: OpenHSM, requests: list[Request]) -> list[Any]:
    """Return the answers to requests that are recorded together."""

    async def answers() -> list[Any]:
        sent = gateway.act_as_async().execute_many(requests)
        return await asyncio.gather(*sent, return_exceptions=True)

    return asyncio.run(answers())


def test_a_check_that_breaks(gateway: OpenHSM, session: Session) -> None:
    """It refuses its own request, and no other."""
    key = session.create_key("ed25519").key_id

    def breaks() -> None:
        raise ZeroDivisionError

    sign = ops.Sign(key_id=key, message=b"m")
    good, bad = Request(caller(), sign), Request(caller(), sign, check=breaks)
    for _ in range(2):
        first, second, third = _together(gateway, [good, bad, good])

        assert first.signature == third.signature
        assert isinstance(second, ZeroDivisionError)
    codes = [code for kind, _, code in events_of(gateway, key) if kind == "Sign"]
    # Of requests that are executed together, the order of records is no promise.
    assert sorted(["ok", errors.HSMError.code, "ok"] * 2) == sorted(codes)


def test_a_caller_whose_names_are_too_long(gateway: OpenHSM, session: Session) -> None:
    """They are refused, and recorded without the names; nobody else is harmed."""
    key = session.create_key("ed25519").key_id
    sign = ops.Sign(key_id=key, message=b"m")
    names = ("dns:" + "n" * 1020,) * 64
    good = Request(caller(), sign)
    bad = Request(replace(caller(), certificate_names=names), sign)
    for _ in range(2):
        first, second, third = _together(gateway, [good, bad, good])

        assert first.signature == third.signature
        assert isinstance(second, errors.InvalidInputError)
        assert "certificate_names" == second.facts["field"]
    asked = ops.ListAuditEvents(kind=("Sign",), ascending=True)
    page = gateway.act_as(caller()).execute(asked)
    shown = [
        (e.event.code, e.event.parameters.get("caller_left_out")) for e in page.items
    ]
    left_out = ("invalid_input", ["certificate_names"])
    assert sorted([("ok", None)] * 4 + [left_out] * 2, key=str) == sorted(
        shown, key=str
    )


def test_a_change_by_a_caller_whose_names_are_too_long(
    gateway: OpenHSM, session: Session
) -> None:
    """It is refused, too; names that just fit are recorded whole."""
    key = session.create_key("ed25519").key_id
    fits = ("dns:" + "n" * 1020,) * 16
    change = ops.RotateKey(key_id=key)
    gateway.act_as(replace(caller(), certificate_names=fits)).execute(change)
    with pytest.raises(errors.InvalidInputError, match="certificate_names"):
        gateway.act_as(replace(caller(), certificate_names=(*fits, "dns:n"))).execute(
            change
        )

    asked = ops.ListAuditEvents(kind=("RotateKey",), ascending=True)
    page = gateway.act_as(caller()).execute(asked)
    found = [e.event.parameters.get("caller_certificate_names") for e in page.items]
    assert [list(fits), list(fits), None] == found
    assert 2 == session.describe(key).version


def _before_the_next_use(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]
) -> None:
    """Let something happen when a use is computed, and not recorded yet."""
    append, left = MemoryAuditLog.append, [change]

    def late(log: MemoryAuditLog, drafts: Any, /, **how: bool) -> Any:
        if callable(drafts) and left:
            left.pop()()
        return append(log, drafts, **how)

    monkeypatch.setattr(MemoryAuditLog, "append", late)


@pytest.mark.parametrize("is_warm", [False, True])
@pytest.mark.parametrize("change", ["revoke", "suspend", "destroy"])
def test_a_key_that_ends_before_its_use_is_recorded(
    gateway: OpenHSM,
    session: Session,
    change: str,
    *,
    is_warm: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is refused, and in the audit log no use stands behind the end of its key."""
    key = session.create_key("ed25519").key_id
    for _ in range(3 * is_warm):
        session.sign(key, b"m")
    _before_the_next_use(monkeypatch, lambda: getattr(session, change)(key))

    with pytest.raises(errors.KeyStateError):
        session.sign(key, b"m")

    events = events_of(gateway, key)
    ended = max(n for n, event in enumerate(events) if event[1] is Phase.OUTCOME)
    assert [("Sign", Phase.SINGLE, "wrong_state")] == events[ended + 1 :]


@pytest.mark.parametrize("is_warm", [False, True])
@pytest.mark.parametrize("change", ["rotate", "retag"])
def test_a_change_that_ends_no_use(
    gateway: OpenHSM,
    session: Session,
    change: str,
    *,
    is_warm: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A use that was computed before the change is answered, and recorded once."""
    key = session.create_key("ed25519").key_id
    for _ in range(3 * is_warm):
        session.sign(key, b"m")

    def meanwhile() -> None:
        if change == "rotate":
            session.rotate(key)
        else:
            session.update(key, tags=["b"])

    _before_the_next_use(monkeypatch, meanwhile)

    made = session.sign(key, b"m")

    assert made.version == session.verify(key, b"m", made.signature).version
    signed = [event for event in events_of(gateway, key) if event[0] == "Sign"]
    assert [("Sign", Phase.SINGLE, "ok")] * (1 + 3 * is_warm) == signed


def test_a_policy_that_changes_before_a_use_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The policy that is in force by then decides."""
    denying = parse_policy(
        "version: 1\nextends: default\n"
        "rules:\n  - {name: shut, effect: deny, match: {operations: [Sign]}}\n"
    )
    with memory_hsm() as gateway:
        session = session_of(gateway)
        key = session.create_key("ed25519").key_id
        holder = gateway._services.policy  # noqa: SLF001 (the race is in there)
        engine = type(holder.engine)(denying)
        _before_the_next_use(monkeypatch, lambda: holder.replace(engine, 1))

        with pytest.raises(errors.AccessDeniedError, match="shut"):
            session.sign(key, b"m")
