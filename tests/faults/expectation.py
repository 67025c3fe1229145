# SPDX-License-Identifier: MIT
"""
What must be there: computed from journals alone, and from no code under test.

The rules are written out a second time here: a rotation retires the current version, a
rollback makes a new version of old material, a revocation goes by material.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tests.faults.consents import ASKED, CONSENTS, ExpectedApproval
from tests.faults.journal import Entry, Outcome

MUTATIONS: Final = frozenset(
    {
        *("CreateKey", "RotateKey", "Rollback", "RevokeKey", "DestroyKey"),
        *("SuspendKey", "ResumeKey", "UpdateKey", "HoldKey", "ReleaseKey"),
        "ExtendRetention",
    }
)
"""Operations that change a key."""


_ASKED_STATUS: Final = 202


class Violation(Exception):  # noqa: N818 (what it is, in the words of the goals)
    """A promise was broken; the text says which."""


def check(holds: bool, text: str, /, *facts: object) -> None:
    """
    Check that a promise holds.

    Raises:
        Violation: It does not.
    """
    if not holds:
        told = ", ".join(repr(fact) for fact in facts)
        raise Violation(f"{text}: {told}" if told else text)


@dataclass
class ExpectedVersion:
    """State of a version, and a number that versions of the same material share."""

    state: str
    material: int


@dataclass(frozen=True)
class Use:
    """An acknowledged signature, MAC or ciphertext, and what went into it."""

    kind: str
    version: int
    message: bytes
    output: bytes


@dataclass
class ExpectedKey:
    """
    A key as the journal of the one client that changes it tells.

    Attributes:
        generation: How many changes were acknowledged.
        uses: What must verify, or decrypt, as long as its version may.
        description: What was said of it last.
        hold: Why it is held, or empty.
        kept: Until when versions are kept, by number.
    """

    key_id: str
    name: str
    algorithm: str
    generation: int = 1
    versions: list[ExpectedVersion] = field(
        default_factory=lambda: [ExpectedVersion("active", 1)]
    )
    uses: list[Use] = field(default_factory=list)
    description: str = ""
    hold: str = ""
    kept: dict[int, str] = field(default_factory=dict)

    @property
    def current(self) -> ExpectedVersion:
        """The current version: always the newest."""
        return self.versions[-1]

    @property
    def is_destroyed(self) -> bool:
        """Whether nothing is left of it but its tombstone."""
        return self.current.state == "destroyed"

    def processable(self) -> list[Use]:
        """Return the uses that must still verify or decrypt."""
        return [
            use
            for use in self.uses
            if self.versions[use.version - 1].state in {"active", "retired"}
        ]

    def with_state(self, state: str) -> list[int]:
        """Return the numbers of the versions in a state."""
        return [n for n, v in enumerate(self.versions, 1) if v.state == state]


class Expectation:
    """
    All keys of one client, after every line of its journal so far.

    Args:
        shared: Ids, by name, of keys that other clients change too; all that is
            expected of them is what adds up over all clients.

        demands: Whether others must agree to what is in `ASKED`.

    Attributes:
        keys: By our own name for them.
        shared_versions: Versions that this client made of a shared key, by name.
        shared_uses: Its uses of shared keys, by name.
        successes: How many requests were acknowledged, by kind and id of the key.
        uses: Numbers of the uses that were acknowledged.
        unknown: Numbers of the uses whose answer never came.
        approvals: What the client has asked others to agree to, by id.
    """

    def __init__(self, shared: dict[str, str], *, demands: bool = False) -> None:
        self._shared = shared
        self.demands = demands
        self.keys: dict[str, ExpectedKey] = {}
        self.shared_versions: dict[str, list[int]] = {name: [] for name in shared}
        self.shared_uses: dict[str, list[Use]] = {name: [] for name in shared}
        self.successes: dict[tuple[str, str], int] = {}
        self.uses: set[int] = set()
        self.unknown: set[int] = set()
        self.approvals: dict[str, ExpectedApproval] = {}
        self._mutations: dict[str, Callable[[Entry, dict[str, Any]], None]] = {
            "CreateKey": self._create,
            "RotateKey": self._rotate,
            "Rollback": self._rollback,
            "RevokeKey": self._revoke,
            "DestroyKey": self._destroy,
            "SuspendKey": self._suspend,
            "ResumeKey": self._resume,
            "UpdateKey": self._update,
            "HoldKey": self._hold,
            "ReleaseKey": self._hold,
            "ExtendRetention": self._extend,
        }

    def apply(self, entry: Entry, outcome: Outcome) -> None:
        """
        Take in what became of a request.

        Raises:
            Violation: The answer is not what it should be.
        """
        if outcome.status == 0:
            self.unknown.add(entry.number)
            return
        if not outcome.is_success:
            self._check_refusal(entry, outcome)
            return
        if entry.kind in CONSENTS:
            self._say(entry, outcome.answer)
            self.successes[entry.kind, entry.key] = 1
            return
        if outcome.status == _ASKED_STATUS:
            self._ask(entry, outcome.answer)
            return
        if entry.kind in ASKED and self.demands:
            self._use_up(entry)
        change = self._mutations.get(entry.kind)
        if entry.key in self._shared:
            self._change_shared(entry, outcome.answer)
        elif change is not None:
            change(entry, outcome.answer)
            key = self.keys[entry.key]
            check(
                outcome.answer["generation"] == key.generation,
                "an answer shows another generation than was acknowledged",
                key.generation,
                outcome.answer,
            )
        else:
            self._use(entry, outcome.answer)
        self._count(entry)

    def open_approval(self, key: str) -> ExpectedApproval | None:
        """Return what the client has asked to do with a key, if it may yet be done."""
        for found in self.approvals.values():
            if found.is_open and found.key == key:
                return found
        return None

    def _ask(self, entry: Entry, answer: dict[str, Any]) -> None:
        check(entry.kind in ASKED, "nobody needs to agree to this", entry, answer)
        found = self.approvals.setdefault(
            answer["approval_id"],
            ExpectedApproval(
                answer["approval_id"],
                entry.kind,
                entry.key,
                entry.body,
                answer["digest"],
            ),
        )
        check(
            found.is_about(entry) and found.state == answer["state"] == "pending",
            "a request stands otherwise than was acknowledged",
            found,
            answer,
        )

    def _say(self, entry: Entry, answer: dict[str, Any]) -> None:
        found = self.approvals[entry.key]
        said = {"Approve": "granted", "Deny": "denied", "CancelApproval": "cancelled"}
        check(found.is_open, "what had come to an end was decided", entry, found)
        found.state = said[entry.kind]
        found.said.add(entry.kind)
        check(
            answer["state"] == found.state,
            "an approval stands otherwise than was decided",
            found,
            answer,
        )

    def _use_up(self, entry: Entry) -> None:
        """Take one approval for what was done, which must have been granted."""
        granted = [a for a in self.approvals.values() if a.is_about(entry)]
        check(
            [found.state for found in granted] == ["granted"],
            "something was done that nobody had agreed to",
            entry,
            granted,
        )
        granted[0].state, granted[0].used_by = "consumed", entry.number

    def key_id(self, name: str) -> str:
        """Return the id of a key, the client's own or a shared one."""
        return self._shared.get(name) or self.keys[name].key_id

    def _check_refusal(self, entry: Entry, outcome: Outcome) -> None:
        allowed = "operation_aborted"
        if entry.kind not in MUTATIONS:
            # Somebody else changed the key twice while it was used.
            allowed = "generation_conflict" if entry.key in self._shared else ""
        check(
            outcome.answer.get("code") == allowed,
            "a legal request was refused",
            entry,
            outcome,
        )

    def _count(self, entry: Entry) -> None:
        counted = entry.kind, self.key_id(entry.key)
        self.successes[counted] = self.successes.get(counted, 0) + 1
        if entry.kind not in MUTATIONS:
            self.uses.add(entry.number)

    def _change_shared(self, entry: Entry, answer: dict[str, Any]) -> None:
        if entry.kind in MUTATIONS:
            self.shared_versions[entry.key].append(answer["version"])
        elif entry.kind == "Decrypt":
            _check_plaintext(entry, answer)
        elif (use := _use(entry, answer)) is not None:
            self.shared_uses[entry.key].append(use)

    def _create(self, entry: Entry, answer: dict[str, Any]) -> None:
        check(entry.key not in self.keys, "a key was created twice", entry)
        self.keys[entry.key] = ExpectedKey(
            key_id=answer["key_id"], name=entry.key, algorithm=answer["algorithm"]
        )

    def _rotate(self, entry: Entry, answer: dict[str, Any]) -> None:
        key = self.keys[entry.key]
        fresh = max(version.material for version in key.versions) + 1
        self._append(key, fresh, answer)

    def _rollback(self, entry: Entry, answer: dict[str, Any]) -> None:
        key = self.keys[entry.key]
        source = key.versions[entry.body["version"] - 1]
        self._append(key, source.material, answer)

    def _append(self, key: ExpectedKey, material: int, answer: dict[str, Any]) -> None:
        if key.current.state == "active":
            key.current.state = "retired"
        key.versions.append(ExpectedVersion("active", material))
        key.generation += 1
        check(
            answer["version"] == len(key.versions),
            "a new version has another number than the next",
            len(key.versions),
            answer,
        )

    def _revoke(self, entry: Entry, answer: dict[str, Any]) -> None:
        key = self.keys[entry.key]
        number = entry.body.get("version")
        hit = {
            version.material
            for count, version in enumerate(key.versions, 1)
            if number in (None, count)
        }
        for version in key.versions:
            if version.material in hit and version.state in {"active", "retired"}:
                version.state = "revoked"
        key.generation += 1

    def _destroy(self, entry: Entry, answer: dict[str, Any]) -> None:
        key = self.keys[entry.key]
        for version in key.versions:
            version.state = "destroyed"
        key.generation += 1

    def _suspend(self, entry: Entry, answer: dict[str, Any]) -> None:
        self._turn(entry, "suspended")

    def _resume(self, entry: Entry, answer: dict[str, Any]) -> None:
        self._turn(entry, "active")

    def _turn(self, entry: Entry, state: str) -> None:
        key = self.keys[entry.key]
        key.current.state = state
        key.generation += 1

    def _update(self, entry: Entry, answer: dict[str, Any]) -> None:
        key = self.keys[entry.key]
        key.description = entry.body["description"]
        key.generation += 1

    def _hold(self, entry: Entry, answer: dict[str, Any]) -> None:
        key = self.keys[entry.key]
        key.hold = entry.body["reason"] if entry.kind == "HoldKey" else ""
        key.generation += 1

    def _extend(self, entry: Entry, answer: dict[str, Any]) -> None:
        key = self.keys[entry.key]
        key.kept[entry.body["version"]] = entry.body["until"]
        key.generation += 1

    def _use(self, entry: Entry, answer: dict[str, Any]) -> None:
        key, use = self.keys[entry.key], _use(entry, answer)
        if entry.kind == "Decrypt":
            _check_plaintext(entry, answer)
        if use is not None:
            check(
                use.version == len(key.versions),
                "another version than the current one was used",
                answer,
            )
            key.uses.append(use)


def _check_plaintext(entry: Entry, answer: dict[str, Any]) -> None:
    check(
        answer["plaintext"] == entry.body["plaintext"],
        "a ciphertext gave another plaintext",
        entry,
    )


def _use(entry: Entry, answer: dict[str, Any]) -> Use | None:
    """Return what was made, if something was."""
    made = _OUTPUTS.get(entry.kind)
    if made is None:
        return None
    source, output = made
    return Use(
        entry.kind,
        answer["version"],
        base64.b64decode(entry.body[source]),
        base64.b64decode(answer[output]),
    )


_OUTPUTS: Final = {
    "Sign": ("message", "signature"),
    "Encrypt": ("plaintext", "ciphertext"),
    "ComputeMac": ("message", "mac"),
}
