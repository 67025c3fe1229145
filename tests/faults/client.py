# SPDX-License-Identifier: MIT
"""One of the clients that keep a server busy, and that know what it promised them."""

import base64
import random
import ssl
import threading
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

from tests.e2e.https import Answer, Client, NoAnswerError
from tests.faults.consents import CONSENTS, ExpectedApproval
from tests.faults.expectation import (
    MUTATIONS,
    Expectation,
    ExpectedKey,
    Use,
    Violation,
    check,
)
from tests.faults.journal import Entry, Journal, Outcome

_PATHS: Final = {
    "CreateKey": ("POST", "/keys"),
    "RotateKey": ("POST", "/keys/{key}/rotate"),
    "Rollback": ("POST", "/keys/{key}/rollback"),
    "RevokeKey": ("POST", "/keys/{key}/revoke"),
    "DestroyKey": ("DELETE", "/keys/{key}"),
    "SuspendKey": ("POST", "/keys/{key}/suspend"),
    "ResumeKey": ("POST", "/keys/{key}/resume"),
    "UpdateKey": ("PATCH", "/keys/{key}"),
    "HoldKey": ("POST", "/keys/{key}/hold"),
    "ReleaseKey": ("POST", "/keys/{key}/release"),
    "ExtendRetention": ("POST", "/keys/{key}/retention/extend"),
    "Approve": ("POST", "/approvals/{key}/approve"),
    "Deny": ("POST", "/approvals/{key}/deny"),
    "CancelApproval": ("POST", "/approvals/{key}/cancel"),
    "Sign": ("POST", "/keys/{key}/sign"),
    "Verify": ("POST", "/keys/{key}/verify"),
    "Encrypt": ("POST", "/keys/{key}/encrypt"),
    "Decrypt": ("POST", "/keys/{key}/decrypt"),
    "ComputeMac": ("POST", "/keys/{key}/mac"),
    "VerifyMac": ("POST", "/keys/{key}/mac/verify"),
}
_USES: Final = {
    "EC-P256": ("Sign", "Verify"),
    "Ed25519": ("Sign", "Verify"),
    "AES-256-GCM": ("Encrypt", "Decrypt"),
    "HMAC-SHA-256": ("ComputeMac", "VerifyMac"),
}
_ALGORITHMS: Final = tuple(_USES)
_LIVE_KEYS: Final = 6
_KEPT: Final = date(2100, 1, 1)
_RETRY_SECONDS: Final = 120.0
_JOURNAL_ONLY: Final = frozenset({"plaintext"})
_REFUSALS: Final = frozenset(
    {
        "audit_unavailable",
        "outcome_unknown",
        "overloaded",
        "storage_full",
        "store_unavailable",
        "unavailable",
    }
)
"""Codes that an answer of 503 may have while something is broken."""


