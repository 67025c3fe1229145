# SPDX-License-Identifier: MIT
"""Presentation of keys, choices, inputs and approvals, without a server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hsm_core.algorithms import ALGORITHMS, Family, KeyUsage
from hsm_core.errors import (
    InvalidInputError,
    PayloadTooLargeError,
)
from hsm_core.model import (
    AuditedCaller,
    AuditEntry,
    AuditEvent,
    Integrity,
    KeyId,
    KeyInfo,
    KeyState,
    Phase,
    RotationRule,
    UseInfo,
    VersionInfo,
)
from hsm_core.operations import (
    DestroyKey,
    KeyPage,
    ListAlgorithms,
    RevokeKey,
    RotateKey,
    SetRotation,
    UpdateKey,
)
from hsm_core.testing import caller, memory_hsm
from hsm_server.ui.actions import CONFIRM, KeyWithVersions
from hsm_server.ui.forms import Field, Form, error_message, fill_fields, mark_error
from hsm_server.ui.keys.actions import ACTIONS, offered_actions
from hsm_server.ui.keys.creation import purposes
from hsm_server.ui.keys.pages import build_listing
from hsm_server.ui.keys.presenters import (
    CATEGORIES,
    history_events,
    key_values,
    last_use,
    rotation_words,
    version_dates,
)
from hsm_server.ui.keys.usage import MOST_BYTES, USAGES, read_bytes, shown, usages_for
from hsm_server.ui.rendering import key_title, outcome_badge, state_badge
from hsm_server.vault.access import How, Who

AT = datetime(2026, 3, 1, 12, 0, 0, 999_999, UTC)
ID = KeyId("3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11")
ASKING = """
version: 1
extends: default
rules:
  - name: changes
    effect: require-approval
    match: {operations: [RevokeKey, UpdateKey, DestroyKey, SetRotation]}
  - name: creation
    effect: require-approval
    match: {operations: [CreateKey], tags: [x]}
"""


def key(**facts: Any) -> KeyInfo:
    """Return a key, by default an active one for signatures."""
    given: dict[str, Any] = {
        "key_id": ID,
        "algorithm": "Ed25519",
        "usages": (KeyUsage.SIGN, KeyUsage.VERIFY),
        "name": "signer",
        "owner": "alice",
        "version": 1,
        "state": KeyState.ACTIVE,
        "integrity": Integrity.OK,
        "generation": 4,
        "created_at": AT,
        "updated_at": AT,
        **facts,
    }
    if given["algorithm"]:
        given["algorithm"] = next(a for a in ALGORITHMS if a == given["algorithm"])
    return KeyInfo(**given)


def version(number: int, state: KeyState, **facts: Any) -> VersionInfo:
    """Return a version of a key."""
    given: dict[str, Any] = {
        "version": number,
        "state": state,
        "material_id": f"m{number}",
        "integrity": Integrity.OK,
        "created_at": AT,
        "state_changed_at": AT,
        **facts,
    }
    return VersionInfo(**given)


def subject(*states: KeyState, **facts: Any) -> KeyWithVersions:
    """Return a key whose versions are in these states, the newest of them current."""
    versions = [version(number, state) for number, state in enumerate(states, 1)]
    current = max(v.version for v in versions if v.state is not KeyState.STAGED)
    given = {"version": current, "state": states[current - 1], **facts}
    return KeyWithVersions(key(**given), versions)


def who(*roles: str) -> Who:
    """Return a user with these roles."""
    return Who(principal="alice", roles=roles, how=How.TOKEN, until=0.0)


def form(**fields: str | list[str]) -> Form:
    """Return a form with these fields."""
    return Form({k: [v] if isinstance(v, str) else v for k, v in fields.items()})


def event(seq: int, kind: str, **facts: Any) -> AuditEntry:
    """Return an audit record."""
    given: dict[str, Any] = {"phase": Phase.SINGLE, "code": "ok", **facts}
    told = AuditEvent(
        format=1,
        log_id="00",
        seq=seq,
        prev="",
        epoch=0,
        time=seq,
        kind=kind,
        caller=AuditedCaller(principal=f"p{seq}"),
        **given,
    )
    return AuditEntry(event=told, leaf_hash="ab" * 32)


class TestPresenters:
    def test_titles_and_states(self) -> None:
        """A key's title is its name or a short ID; an altered key has no state."""
        assert ("signer", "3f0c7e0e…") == (key_title(key()), key_title(key(name="")))
        assert ("active", "ok") == state_badge(KeyState.ACTIVE)
        assert ("unknown", "bad") == state_badge(None)

    @pytest.mark.parametrize(
        ("uses", "percent"), [(0, 0), (79, 79), (100, 100), (150, 100)]
    )
    def test_usage_limit(self, uses: int, percent: int) -> None:
        """A usage meter shows at most 100 percent."""
        values = key_values(key(use=UseInfo(uses=uses, limit=100)))

        assert percent == values["used_percent"]

    def test_rotation_in_words(self) -> None:
        """A rotation rule is shown with one limit or both."""
        both = RotationRule(max_age_days=90, max_uses=1)

        assert "90 days or 1 use" == rotation_words(both)
        assert "" == rotation_words(None)

    def test_dates_of_a_version(self) -> None:
        """The dates of a version are listed in order."""
        later = AT + timedelta(days=1)
        first = version(1, KeyState.DESTROYED, retired_at=AT, state_changed_at=later)

        words = [word for word, _ in version_dates(first)]

        assert ["created", "retired", "destroyed"] == words

    def test_history(self) -> None:
        """An intent is shown only without its outcome."""
        events = history_events(
            [
                event(5, "RotateKey", phase=Phase.INTENT, operation_id="b"),
                event(4, "RotateKey", phase=Phase.OUTCOME, operation_id="a"),
                event(3, "RotateKey", phase=Phase.INTENT, operation_id="a"),
            ]
        )

        assert [(5, "intent"), (4, "ok")] == [
            (found.seq, outcome_badge(found)[0]) for found in events
        ]

    def test_last_use(self) -> None:
        """The last use is the newest successful one."""
        events = history_events(
            [
                event(9, "UpdateKey"),
                event(8, "Sign", code="access_denied"),
                event(7, "Verify"),
                event(6, "Sign"),
            ]
        )

        used = last_use(events)

        assert used is not None
        assert (7, "Verify") == (used.seq, used.kind)
        assert last_use(events[:2]) is None


