# SPDX-License-Identifier: MIT
"""What may end the use of a key in the middle of it, each through a public door."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from typing import ClassVar, Final

import pytest

from hsm_core._internal.keyring.stored_keys import StoreLock
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._internal.stores.remote.leases import RemoteLeases
from hsm_core.errors import LeaseHeldError, SelfTestFailedError
from hsm_core.model import AuditEvent, Integrity, Phase
from hsm_core.protocols import RemoteKeyVault
from hsm_core.testing import FakeClock
from tests.core.faulty_crypto import FaultyProvider
from tests.core.race_support import OPEN, SHUT, Site


class Ending(ABC):
    """
    The end of uses.

    Args:
        site: The HSM.

        key: The key that is used.

    Attributes:
        codes: What uses are refused with then.
        is_recorded: Whether the trail tells of it.
    """

    codes: ClassVar[frozenset[str]]
    is_recorded: ClassVar = True

    def __init__(self, site: Site, key: str) -> None:
        self.site = site
        self.key = key

    @abstractmethod
    def happen(self) -> None:
        """Let it happen, and return when that is acknowledged."""

    @abstractmethod
    def is_outcome(self, event: AuditEvent) -> bool:
        """Return whether a record is that of the end."""

    def undo(self) -> None:  # noqa: B027 (most end one key, for ever)
        """Let keys be used again."""


class KeyChange(Ending):
    """A change of the key itself."""

    codes = frozenset({"wrong_state"})
    kind: ClassVar[str]

    def is_outcome(self, event: AuditEvent) -> bool:
        """Return whether it is the outcome of the change."""
        return (event.kind, event.key_id, event.phase, event.code) == (
            self.kind,
            self.key,
            Phase.OUTCOME,
            "ok",
        )


class Revoke(KeyChange):
    """All versions are revoked."""

    kind = "RevokeKey"

    def happen(self) -> None:
        """Revoke them."""
        self.site.session.revoke(self.key)


class Suspend(KeyChange):
    """The key rests."""

    kind = "SuspendKey"

    def happen(self) -> None:
        """Suspend it."""
        self.site.session.suspend(self.key)


class Destroy(KeyChange):
    """The key is destroyed."""

    kind = "DestroyKey"

    def happen(self) -> None:
        """Destroy it."""
        self.site.session.destroy(self.key)


class Schedule(KeyChange):
    """The key waits for its destruction."""

    kind = "DestroyKey"

    def happen(self) -> None:
        """Let it wait."""
        self.site.session.destroy(self.key, waiting_days=3)


class Label(KeyChange):
    """The key gets a tag with which a rule denies its use."""

    codes = frozenset({"access_denied"})
    kind = "UpdateKey"

    def happen(self) -> None:
        """Give it the tag."""
        self.site.session.update(self.key, tags=["frozen"])


class Reload(Ending):
    """A policy comes into force that denies the use of any key."""

    codes = frozenset({"access_denied"})

    def happen(self) -> None:
        """Put it in force."""
        self._put(SHUT)

    def _put(self, policy: str) -> None:
        self.site.policy_path.write_text(policy)
        assert "" == self.site.gateway.reload_policy()

    def is_outcome(self, event: AuditEvent) -> bool:
        """Return whether it tells of the policy."""
        return event.kind == "system.policy-loaded"

    def undo(self) -> None:
        """Put the former one in force."""
        self._put(OPEN)


class Tamper(Ending):
    """The sealed blob of the key is changed, and found to be so."""

    codes = frozenset({"key_tampered"})

    def happen(self) -> None:
        """Change it, and look at it."""
        path = self.site.folder / "keys" / "keys" / self.key / "v00000001"
        path.write_bytes(bytes(len(path.read_bytes())))
        found = self.site.session.describe(self.key)
        assert Integrity.TAMPERED is found.integrity

    def is_outcome(self, event: AuditEvent) -> bool:
        """Return whether it tells of what was found."""
        return (event.kind, event.key_id) == ("system.tampered", self.key)


class Lock(Ending):
    """The whole HSM is locked, as for a store that is found to be older."""

    codes = frozenset({"hsm_locked"})
    is_recorded = False

    def happen(self) -> None:
        """Lock it: what finds a reason does so, and at a start only."""
        self._lock.set("A test locked it.", {"reason": "test"})

    @property
    def _lock(self) -> StoreLock:
        return self.site.gateway._services.inventory.lock  # noqa: SLF001

    def is_outcome(self, event: AuditEvent) -> bool:
        """Return whether it tells of the lock, which has no record by itself."""
        return False

    def undo(self) -> None:
        """Unlock it."""
        self._lock.open()


class Close(Ending):
    """The HSM is closed."""

    codes = frozenset({"unavailable"})

    def happen(self) -> None:
        """Close it."""
        self.site.gateway.close()

    def is_outcome(self, event: AuditEvent) -> bool:
        """Return whether it tells of the stop."""
        return event.kind == "system.stop"


class FailedTest(Ending):
    """
    The algorithm fails its test of a new key.

    Args:
        provider: Its provider, which computes wrongly once it is told to.
    """

    codes = frozenset({"self_test_failed"})

    def __init__(self, site: Site, key: str, provider: FaultyProvider) -> None:
        super().__init__(site, key)
        self._provider = provider

    def happen(self) -> None:
        """Ask for a key."""
        self._provider.broken = True
        with pytest.raises(SelfTestFailedError):
            self.site.session.create_key("p256")

    def is_outcome(self, event: AuditEvent) -> bool:
        """Return whether it tells that no key was made."""
        return (event.kind, event.code) == ("CreateKey", SelfTestFailedError.code)


class Clocked(Ending):
    """
    Time passes.

    Args:
        clock: That of the HSM.

        seconds: How much.
    """

    is_recorded = False

    def __init__(self, site: Site, key: str, clock: FakeClock, seconds: float) -> None:
        super().__init__(site, key)
        self._clock = clock
        self._seconds = seconds

    def happen(self) -> None:
        """Let it pass."""
        self._clock.advance(self._seconds)

    def is_outcome(self, event: AuditEvent) -> bool:
        """Return whether it tells of it, which nothing does."""
        return False


class Night(Clocked):
    """A rule with a window denies uses from noon to midnight."""

    codes = frozenset({"access_denied"})

    def undo(self) -> None:
        """Wait for the next morning."""
        self._clock.advance(self._seconds)


class LostTenure(Ending):
    """
    The lease of a vault has ended, and another program has it.

    Args:
        clock: That of the HSM.

        vault: That of the HSM.
    """

    is_recorded = False
    codes = frozenset({"store_unavailable"})

    def __init__(
        self, site: Site, key: str, clock: FakeClock, vault: RemoteKeyVault
    ) -> None:
        super().__init__(site, key)
        self._clock = clock
        self._leases = RemoteLeases(vault, clock, SystemEntropy())

    def happen(self) -> None:
        """Let it pass, and take it before the HSM, which looks each second, does."""
        while True:
            self._clock.advance(60)
            with suppress(LeaseHeldError):
                self._leases.acquire("writer", "another", 60)
                return

    def is_outcome(self, event: AuditEvent) -> bool:
        """Return whether it tells of it, which nothing does."""
        return False


ENDINGS: Final[tuple[type[Ending], ...]] = (
    Revoke,
    Suspend,
    Destroy,
    Schedule,
    Label,
    Reload,
    Lock,
)
"""Ends that leave an HSM in which the next trial can be made."""
