# SPDX-License-Identifier: MIT
"""
The world of a simulation: one HSM, its machine and its time, all from one seed.

The real pipeline, policy, handlers and recovery run, in one thread. At any named point
the power may go, and at some another person's request may come between.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self
from unittest import mock

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.assembly.assembly import Parts, assemble, open_ring
from hsm_core._internal.assembly.opened import OpenHSM
from hsm_core._internal.keyring.key_ring import KeyRing, RootKey
from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.retention.service import LedgerFile
from hsm_core.errors import HSMError
from hsm_core.model import Caller, KeyInfo, KeyState, Role
from hsm_core.operations import Operation
from hsm_core.protocols import HSM
from hsm_core.settings import ApprovalStoreKind, AuditSync, Settings
from hsm_core.testing import FakeEntropy, Faults, faulty_audit_log, faulty_key_store
from tests.self_tests import shared_registry
from tests.simulation.disk import (
    Disk,
    Life,
    SimulatedApprovals,
    SimulatedCrash,
    SimulatedKeyStore,
    SimulatedTrail,
)
from tests.simulation.law import DAY, GRACE_SECONDS, Key, Moment, Refusal
from tests.simulation.oracle import (
    Expected,
    Item,
    Lost,
    Oracle,
    Request,
    ViolationError,
)
from tests.simulation.surroundings import SteppedCaretaker, Time

_BEGIN: Final = 1_750_000_000_000_000
_HMAC_KEY: Final = b"\x02" * 32
_RETENTION: Final = Path(__file__).with_name("retention.yaml")
_POLICY: Final = Path(__file__).with_name("policy.yaml")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
LOOKER: Final = Caller(principal="onlooker", roles=frozenset({Role.AUDITOR}))

_of_nothing: dict[tuple[str, int], int] = {}
_bucket_part = KeyRing.bucket_part


def _remembered_part(ring: KeyRing, bucket: int, value: int) -> int:
    """Return `KeyRing.bucket_part`; of empty buckets a start asks for thousands."""
    if value:
        return _bucket_part(ring, bucket, value)
    known = ring.store_id, bucket
    if known not in _of_nothing:
        _of_nothing[known] = _bucket_part(ring, bucket, value)
    return _of_nothing[known]


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What became of a request.

    Attributes:
        code: Of the error; ``ok``, or ``crash`` where nothing was answered.
        approval_id: What it waits for.
    """

    code: str
    result: Any = None
    approval_id: str = ""


