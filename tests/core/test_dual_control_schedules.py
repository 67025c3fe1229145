# SPDX-License-Identifier: MIT
"""
Random concurrent schedules on approvals, each history checked for linearizability.

``FERROHSM_SCHEDULES`` is how many; a failing one names its seed.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core.factory import OpenHSM
from hsm_core.model import ApprovalDemand, Role
from hsm_core.testing import FakeClock, caller
from tests.core.approval_histories import Model, Step, is_linearizable
from tests.core.dual_support import DemandingPolicy, ask, dual_hsm, ed25519, sign

SCHEDULES = int(os.environ.get("FERROHSM_SCHEDULES", "5000"))
_PER_HSM = 250
_THREADS = 3


@pytest.fixture(autouse=True)
def _switching() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


class Stage:
    """An HSM in memory, and people who use it."""

    def __init__(self, gateway: OpenHSM, policy: DemandingPolicy, clock: FakeClock):
        self.gateway = gateway
        self.policy = policy
        self.clock = clock
        self.key = ed25519(gateway)
        self.ticks = count()
        self.done = 0

    def make(self, kind: str, who: str, asked: ops.ApprovalInfo, payload: bytes) -> str:
        """Make a step, and return its answer."""
        hsm = self.gateway.act_as(caller(principal=who))
        approval_id = asked.approval_id
        try:
            match kind:
                case "approve":
                    operation = ops.Approve(approval_id=approval_id)
                    return hsm.execute(operation).state.value
                case "deny":
                    deny = ops.Deny(approval_id=approval_id, reason="no")
                    return hsm.execute(deny).state.value
                case "cancel":
                    cancel = ops.CancelApproval(approval_id=approval_id)
                    return hsm.execute(cancel).state.value
                case "execute":
                    hsm.execute(sign(self.key, payload), approval_id=approval_id)
                    return "done"
                case _:
                    self.clock.advance(3600)
                    return "passed"
        except (
            errors.AccessDeniedError,
            errors.ApprovalNotFoundError,
            errors.ApprovalRequiredError,
            errors.ConflictError,
        ):
            return "refused"

    def play(self, seed: int, pool: ThreadPoolExecutor) -> None:
        """Play one schedule and check its history."""
        dice = random.Random(seed)
        quorum = dice.randint(1, 5)
        self.policy.demands["Sign"] = (ApprovalDemand(rule="r", quorum=quorum),)
        payload = seed.to_bytes(8, "big")
        ann = self.gateway.act_as(caller(principal="ann"))
        asked = ask(ann, sign(self.key, payload))
        early = [f"p{number}" for number in range(dice.randint(0, quorum))]
        for name in early:
            self.make("approve", name, asked, payload)
        plan = [_step(dice, quorum) for _ in range(dice.randint(3, 6))]
        barrier = threading.Barrier(_THREADS)
        shares = [plan[n::_THREADS] for n in range(_THREADS)]
        jobs = [
            pool.submit(self._share, share, asked, payload, barrier) for share in shares
        ]
        history = [step for job in jobs for step in job.result()]
        reader = self.gateway.act_as(caller(Role.AUDITOR, principal="reader"))
        final = reader.execute(ops.GetApproval(approval_id=asked.approval_id))
        state = "pending" if len(early) < quorum else "granted"
        start = Model(quorum, state, frozenset(early))

        assert [] == [s for s in history if s.kind == "swap" and s.answer != "refused"]
        assert 1 >= sum(step.answer == "done" for step in history), seed
        assert "ann" not in {decision.principal for decision in final.decisions}, seed
        told = [step for step in history if step.kind != "swap"]
        assert is_linearizable(told, start, final.state.value), (
            seed,
            told,
            final.state,
        )
        self.done += any(step.answer == "done" for step in history)

    def _share(
        self,
        share: Sequence[tuple[str, str]],
        asked: ops.ApprovalInfo,
        payload: bytes,
        barrier: threading.Barrier,
    ) -> list[Step]:
        barrier.wait()
        found = []
        for kind, who in share:
            swapped = kind == "swap"
            began = next(self.ticks)
            answer = self.make(
                "execute" if swapped else kind,
                who,
                asked,
                b"another" if swapped else payload,
            )
            found.append(Step(kind, who, answer, began, next(self.ticks)))
        return found


def _step(dice: random.Random, quorum: int) -> tuple[str, str]:
    kind = dice.choices(
        ["execute", "approve", "deny", "cancel", "expire", "swap"],
        [40, 30, 8, 5, 5, 12],
    )[0]
    people = ["ann", *(f"p{number}" for number in range(quorum + 1))]
    if kind in {"execute", "swap"}:
        return kind, "ann" if dice.random() < 0.9 else "p0"
    if kind == "cancel":
        return kind, "ann" if dice.random() < 0.8 else "p0"
    return kind, dice.choice(people)


def test_schedules() -> None:
    """No self-approval, no double spend, no payload swap; all is linearizable."""
    done = 0
    with ThreadPoolExecutor(_THREADS) as pool:
        for first in range(0, SCHEDULES, _PER_HSM):
            clock, policy = FakeClock(), DemandingPolicy()
            with dual_hsm(policy, clock=clock) as gateway:
                stage = Stage(gateway, policy, clock)
                for seed in range(first, min(first + _PER_HSM, SCHEDULES)):
                    stage.play(seed, pool)
                done += stage.done

    assert SCHEDULES // 10 < done < SCHEDULES


class TestChecker:
    """The checker finds what it is made to find."""

    def test_a_double_spend(self) -> None:
        """Two that were done under one approval have no order."""
        steps = [Step("execute", "ann", "done", n, n + 2) for n in (0, 1)]

        assert not is_linearizable(steps, Model(1, "granted"), "consumed")
        assert is_linearizable(steps[:1], Model(1, "granted"), "consumed")

    def test_a_self_approval(self) -> None:
        """What the requester granted themselves has no order."""
        steps = [Step("approve", "ann", "granted", 0, 1)]

        assert not is_linearizable(steps, Model(1), "granted")

    def test_a_revived_expiry(self) -> None:
        """What was done after it had expired has no order; before, it has."""
        late = [
            Step("expire", "", "passed", 0, 1),
            Step("execute", "ann", "done", 2, 3),
        ]
        mixed = [
            Step("expire", "", "passed", 0, 3),
            Step("execute", "ann", "done", 1, 2),
        ]

        assert not is_linearizable(late, Model(1, "granted"), "consumed")
        assert is_linearizable(mixed, Model(1, "granted"), "consumed")

    def test_an_acknowledged_denial(self) -> None:
        """AP-05: a denial that was acknowledged wins over what comes later."""
        steps = [
            Step("deny", "bob", "denied", 0, 1),
            Step("approve", "carl", "granted", 2, 3),
        ]

        assert not is_linearizable(steps, Model(1), "granted")