class TestChoices:
    def test_every_algorithm(self) -> None:
        """Every algorithm is listed once, with its category."""
        with memory_hsm() as hsm:
            infos = hsm.act_as(caller()).execute(ListAlgorithms()).items

        found = [c for p in purposes(infos) for kin in p.families for c in kin.choices]

        assert sorted(ALGORITHMS) == sorted(choice.info.algorithm for choice in found)
        assert set(CATEGORIES) >= {choice.info.category for choice in found}
        assert all(c.is_available or c.hint for c in found)
        assert set(Family) == {ALGORITHMS[i.algorithm].family for i in infos}


class TestActions:
    @pytest.mark.parametrize(
        ("states", "absent", "present"),
        [
            ([KeyState.ACTIVE], {"activate", "resume", "rollback"}, {"rotate"}),
            ([KeyState.SUSPENDED], {"suspend"}, {"resume"}),
            ([KeyState.RETIRED, KeyState.ACTIVE], set(), {"rollback"}),
            ([KeyState.REVOKED, KeyState.ACTIVE], {"rollback"}, {"suspend"}),
            ([KeyState.ACTIVE, KeyState.STAGED], {"rotate"}, {"activate"}),
            ([KeyState.PURGE_SCHEDULED], {"rotate", "revoke"}, {"destroy"}),
        ],
        ids=["active", "suspended", "retired", "revoked", "staged", "waiting"],
    )
    def test_by_state(
        self, states: list[KeyState], absent: set[str], present: set[str]
    ) -> None:
        """Actions that don't fit a state are not offered."""
        offered = offered_actions(subject(*states), who("Administrator"))
        names = {action.name for action in offered}

        assert present <= names
        assert not absent & names

    def test_a_destroyed_key(self) -> None:
        """A destroyed key has no actions."""
        assert not offered_actions(subject(KeyState.DESTROYED), who("Administrator"))

    def test_by_role(self) -> None:
        """Actions depend on the role."""
        there = subject(KeyState.ACTIVE)

        assert not offered_actions(there, who("Auditor", "Service"))
        assert {"rotate", "suspend"} == {
            a.name for a in offered_actions(there, who("Operator"))
        }

    @pytest.mark.parametrize(
        ("name", "fields", "operation"),
        [
            ("rotate", {}, RotateKey(key_id=ID)),
            ("rotate", {"staged": "yes"}, RotateKey(key_id=ID, staged=True)),
            (
                "revoke",
                {"version": "", "reason": "lost", CONFIRM: "signer"},
                RevokeKey(key_id=ID, reason="lost"),
            ),
            (
                "revoke",
                {
                    "version": "1",
                    "compromised_at": "2026-01-31T12:00",
                    CONFIRM: "signer",
                },
                RevokeKey(
                    key_id=ID,
                    version=1,
                    compromised_at=datetime(2026, 1, 31, 12, tzinfo=UTC),
                ),
            ),
            ("destroy", {CONFIRM: " signer "}, DestroyKey(key_id=ID)),
            (
                "destroy",
                {"waiting_days": "0", CONFIRM: "signer"},
                DestroyKey(key_id=ID, waiting_days=0),
            ),
            (
                "rotation",
                {"max_age_days": "90", "max_uses": ""},
                SetRotation(key_id=ID, max_age_days=90),
            ),
            (
                "edit",
                {"name": "signer", "owner": "alice", "tags": "a, b c"},
                UpdateKey(key_id=ID, tags=("a", "b", "c")),
            ),
            (
                "edit",
                {"name": "", "owner": "bob", "description": "x"},
                UpdateKey(key_id=ID, name="", owner="bob", description="x"),
            ),
        ],
    )
    def test_operations(
        self, name: str, fields: dict[str, str], operation: object
    ) -> None:
        """A form becomes the operation of its action."""
        there = subject(KeyState.ACTIVE)

        assert operation == ACTIONS[name].build(form(**fields), there)

    @pytest.mark.parametrize(
        ("name", "fields", "field"),
        [
            ("destroy", {}, CONFIRM),
            ("destroy", {CONFIRM: "signers"}, CONFIRM),
            ("revoke", {CONFIRM: ID}, CONFIRM),
            ("destroy", {CONFIRM: "signer", "waiting_days": "-1"}, "waiting_days"),
            ("destroy", {CONFIRM: "signer", "waiting_days": "9999"}, "waiting_days"),
            ("suspend", {"reason": "a\nb"}, "reason"),
            ("rotation", {"max_uses": "1e3"}, "max_uses"),
            ("revoke", {CONFIRM: "signer", "compromised_at": "then"}, "compromised_at"),
            ("edit", {"owner": "alice", "name": "Upper"}, "name"),
        ],
    )
    def test_refusals(self, name: str, fields: dict[str, str], field: str) -> None:
        """Invalid and unconfirmed fields are named."""
        there = subject(KeyState.ACTIVE)

        with pytest.raises(InvalidInputError) as caught:
            ACTIONS[name].build(form(**fields), there)

        marks = mark_error([Field(name=field, label="")], caught.value)
        assert marks[0].error

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("name: Expected `str` of length <= 64.", "At most 64 characters."),
            ("waiting_days: Expected `int` >= 7.", "At least 7."),
            (
                "name: Expected `str` matching regex '^[a-z]{0,63}'.",
                "Invalid value.",
            ),
            ("Give a whole number here.", "Give a whole number here."),
        ],
        ids=["length", "number", "pattern", "words"],
    )
    def test_what_was_wrong_in_words(self, text: str, said: str) -> None:
        """Field errors contain no types or patterns."""
        assert said == error_message(InvalidInputError(text))

    def test_the_values_stay(self) -> None:
        """A rejected form keeps its input."""
        there = subject(KeyState.RETIRED, KeyState.ACTIVE)
        fields = fill_fields(
            ACTIONS["revoke"].fields(there), form(version="1", reason="why")
        )

        by_name = {field.name: field for field in fields}

        assert "why" == by_name["reason"].value
        assert ["1"] == [o.value for o in by_name["version"].options if o.is_chosen]