class World:
    """
    Everything that there is.

    Args:
        seed: Determines all that happens.

        tell: Is told each line of the story.

    Attributes:
        rng: Of the world, for the actors too.
        time: The machine's.
        oracle: Knows what must be.
        faults: Of store and trail.
        between: Called at points where another request may come between.
        asked: Who sent what, by the approval that it waits for.
        has_good_clock: Whether nobody ever sets the clock.
        was_long_off: Whether the machine was off for longer than the HSM believes.
    """

    def __init__(self, seed: int, tell: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.time = Time(_BEGIN)
        self.faults = Faults()
        self.between: Callable[[World, str, Request], None] | None = None
        self.points: dict[str, int] = {}
        self.crashes = 0
        self.asked: dict[str, tuple[Caller, Operation[Any]]] = {}
        self.has_good_clock = self.rng.random() < 0.3
        self.was_long_off = False
        self._tell = tell
        self._disk, self._ledger = Disk(), Disk()
        self._sync = self.rng.choice([*[AuditSync.STRICT] * 3, AuditSync.BOUNDED])
        strict = self._sync is AuditSync.STRICT
        self._lives = 0
        self.oracle = Oracle(
            self._disk, self._ledger, _HMAC_KEY, self._moment, strict=strict
        )
        self._entropy = FakeEntropy()
        self._root = RootKey(b"\x01" * 32, entropy=self._entropy)
        self._life = Life(self._reach)
        self._gateway: OpenHSM | None = None
        self._caretakers: list[SteppedCaretaker] = []
        self._requests: list[Request] = []
        self._numbers = 0
        self._crash_in = 0
        self._held = ExitStack()

    def __enter__(self) -> Self:
        self._held.enter_context(install(self._reach))
        self._held.enter_context(
            mock.patch.object(KeyRing, "bucket_part", _remembered_part)
        )
        self.open()
        return self

    def __exit__(self, *error: object) -> None:
        self._life.is_over = True
        self._held.close()

    # The machine.

    def open(self) -> None:
        """Open the HSM; also while it recovers the power may go, which costs a try."""
        for _ in range(10):
            try:
                self._open()
                break
            except SimulatedCrash:
                self._die("while it was opened")
            except HSMError as error:
                raise ViolationError(f"It does not open: {error.code}") from error
        else:
            raise ViolationError("It never opens.")
        self._crash_in = 0
        self.check_all()

    def _open(self) -> None:
        self._life, self._caretakers = Life(self._reach), []
        self._lives += 1
        self.faults.clear()
        store = SimulatedKeyStore(self._disk, self._life)
        trail = self._open_trail(self._disk)
        settings = Settings(
            key_store="filesystem",
            approval_store=ApprovalStoreKind.FILE,
            audit_sync=self._sync,
            policy_config=_POLICY,
            retention_config=_RETENTION,
            retention_ledger=Path("simulated"),
            retention_grace_seconds=GRACE_SECONDS,
            retention_max_purges=3,
        )
        parts = Parts(
            purges=LedgerFile(self._open_trail(self._ledger)),
            store=faulty_key_store(store, self.faults),
            counters=store.uses,
            audit=faulty_audit_log(trail, self.faults),
            ring=open_ring(store, self._root),
            root=self._root,
            hmac_key=_HMAC_KEY,
            clock=self.time,
            entropy=self._entropy,
            registry=shared_registry(),
            approvals=SimulatedApprovals(self._disk, self._life),
            new_worker=self._new_caretaker,
        )
        self._gateway = assemble(settings, parts)

    def _open_trail(self, disk: Disk) -> SimulatedTrail:
        return SimulatedTrail(
            disk,
            self._life,
            _HMAC_KEY,
            clock=self.time,
            entropy=self._entropy,
            strict=self._sync is AuditSync.STRICT,
        )

    def _new_caretaker(self) -> SteppedCaretaker:
        worker = SteppedCaretaker(self.time)
        self._caretakers.append(worker)
        return worker

    def _reach(self, point: str) -> None:
        self.points[point] = self.points.get(point, 0) + 1
        if self._life.is_over:
            raise SimulatedCrash
        if self._crash_in:
            self._crash_in -= 1
            if not self._crash_in:
                self.say(f"the power goes at {point}")
                self._life.is_over = True
                raise SimulatedCrash
        if self.between is not None and len(self._requests) == 1:
            self.between(self, point, self._requests[0])

    def _die(self, when: str) -> None:
        self._life.is_over = True
        self._gateway = None
        self.crashes += 1
        lost = self._disk.lose_power(self.rng) + self._ledger.lose_power(self.rng)
        # Before it is later: was it the time for all that is on the disk?
        self.oracle.read_trail()
        self._start_anew()
        self.say(f"it died {when}; {lost} records were not durable")

    def crash(self) -> None:
        """Let the power go between two requests, and start again."""
        self._die("between requests")
        self.open()

    def restart(self) -> None:
        """Stop in order, and start again."""
        assert self._gateway is not None
        self.faults.clear()
        self._gateway.close()
        self._life.is_over = True
        self.say("it is stopped")
        self._start_anew()
        self.open()

    def _start_anew(self) -> None:
        off = self.rng.choice((0, 0, 0, 60, DAY, 3 * DAY, 60 * DAY))
        self.was_long_off = self.was_long_off or off > 7 * DAY
        self.time.start_anew(off)
        self.oracle.consents.time.begin(self._disk.newest_time, self.time.now())

    def crash_at(self, steps: int) -> None:
        """Let the power go at the n-th point from now on; 0 takes it back."""
        self._crash_in = steps

    @property
    def will_crash(self) -> bool:
        """Whether a point is awaited."""
        return self._crash_in > 0

    # Time.

    @property
    def wall_time(self) -> datetime:
        """What the clock of the machine says."""
        return _EPOCH + timedelta(microseconds=self.time.now())

    @property
    def error_of_clock(self) -> float:
        """By how many seconds the clock must be set to be right."""
        return (_BEGIN - self.time.now()) / 1_000_000 + self.time.passed

    def _moment(self) -> Moment:
        # See the documents: a day in each life, and a week between two.
        doubt = 0.0 if self.has_good_clock else self._lives * 8.0 * DAY
        return Moment(self.time.now(), self.time.passed, doubt)

    def go_on(self, seconds: float) -> None:
        """Let time pass, and the HSM do what is due."""
        self.time.go_on(seconds)
        self.oracle.consents.time.pass_by(seconds, self.time.now())
        self.say(f"{timedelta(seconds=int(seconds))} pass")
        self.work()

    def work(self) -> None:
        """Let the HSM do what is due."""
        try:
            for worker in self._caretakers:
                worker.work()
        except SimulatedCrash:
            self._die("at its own work")
        if self._life.is_over:
            self.open()
        self.oracle.read_trail()

    # Requests.

    def request(
        self,
        caller: Caller,
        operation: Operation[Any],
        *,
        idempotency_key: str | None = None,
        item: Item | None = None,
        has_fault: bool = False,
        has_no_trail: bool = False,
    ) -> Answer:
        """Send a request, and judge what comes back."""
        self._numbers += 1
        caller = msgspec.structs.replace(caller, request_id=f"request-{self._numbers}")
        request = Request(
            self._numbers,
            caller,
            operation,
            idempotency_key,
            item,
            has_fault=has_fault,
            has_no_trail=has_no_trail,
        )
        if not self._requests:
            answer = self._judged(request)
            self._after(request, answer)
            return answer
        return self._judged(request)

    def _after(self, request: Request, answer: Answer) -> None:
        """See to it that what is lost is found again, and what was spent is spent."""
        if answer.code == "crash":
            self._die(f"in {request}")
            self.open()
        elif self.oracle.lost:
            self.faults.clear()
            self.go_on(2)
        elif self.oracle.consents.lost_asks or self.oracle.consents.lost_steps:
            self.faults.clear()
            self.go_on(2)
        self._settle()
        ask = request.ask
        if ask is not None and ask.consent is not None and not request.has_fault:
            asked = ops.GetApproval(approval_id=ask.consent.approval_id)
            self.oracle.check_consent(self.hsm(LOOKER).execute(asked))

    def _judged(self, request: Request) -> Answer:
        oracle = self.oracle
        if oracle.concerns_people(request):
            oracle.consents.time.look(self.time.now())
        request.expected += self._expected(request)
        self._requests.append(request)
        try:
            answer = self._sent(request)
        except SimulatedCrash:
            self._say(request, "?")
            oracle.lose(request)
            if len(self._requests) > 1:
                raise
            return Answer("crash")
        finally:
            self._requests.pop()
        needed = request.ask, request.may_need_nobody
        request.expected += self._expected(request)
        if not isinstance(request.expected[0], Refusal):
            # What it needed, it needed when it was sent.
            request.ask, request.may_need_nobody = needed
        self._say(request, answer.code)
        if answer.approval_id and answer.approval_id not in self.asked:
            self.asked[answer.approval_id] = request.caller, request.operation
        if answer.code == "ok":
            oracle.answered(request, answer.result)
        else:
            oracle.refused(request, answer.code, answer.approval_id)
        return answer

    def _expected(self, request: Request) -> list[Expected]:
        """Return what a request may lead to, by what is known and what is begun."""
        outer = next((o for o in self._requests if o.number < request.number), None)
        if outer is not None and outer.ask is not None:
            request.in_use = outer.ask.consent
        found = self.oracle.expect(request)
        if outer is not None:
            # What others began may be done, though nobody was told so.
            ask = request.ask
            found += self.oracle.expect_after(request, outer.expected)
            request.may_need_nobody = ask is None or request.ask is None
            request.ask = ask or request.ask
        return found

    def _sent(self, request: Request) -> Answer:
        try:
            result = self.hsm(request.caller).execute(
                request.operation, idempotency_key=request.idempotency_key
            )
        except HSMError as error:
            found = str(error.facts.get("approval_id", ""))
            return Answer(error.code, approval_id=found)
        return Answer("ok", result)

    def approval(self, approval_id: str, comment: str = "") -> ops.Approve:
        """Return the consent to what is stored, as if it had been looked at."""
        stored = self._disk.approvals.get(f"approvals/{approval_id}")
        digest = "00" * 32
        if stored is not None:
            digest = msgspec.json.decode(stored)["approval"]["shown_sha256"]
        return ops.Approve(approval_id=approval_id, digest=digest, comment=comment)

    def hsm(self, caller: Caller) -> HSM:
        """Return the HSM as a caller sees it."""
        assert self._gateway is not None
        return self._gateway.act_as(caller)

    def repeat(self, lost: Lost, was_made: bool) -> None:
        """Send a lost request again, with its idempotency key."""
        request = lost.request
        self._numbers += 1
        name = f"request-{self._numbers}"
        request.caller = msgspec.structs.replace(request.caller, request_id=name)
        if self.oracle.concerns_people(request):
            self.oracle.consents.time.look(self.time.now())
        answer = self._sent(request)
        self._say(request, f"{answer.code}, again")
        if was_made:
            if answer.code != "ok":
                raise ViolationError(f"{request} was made, and is now {answer.code}")
            self.oracle.answered_again(request, answer.result, lost)
        elif answer.code == "ok":
            request.expected = self.oracle.expect(request)
            self.oracle.answered(request, answer.result)
        elif answer.code != "operation_aborted":
            request.expected = self.oracle.expect(request)
            self.oracle.refused(request, answer.code, answer.approval_id)

    # What is looked at.

    def _settle(self) -> None:
        if self.oracle.lost:
            self.oracle.settle(self.all_keys())
        if self.oracle.consents.lost_asks or self.oracle.consents.lost_steps:
            self.survey()
        self.oracle.check_disk()

    def survey(self) -> None:
        """Compare all requests for approval with what is known of them."""
        self.oracle.read_trail()
        hsm, found, cursor = self.hsm(LOOKER), list[ops.ApprovalInfo](), "-"
        while cursor:
            asked = ops.ListApprovals(per_page=100, cursor=cursor.strip("-"))
            page = hsm.execute(asked)
            if page.tampered:
                raise ViolationError(f"Approvals look tampered with: {page.tampered}")
            found += page.items
            cursor = page.next_cursor
        self.oracle.survey(found)

    def all_keys(self) -> list[KeyInfo]:
        """Return all keys, destroyed ones included, as an auditor sees them."""
        hsm, found = self.hsm(LOOKER), list[KeyInfo]()
        for state in (None, KeyState.DESTROYED):
            found += hsm.execute(ops.ListKeys(per_page=200, state=state)).items
        return found

    def check_all(self) -> None:
        """Compare every key with what is known of it, and verify the trail."""
        self._settle()
        for key_id in self.oracle.keys:
            self.check_key(key_id)
        self.survey()
        self.hsm(LOOKER).execute(ops.VerifyAudit())
        self.check_status(is_well=True)

    def check_key(self, key_id: str) -> None:
        """Compare one key with what is known of it."""
        hsm = self.hsm(LOOKER)
        info = hsm.execute(ops.DescribeKey(key_id=key_id))
        versions = hsm.execute(ops.ListVersions(key_id=key_id))
        self.oracle.check_key(info, versions)

    def check_status(self, *, is_well: bool) -> None:
        """Require that the status says how the HSM is."""
        status = self.hsm(LOOKER).execute(ops.Status())
        if status.store.locked or status.store.findings:
            raise ViolationError(f"It is locked: {status.store.locked}")
        is_well = is_well and not status.schedules.held
        if (status.state == "operational") is not is_well:
            raise ViolationError(f"Its status is {status.state}.")

    def process(self, item: Item, caller: Caller) -> Answer:
        """Process something that a key made once."""
        key = self.oracle.keys[item.key_id]
        return self.request(caller, processing(key, item), item=item)

    # The story.

    def set_clock(self, seconds: float) -> None:
        """Let somebody set the clock."""
        self.time.step(seconds)
        self.oracle.consents.time.see(self.time.now())
        self.say("the clock is set")

    def say(self, text: str) -> None:
        """Tell a line of the story."""
        if self._tell is not None:
            self._tell(f"{self.wall_time:%Y-%m-%d %H:%M} {text}")

    def _say(self, request: Request, answer: str) -> None:
        indent = "  " * len(self._requests)
        self.say(f"{indent}{request} -> {answer}")


def processing(key: Key, item: Item) -> Operation[Any]:
    """Return the operation that processes what a key made."""
    if key.algorithm.startswith("AES"):
        return ops.Decrypt(key_id=key.key_id, ciphertext=item.made)
    if key.algorithm.startswith("HMAC"):
        return ops.VerifyMac(
            key_id=key.key_id, message=item.message, mac=item.made, version=item.version
        )
    return ops.Verify(
        key_id=key.key_id,
        message=item.message,
        signature=item.made,
        version=item.version,
    )


def making(key: Key, message: bytes) -> Operation[Any]:
    """Return the operation by which a key makes something."""
    if key.algorithm.startswith("AES"):
        return ops.Encrypt(key_id=key.key_id, plaintext=message)
    if key.algorithm.startswith("HMAC"):
        return ops.ComputeMac(key_id=key.key_id, message=message)
    return ops.Sign(key_id=key.key_id, message=message)
