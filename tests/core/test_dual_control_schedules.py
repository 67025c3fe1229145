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
from dataclasses import dataclass, replace
from itertools import count

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core.factory import OpenHSM
from hsm_core.model import ApprovalDemand, Role
from hsm_core.testing import FakeClock, caller
from tests.core.approval_histories import Model, Step, is_linearizable
from tests.core.dual_crashes import Machine, SimulatedCrash
from tests.core.dual_support import DemandingPolicy, ask, dual_hsm, ed25519, sign
from tests.self_tests import shared_registry

SCHEDULES = int(os.environ.get("FERROHSM_SCHEDULES", "1000"))
_PER_HSM = 250
_MORTAL = 20
"""Of so many schedules there is another one in which the power goes."""

_PER_MACHINE = 25
_THREADS = 3


@pytest.fixture(autouse=True)
def _switching() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@dataclass(frozen=True)
class Scene:
    """
    One approval, and who has consented before the schedule begins.

    Attributes:
        payload: What ann wants to sign.
    """

    seed: int
    dice: random.Random
    quorum: int
    asked: ops.ApprovalInfo
    payload: bytes
    early: frozenset[str]


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
                    operation = ops.Approve(
                        approval_id=approval_id, digest=asked.digest
                    )
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
        scene = self._set(seed)
        history = self._together(scene, pool, scene.dice.randint(3, 6))
        self._judge(scene, history)

    def _set(self, seed: int) -> Scene:
        """Let ann ask for something, and some people consent."""
        dice = random.Random(seed)
        quorum = dice.randint(1, 5)
        self.policy.demands["Sign"] = (ApprovalDemand(rule="r", quorum=quorum),)
        payload = seed.to_bytes(8, "big")
        ann = self.gateway.act_as(caller(principal="ann"))
        asked = ask(ann, sign(self.key, payload))
        early = [f"p{number}" for number in range(dice.randint(0, quorum))]
        for name in early:
            self.make("approve", name, asked, payload)
        return Scene(seed, dice, quorum, asked, payload, frozenset(early))

    def _together(
        self, scene: Scene, pool: ThreadPoolExecutor, count: int
    ) -> list[Step]:
        """Let people do something at the same time; return what they were told."""
        plan = [_step(scene.dice, scene.quorum) for _ in range(count)]
        barrier = threading.Barrier(_THREADS)
        shares = [plan[n::_THREADS] for n in range(_THREADS)]
        jobs = [pool.submit(self._share, share, scene, barrier) for share in shares]
        return [step for job in jobs for step in job.result()]

    def _judge(self, scene: Scene, history: list[Step]) -> None:
        """Check a history, and count it if the approval was used."""
        reader = self.gateway.act_as(caller(Role.AUDITOR, principal="reader"))
        wanted = ops.GetApproval(approval_id=scene.asked.approval_id)
        final = reader.execute(wanted)
        state = "pending" if len(scene.early) < scene.quorum else "granted"
        start = Model(scene.quorum, state, scene.early)
        seed = scene.seed

        assert [] == [
            s for s in history if s.kind == "swap" and s.answer not in _NOTHING
        ], seed
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
        self, share: Sequence[tuple[str, str]], scene: Scene, barrier: threading.Barrier
    ) -> list[Step]:
        barrier.wait()
        found = []
        for kind, who in share:
            swapped = kind == "swap"
            began = next(self.ticks)
            answer = self.make(
                "execute" if swapped else kind,
                who,
                scene.asked,
                b"another" if swapped else scene.payload,
            )
            found.append(Step(kind, who, answer, began, next(self.ticks)))
        return found


class MortalStage(Stage):
    """The same, and in the middle of each schedule the power goes."""

    def __init__(
        self,
        machine: Machine,
        policy: DemandingPolicy,
        clock: FakeClock,
    ) -> None:
        super().__init__(machine.gateway, policy, clock)
        self._machine = machine

    def make(self, kind: str, who: str, asked: ops.ApprovalInfo, payload: bytes) -> str:
        """Make a step; what the power interrupts has no answer."""
        try:
            return super().make(kind, who, asked, payload)
        except (SimulatedCrash, errors.UnavailableError):
            # Whoever waits for another thread, which died, is told that it failed.
            assert self._machine.is_dead
            return "lost"

    def play(self, seed: int, pool: ThreadPoolExecutor) -> None:
        """Play a schedule, with a restart in it, and check its history."""
        scene = self._set(seed)
        self._machine.doom(scene.dice.randint(1, 40))
        history = self._together(scene, pool, scene.dice.randint(3, 6))
        self._machine.restart()
        self.gateway = self._machine.gateway
        # What was interrupted is settled by now: it was done before, or never is.
        settled = next(self.ticks)
        history = [
            replace(step, ended=settled) if step.answer == "lost" else step
            for step in history
        ]
        self._judge(
            scene, history + self._together(scene, pool, scene.dice.randint(1, 3))
        )


_NOTHING = {"refused", "lost"}


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


def test_schedules_with_a_loss_of_power() -> None:
    """Nor if the HSM dies in the middle of it, and is started again."""
    done = crashes = 0
    count = max(SCHEDULES // _MORTAL, 1)
    registry = shared_registry()
    with ThreadPoolExecutor(_THREADS) as pool:
        for first in range(0, count, _PER_MACHINE):
            clock, policy = FakeClock(), DemandingPolicy()
            machine = Machine(policy, clock, registry, first)
            stage = MortalStage(machine, policy, clock)
            for seed in range(first, min(first + _PER_MACHINE, count)):
                stage.play(seed, pool)
            done, crashes = done + stage.done, crashes + machine.crashes

    assert count // 20 < done < count
    assert count // 4 < crashes


class TestChecker:
    """The checker finds what it is made to find."""

    def test_a_double_spend(self) -> None:
        """Two that were done under one approval have no order."""
        steps = [Step("execute", "ann", "done", n, n + 2) for n in (0, 1)]

        assert not is_linearizable(steps, Model(1, "granted"), "consumed")
        assert is_linearizable(steps[:1], Model(1, "granted"), "consumed")

    def test_an_answer_that_was_lost(self) -> None:
        """Something the power interrupted was done, or was not, but not twice."""
        lost = Step("execute", "ann", "lost", 0, 1)
        again = Step("execute", "ann", "done", 2, 3)
        refused = Step("execute", "ann", "refused", 2, 3)

        for steps, final in [
            ([lost, again], "consumed"),
            ([lost, refused], "consumed"),
            ([lost], "granted"),
        ]:
            assert is_linearizable(steps, Model(1, "granted"), final)
        assert not is_linearizable([lost, refused], Model(1, "granted"), "granted")
        assert not is_linearizable(
            [lost, again, replace(again, began=4, ended=5)],
            Model(1, "granted"),
            "consumed",
        )