class JournalingClient:
    """
    A client with keys of its own, and a part in shared ones.

    It asks for the consent of another person, whose part it plays as well.

    Args:
        name: Its principal.

        folder: Where its journal lies.

        token: Bearer token, of an operator and administrator.

        colleague: Token, and TLS with a certificate of their own, of whoever consents
            to what it asks for.

        context: TLS.

        shared: Ids of keys that all clients use and rotate, by name.

        seed: Of its choices.

        rotating: Which part of its uses of shared keys are rotations instead.

        changing: Which part of what it does with its own keys changes them.

    Attributes:
        versions: How many versions of keys were made for it.
        retried: How many changes were sent again, for want of an answer.
        aborted: How many of its changes had been aborted by recovery.
        refused_now: How often it was told to come back later.
        lost: How often a connection broke before an answer was read.
        answered: How many requests it has the outcome of.
        longest: Longest time from a request to its answer, in seconds.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        token: str,
        colleague: tuple[str, ssl.SSLContext],
        context: ssl.SSLContext,
        shared: dict[str, str],
        seed: str,
        rotating: float = 0.2,
        changing: float = 0.4,
    ) -> None:
        self.name = name
        self.journal = Journal(folder / f"{name}.journal")
        self.expected = Expectation(shared, demands=True)
        self._shared = shared
        self._token = token
        self._colleague = colleague
        self._context = context
        self._random = random.Random(seed)
        self._client: Client | None = None
        self._other: Client | None = None
        self._rotating = rotating
        self._changing = changing
        self._created = self.versions = 0
        self.retried = self.aborted = self.refused_now = self.lost = self.answered = 0
        self.longest = 0.0

    def connect(self, port: int) -> None:
        """Speak to the server on *port* from now on."""
        self._hang_up()
        self._client = Client(port, self._context, self._token)
        token, context = self._colleague
        self._other = Client(port, context, token)

    def _hang_up(self) -> None:
        for client in (self._client, self._other):
            if client is not None:
                client.close()

    def settle(self) -> None:
        """
        Find out what became of the request that was not answered.

        A mutation is sent again under its idempotency key. A use is not: it may have
        been done, and its record may be there, or not.
        """
        entry = self.journal.pending
        if entry is None:
            return
        if entry.kind not in MUTATIONS | CONSENTS:
            self._finish(entry, Outcome(0, {}))
            return
        self.retried += 1
        self._finish(entry, self._answered(entry))

    def work(self, until: float) -> None:
        """Send one request after the other until *until*, or until none is answered."""
        try:
            self.settle()
            while time.monotonic() < until:
                self._step()
        except NoAnswerError:
            return

    def persist(self, enough: threading.Event, interval: float = 0.0) -> None:
        """
        Send requests until it is enough, also where connections break.

        What was cut off is settled with the same server before anything else is sent.

        Args:
            enough: Set by somebody else.

            interval: Seconds from one request to the next, at least.

        Raises:
            Violation: Nobody answers any more.
        """
        heard = due = time.monotonic()
        while not enough.is_set():
            answered = self.answered
            try:
                self.settle()
                self._step()
            except NoAnswerError as error:
                self.lost += 1
                silent = time.monotonic() - heard
                check(silent < _RETRY_SECONDS, "nobody answers any more", error)
                enough.wait(0.05)
            if self.answered != answered:
                heard = time.monotonic()
            due = max(due + interval, time.monotonic() - interval)
            enough.wait(max(0.0, due - time.monotonic()))

    def request(
        self, method: str, path: str, body: Any = None, *, approval_id: str = ""
    ) -> Answer:
        """Send a request that is no part of the journal, by an approval if named."""
        assert self._client is not None
        headers = {"FerroHSM-Approval": approval_id} if approval_id else None
        return self._client.request(method, f"/api/v1{path}", body, headers)

    def request_again(self, approval: ExpectedApproval) -> Answer:
        """Ask once more for what was done by an approval, and name the approval."""
        method, path = _PATHS[approval.kind]
        target = path.format(key=self.expected.key_id(approval.key))
        body = None if method == "DELETE" else approval.body
        return self.request(method, target, body, approval_id=approval.approval_id)

    def number_of(self, request_id: str) -> int:
        """Return which line of the journal a record belongs to; 0 if to none."""
        prefix, _, number = request_id.rpartition(".")
        return int(number) if prefix == self.name else 0

    def close(self) -> None:
        """Close connections and journal."""
        self._hang_up()
        self.journal.close()

    def _step(self) -> None:
        live = [k for k in self.expected.keys.values() if not k.is_destroyed]
        waiting = [a for a in self.expected.approvals.values() if a.is_open]
        if waiting and self._random.random() < 0.5:
            self._go_on(self._random.choice(waiting))
        elif len(live) < 2 or (len(live) < _LIVE_KEYS and self._random.random() < 0.1):
            self._create()
        elif self._random.random() < 0.2:
            self._use_shared(self._random.choice(sorted(self._shared)))
        else:
            key = self._random.choice(live)
            changes = self._random.random() < self._changing
            # What an approval binds would serve nothing after another change.
            if changes and self.expected.open_approval(key.name) is None:
                self._change(key)
            else:
                self._use(key)

    def _create(self) -> None:
        self._created += 1
        name = f"{self.name}-{self._created}"
        algorithm = self._random.choice(_ALGORITHMS)
        self._mutate("CreateKey", name, {"algorithm": algorithm, "name": name})

    def _go_on(self, approval: ExpectedApproval) -> None:
        """Do the next thing about what was asked for; mostly what leads to its end."""
        chance = self._random.random()
        if chance < 0.05:
            self._send("CancelApproval", approval.approval_id, {})
        elif approval.state == "pending":
            # Who has granted it can't deny it any more.
            kind = "Deny" if chance < 0.15 else "Approve"
            said = {"reason": "a test"}
            if kind == "Approve":
                said = {"digest": approval.digest}
            self._send(kind, approval.approval_id, said)
        else:
            self._mutate(approval.kind, approval.key, approval.body)

    def _change(self, key: ExpectedKey) -> None:
        if key.current.state == "suspended":
            self._mutate("ResumeKey", key.name, {})
            return
        retired = key.with_state("retired")
        is_active = key.current.state == "active"
        choices: list[Callable[[], None]] = [
            lambda: self._mutate("RotateKey", key.name, {})
        ] * 6
        if retired and is_active:
            body = {"version": self._random.choice(retired)}
            choices += [lambda: self._mutate("Rollback", key.name, body)] * 3
        if is_active:
            number = self._random.choice([None, *key.with_state("active"), *retired])
            why = {"reason": "a test"} | ({"version": number} if number else {})
            choices.append(lambda: self._mutate("RevokeKey", key.name, why))
            choices.append(lambda: self._mutate("SuspendKey", key.name, {}))
        if len(key.versions) > 3 and not key.hold:
            choices.append(lambda: self._mutate("DestroyKey", key.name, {}))
        choices.append(lambda: self._say(key))
        self._random.choice(choices)()

    def _say(self, key: ExpectedKey) -> None:
        """Change what is said of a key, and for how long it is to be kept."""
        count = len(self.expected.keys) + key.generation
        kept: dict[str, Any] = {
            "version": self._random.choice([1, len(key.versions)]),
            "until": f"{_KEPT + timedelta(days=count)}T00:00:00Z",
        }
        holding = "ReleaseKey" if key.hold else "HoldKey"
        choices: list[tuple[str, dict[str, Any]]] = [
            ("UpdateKey", {"description": f"said {count} times"}),
            (holding, {"reason": "a test"}),
            ("ExtendRetention", kept),
        ]
        kind, body = self._random.choice(choices)
        self._mutate(kind, key.name, body)

    def _use(self, key: ExpectedKey) -> None:
        make, judge = _USES[key.algorithm]
        older = key.processable()
        if older and self._random.random() < 0.4:
            self._judge(judge, key.name, self._random.choice(older))
        elif key.current.state == "active":
            self._make(make, key.name)

    def _use_shared(self, name: str) -> None:
        make, judge = ("Encrypt", "Decrypt") if "seal" in name else ("Sign", "Verify")
        older = self.expected.shared_uses[name]
        chance = self._random.random()
        if chance < self._rotating:
            self._mutate("RotateKey", name, {})
        elif older and chance < 0.5:
            self._judge(judge, name, self._random.choice(older))
        else:
            self._make(make, name)

    def _make(self, kind: str, name: str) -> None:
        field = "plaintext" if kind == "Encrypt" else "message"
        size = self._random.choice([0, 1, 40, 1000])
        self._send(kind, name, {field: _text(self._random.randbytes(size))})

    def _judge(self, kind: str, name: str, use: Use) -> None:
        """Have something verified or decrypted that was acknowledged before."""
        field = {"Verify": "signature", "Decrypt": "ciphertext", "VerifyMac": "mac"}
        source = "plaintext" if kind == "Decrypt" else "message"
        body = {field[kind]: _text(use.output), source: _text(use.message)}
        self._send(kind, name, body)

    def _mutate(self, kind: str, name: str, body: dict[str, Any]) -> None:
        token = self._random.randbytes(16).hex()
        entry = self.journal.begin(kind, name, body, token)
        outcome = self._answered(entry)
        self._finish(entry, outcome)
        if outcome.is_success and self._random.random() < 0.1:
            again = self._answered(entry)
            check(
                again == outcome or name in self._shared,
                "a repeated request has another answer",
                outcome,
                again,
            )

    def _send(self, kind: str, name: str, body: dict[str, Any]) -> None:
        entry = self.journal.begin(kind, name, body)
        self._finish(entry, self._answered(entry))

    def _finish(self, entry: Entry, outcome: Outcome) -> None:
        self.journal.end(outcome)
        self.expected.apply(entry, outcome)
        self.answered += outcome.status != 0
        is_new = entry.kind in {"CreateKey", "RotateKey"}
        self.versions += is_new and outcome.is_success
        if outcome.answer.get("code") == "operation_aborted":
            self.aborted += 1

    def _answered(self, entry: Entry) -> Outcome:
        """Send what the journal has; ask again as long as the server can't say."""
        give_up = time.monotonic() + _RETRY_SECONDS
        while True:
            answer = self._exchange(entry)
            if answer.status != 503:
                break
            self.refused_now += 1
            check(answer.code in _REFUSALS, "503 with another code", entry, answer)
            check(
                "retry-after" in answer.headers,
                "503 without Retry-After",
                entry,
                answer,
            )
            if time.monotonic() > give_up:
                raise Violation(f"the server stays unavailable: {answer.body!r}")
            if entry.kind not in MUTATIONS | CONSENTS:
                return Outcome(0, {})
            time.sleep(0.2)
        check(answer.status < 500, "an answer of 500", entry, answer.body)
        return Outcome(answer.status, answer.json if answer.body else {})

    def _exchange(self, entry: Entry) -> Answer:
        sender = self._other if entry.kind in {"Approve", "Deny"} else self._client
        assert sender is not None
        method, path = _PATHS[entry.kind]
        if entry.kind in {"CreateKey"} | CONSENTS:
            target = path.format(key=entry.key)
        else:
            target = path.format(key=self.expected.key_id(entry.key))
        body: dict[str, Any] | None = dict(entry.body)
        if entry.kind == "Decrypt":
            body = {k: v for k, v in entry.body.items() if k not in _JOURNAL_ONLY}
        headers = {"X-Request-Id": f"{self.name}.{entry.number}"}
        if entry.idempotency_key:
            headers["Idempotency-Key"] = entry.idempotency_key
        started = time.monotonic()
        answer = sender.request(
            method, f"/api/v1{target}", None if method == "DELETE" else body, headers
        )
        self.longest = max(self.longest, time.monotonic() - started)
        return answer


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
