# SPDX-License-Identifier: MIT
"""An HSM on simulated media that many threads use, and that loses power under them."""

from __future__ import annotations

import random
import threading

from hsm_core._internal.assembly.assembly import Parts, assemble, open_ring
from hsm_core._internal.crypto.registry import CryptoRegistry
from hsm_core._internal.keyring.key_ring import RootKey
from hsm_core.factory import OpenHSM
from hsm_core.protocols import AuditDrafts, AuditTicket
from hsm_core.settings import ApprovalStoreKind, Settings
from hsm_core.testing import FakeClock, FakeEntropy
from tests.core.dual_support import DemandingPolicy
from tests.simulation.disk import (
    Disk,
    Life,
    SimulatedApprovals,
    SimulatedCrash,
    SimulatedKeyStore,
    SimulatedTrail,
)
from tests.simulation.surroundings import SteppedCaretaker, Time

__all__ = ["Machine", "SimulatedCrash"]

_HMAC_KEY = b"\x02" * 32


class _SharedTrail(SimulatedTrail):
    """A simulated trail that more than one thread writes to."""

    def append(
        self,
        drafts: AuditDrafts,
        /,
        *,
        durable: bool = False,
        reserved: bool = False,
        lazy: bool = False,
    ) -> AuditTicket:
        """Append records, one thread after the other."""
        with _writing:
            return super().append(drafts, durable=durable, reserved=reserved, lazy=lazy)

    def sync(self, end: int) -> None:
        """Make records durable, one thread after the other."""
        with _writing:
            super().sync(end)


_writing = threading.RLock()


class Machine:
    """
    The media, and one life of the HSM after the other.

    Args:
        policy: In force in every life.

        clock: Time.

        registry: Whose self-tests were run.

        seed: Of what a loss of power takes.

    Attributes:
        crashes: How often the power went while somebody did something.
    """

    def __init__(
        self,
        policy: DemandingPolicy,
        clock: FakeClock,
        registry: CryptoRegistry,
        seed: int,
    ) -> None:
        self._disk, self._policy, self._clock = Disk(), policy, clock
        self._registry = registry
        self._chance = random.Random(seed)
        self._entropy = FakeEntropy(seed)
        self._root = RootKey(b"\x01" * 32, entropy=self._entropy)
        self._steps = 0
        self._counting = threading.Lock()
        self.crashes = 0
        self.gateway = self._open()

    @property
    def is_dead(self) -> bool:
        """Whether the power is gone."""
        return self._life.is_over

    def doom(self, steps: int) -> None:
        """Let the power go after so many steps on the media."""
        self._steps = steps

    def restart(self) -> None:
        """Let the power go, if it has not, lose what was not synced, and start."""
        self.crashes += self._life.is_over
        self._life.is_over = True
        self._disk.lose_power(self._chance)
        self._steps = 0
        self.gateway = self._open()

    def _reach(self, point: str) -> None:
        with self._counting:
            self._steps -= 1
            if self._steps == 0:
                self._life.is_over = True
                raise SimulatedCrash

    def _open(self) -> OpenHSM:
        self._life = Life(self._reach)
        store = SimulatedKeyStore(self._disk, self._life)
        trail = _SharedTrail(
            self._disk,
            self._life,
            _HMAC_KEY,
            clock=self._clock,
            entropy=self._entropy,
            strict=True,
        )
        parts = Parts(
            store=store,
            counters=store.uses,
            audit=trail,
            ring=open_ring(store, self._root),
            root=self._root,
            hmac_key=_HMAC_KEY,
            clock=self._clock,
            entropy=self._entropy,
            registry=self._registry,
            approvals=SimulatedApprovals(self._disk, self._life),
            new_worker=lambda: SteppedCaretaker(Time(0)),
        )
        settings = Settings(
            key_store="filesystem", approval_store=ApprovalStoreKind.FILE
        )
        gateway = assemble(settings, parts)
        holder = gateway._services.policy  # noqa: SLF001 (no file says this)
        holder.replace(self._policy, 0)
        return gateway
