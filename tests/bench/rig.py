# SPDX-License-Identifier: MIT
"""What the rows of the benchmarks share: a folder, an HSM, and rivals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from hsm_core.factory import OpenHSM, open_hsm
from hsm_core.session import Session
from hsm_core.settings import AuditSync, Settings
from hsm_core.testing import caller
from tests.bench.harness import Loop
from tests.bench.peers.native import AbsentError
from tests.bench.peers.openssl import OpenSSL
from tests.bench.peers.softhsm import SoftHSM

OWN = "FerroHSM"
RAW = "raw"
BARE = "bare loop"
OPENSSL = "OpenSSL in C"
SOFTHSM = "SoftHSM2"
PATIENT = ("--audit-timeout-secs", "60")
"""Flags of a server that refuses nothing while the disk is busy otherwise."""


class Rig:
    """
    What rows share; each part is made when the first row needs it.

    Args:
        folder: Empty; everything lies below it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def place(self, name: str) -> Path:
        """Return a new folder for one thing."""
        path = self._folder / name
        path.mkdir(mode=0o700)
        return path

    def once(self, name: str, make: Callable[[Path], object]) -> Path:
        """Return a path below which something costly has been made, for all rows."""
        path = self._folder / name
        if not path.exists():
            make(path)
        return path

    def open(self, settings: Settings) -> Session:
        """Return a session of an HSM of its own, which stays open."""
        return session_of(self.opened(settings))

    def opened(self, settings: Settings) -> OpenHSM:
        """Return an HSM of its own, which stays open."""
        return self._stack.enter_context(_opened(settings))

    def settings_in(self, name: str, sync: AuditSync = AuditSync.BOUNDED) -> Settings:
        """Return settings of an HSM on the file system, in a new folder."""
        folder = self.place(name)
        return Settings(
            key_dir=folder / "keys",
            audit_log=folder / "audit.log",
            approval_dir=folder / "approvals",
            audit_sync=sync,
            audit_timeout_seconds=60,
        )

    @cached_property
    def session(self) -> Session:
        """An HSM whose trail is synced within 20 ms, with the built-in policy."""
        return self.open(self.settings_in("own"))

    @cached_property
    def openssl(self) -> OpenSSL:
        """OpenSSL's loops; `AbsentError` if they can't be compiled."""
        return OpenSSL(self.place("openssl"))

    @cached_property
    def softhsm(self) -> SoftHSM:
        """SoftHSM2's loops; `AbsentError` if it is not installed."""
        return SoftHSM(self.place("softhsm"))


class Rivals(dict[str, Loop]):
    """
    Loops by the name of the rival.

    Attributes:
        missing: Why a rival does not run, by its name.
    """

    def __init__(self, own: Loop, raw: Loop | None = None) -> None:
        super().__init__({OWN: own})
        if raw is not None:
            self[RAW] = raw
        self.missing: dict[str, str] = {}

    def told(self, took: dict[str, float]) -> str:
        """Return what one operation took each rival, and who could not run, and why."""
        absent = [f"no {name}: {why}" for name, why in self.missing.items()]
        return "; ".join([told(took), *absent])

    def invite(self, name: str, make: Callable[[], Loop]) -> None:
        """Add a rival if it can run here."""
        try:
            self[name] = make()
        except AbsentError as error:
            self.missing[name] = str(error)


def session_of(opened: OpenHSM) -> Session:
    """Return a session of somebody with every role."""
    return Session(opened.act_as(caller()))


def told(seconds: Mapping[str, float]) -> str:
    """Return what one operation took each rival, in microseconds."""
    return ", ".join(
        f"{name} {_microseconds(took)} µs" for name, took in seconds.items()
    )


def _microseconds(seconds: float) -> str:
    taken = 1e6 * seconds
    return f"{taken:,.0f}" if taken >= 100 else f"{taken:.3g}"


def _opened(settings: Settings) -> OpenHSM:
    # Tests in the background would be counted; each algorithm has its own at first use.
    return open_hsm(settings, master_key=bytes(32), hmac_key=bytes(32), test_all=False)