class TestListing:
    def test_beyond_the_end(self) -> None:
        """A page beyond the last one links back to it."""
        found = KeyPage(items=(), total=30, page=9, per_page=25)

        listing = build_listing(found, {})

        assert ("/ui/keys?page=2", "") == (listing.previous, listing.next)


class TestPayloads:
    @pytest.mark.parametrize(
        ("text", "written", "data"),
        [
            ("héllo", "text", "héllo".encode()),
            ("aGk=\n", "base64", b"hi"),
            ("68 69", "hex", b"hi"),
            ("", "hex", b""),
        ],
    )
    def test_inputs(self, text: str, written: str, data: bytes) -> None:
        """An input is decoded by its encoding."""
        given = form(message=text, message_form=written)

        assert data == read_bytes(given, "message")

    def test_too_long(self) -> None:
        """Inputs have a maximum length."""
        given = form(message="x" * (MOST_BYTES + 1))

        with pytest.raises(PayloadTooLargeError):
            read_bytes(given, "message")

    @pytest.mark.parametrize(
        ("data", "text"),
        [(b"hi\n", "hi\n"), (b"\xff", None), (b"a\x1b[2J", None)],
        ids=["text", "bytes", "escape"],
    )
    def test_outputs(self, data: bytes, text: str | None) -> None:
        """Bytes are shown as text only if printable."""
        assert text == shown("x", data, is_text=True).text

    @pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
    def test_trials(self, algorithm: str) -> None:
        """Test operations depend on the key's usages."""
        row = next(row for row in ALGORITHMS.values() if row.algorithm == algorithm)
        made = key(algorithm=algorithm, usages=tuple(row.usages))

        found = {action.usage for action in usages_for(made)}

        assert {action.usage for action in USAGES.values()} & row.usages == found
        assert not usages_for(key(algorithm=algorithm, usages=()))
