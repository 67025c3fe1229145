# SPDX-License-Identifier: MIT
"""
Sixteen threads that use a key while something ends that, and what must hold then.

Nothing is answered to who asks after the end was acknowledged; every answer is on
record; and no record of a use stands behind that of its end.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias
from unittest.mock import patch

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.crypto.registry import CryptoRegistry
from hsm_core.errors import HSMError
from hsm_core.factory import OpenHSM, open_hsm
from hsm_core.model import AuditEvent, Role
from hsm_core.protocols import Clock, RemoteKeyVault
from hsm_core.session import Session
from hsm_core.settings import AuditStoreKind, AuditSync, KeyStoreKind, Settings
from hsm_core.testing import caller
from tests.self_tests import open_tested

THREADS: Final = 16
PATIENCE: Final = 120.0
"""How long a thread is waited for, in seconds."""

OUTAGE: Final = frozenset({"audit_unavailable", "storage_full", "store_unavailable"})
"""What uses are refused with while a disk fails."""

CROWD: Final = "crowd"
"""Principal of who uses keys."""

MESSAGE: Final = b"m" * 100

KEYS: Final[dict[str, Any]] = {"master_key": b"\x01" * 32, "hmac_key": b"\x02" * 32}
"""Of every site."""

Work: TypeAlias = Callable[[], object]


class Refused(Exception):  # noqa: N818 (an answer, as good as any)
    """What a request over the network was answered with."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


OPEN: Final = """
version: 1
extends: default
rules:
  - name: frozen
    effect: deny
    match: {operations: [use], tags: [frozen]}
"""
"""The policy of a site: nobody uses a key with the tag frozen."""

SHUT: Final = f"{OPEN}  - {{name: shut, effect: deny, match: {{operations: [use]}}}}\n"
"""The policy in which nobody uses any key."""


@dataclass
class Site:
    """
    An HSM on disk, and the ways to reach it.

    Attributes:
        folder: Where it lies.
        kind: How keys and trail are kept.
        gateway: The open HSM.
        session: Somebody who may do everything.
        tried: How many trials there were.
    """

    folder: Path
    kind: KeyStoreKind
    gateway: OpenHSM
    session: Session
    tried: int = 0

    @property
    def audit_path(self) -> Path:
        """The trail, if it is in files."""
        return self.folder / "audit.log"

    @property
    def policy_path(self) -> Path:
        """The file of the policy."""
        return self.folder / "policy.yaml"

    def as_user(self, number: int) -> Session:
        """Return a session of one of those who use keys."""
        who = caller(Role.SERVICE, principal=CROWD)
        who = msgspec.structs.replace(who, request_id=f"thread-{number}")
        return Session(self.gateway.act_as(who))

    def events_since(self, seq: int) -> Iterator[AuditEvent]:
        """Return the records behind one, in their order."""
        at: int | None = seq + 1
        hsm = self.gateway.act_as(caller(Role.AUDITOR, principal="reader"))
        while at is not None:
            asked = ops.ListAuditEvents(start_seq=at, ascending=True, limit=1000)
            page = hsm.execute(asked)
            yield from (entry.event for entry in page.items)
            at = page.next_seq

    def head(self) -> int:
        """Return the number of the newest record."""
        return self.session.status().audit.head_seq


@contextmanager
def open_site(
    folder: Path,
    kind: KeyStoreKind,
    *,
    sync: AuditSync = AuditSync.BOUNDED,
    clock: Clock | None = None,
    policy: str = OPEN,
    vault: RemoteKeyVault | None = None,
    registry: CryptoRegistry | None = None,
) -> Iterator[Site]:
    """
    Open an HSM with keys and trail in files or in SQLite.

    Args:
        folder: Where all of it lies.

        kind: How keys and trail are kept.

        sync: When an answer goes out.

        clock: Time; the system's by default.

        policy: What its file holds.

        vault: Where the keys lie in its place.

        registry: What computes; one that was tested before by default.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / "policy.yaml"
    path.write_text(policy)
    path.chmod(0o600)
    is_files = kind is KeyStoreKind.FILESYSTEM
    settings = Settings(
        key_store=kind,
        key_dir=folder / "keys",
        sqlite_path=folder / "keys.sqlite",
        audit_store=AuditStoreKind.FILE if is_files else AuditStoreKind.SQLITE,
        audit_log=folder / "audit.log",
        audit_sqlite_path=folder / "audit.sqlite",
        audit_sync=sync,
        audit_timeout_seconds=60.0,
        policy_config=path,
        # Only who is told to reads it again.
        policy_reload_interval_seconds=3600.0,
    )
    with ExitStack() as stack:
        if registry is None:
            opened = open_tested(settings, clock=clock, vault=vault)
        else:
            with patch("hsm_core.factory.default_registry", return_value=registry):
                opened = open_hsm(settings, test_all=False, **KEYS)
        gateway = stack.enter_context(opened)
        yield Site(folder, kind, gateway, Session(gateway.act_as(caller())))


@contextmanager
def hasty_threads() -> Iterator[None]:
    """Let threads take turns a hundred times as often as they do by default."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


ALGORITHMS: Final = ("p256", "aes", "hmac-sha256", "ml-kem-768")
"""Of these a trial takes one after another."""


def protecting(session: Session, key: str, algorithm: str) -> list[Work]:
    """Return uses that make something, one by one and in batches."""
    text = ops.EncryptItem(plaintext=MESSAGE)
    works: Mapping[str, list[Work]] = {
        "p256": [
            lambda: session.sign(key, MESSAGE),
            lambda: session.sign_batch(key, [ops.SignItem(message=MESSAGE)] * 3),
        ],
        "aes": [
            lambda: session.encrypt(key, MESSAGE),
            lambda: session.encrypt_batch(key, [text] * 3),
        ],
        "hmac-sha256": [
            lambda: session.mac(key, MESSAGE),
            lambda: session.mac_batch(key, [ops.MacInput(message=MESSAGE)] * 3),
        ],
        "ml-kem-768": [lambda: session.encapsulate(key)],
    }
    return works[algorithm]


def processing(session: Session, key: str, algorithm: str) -> list[Work]:
    """Return uses that take what such a use has made, made now."""
    match algorithm:
        case "p256":
            signature = session.sign(key, MESSAGE).signature
            return [lambda: session.verify(key, MESSAGE, signature)]
        case "aes":
            ciphertext = session.encrypt(key, MESSAGE)
            return [lambda: session.decrypt(key, ciphertext)]
        case "hmac-sha256":
            mac = session.mac(key, MESSAGE).mac
            return [lambda: session.verify_mac(key, MESSAGE, mac)]
        case _:
            made = session.encapsulate(key).ciphertext
            return [lambda: session.decapsulate(key, made)]


@dataclass
class Seen:
    """
    What one thread has seen.

    Attributes:
        answered: How many uses were answered.
        late: How many of them were asked for after the end was acknowledged.
        refused: The code of the refusal that it ended with.
        other: Other codes.
    """

    answered: int = 0
    late: int = 0
    refused: str = ""
    other: Counter[str] = field(default_factory=Counter)


class Crowd:
    """
    Threads that use a key until each is refused.

    Args:
        codes: What they are refused with, once it ends.

        stops: Whether nothing may be answered behind the end.

    Attributes:
        over: Set when the end was acknowledged.
    """

    def __init__(self, codes: frozenset[str], *, stops: bool = True) -> None:
        self._codes = codes
        self._stops = stops
        self._begin = threading.Barrier(THREADS + 1)
        self._warm = threading.Semaphore(0)
        self._broken = threading.Event()
        self.over = threading.Event()

    def run(self, works: list[list[Work]], end: Work) -> list[Seen]:
        """
        Let all threads work, end it in their middle, and return what they have seen.

        Args:
            works: For each thread, what it does in turn.

            end: Returns when the end is acknowledged.
        """
        with ThreadPoolExecutor(THREADS) as pool:
            using = [pool.submit(self._use, mine) for mine in works]
            self._begin.wait(PATIENCE)
            # Each is known to the HSM, and in the middle of it.
            for _ in works:
                assert self._warm.acquire(timeout=PATIENCE)
            try:
                end()
                self.over.set()
            except BaseException:
                self._broken.set()
                raise
            return [user.result(PATIENCE) for user in using]

    def _use(self, works: list[Work]) -> Seen:
        seen = Seen()
        self._begin.wait(PATIENCE)
        while not (seen.refused or seen.late or self._broken.is_set()):
            work = works[(seen.answered + sum(seen.other.values())) % len(works)]
            was_over = self._stops and self.over.is_set()
            try:
                work()
            except (HSMError, Refused) as error:
                if error.code in self._codes:
                    seen.refused = error.code
                else:
                    seen.other[error.code] += 1
                    if was_over:
                        break
            else:
                seen.answered += 1
                seen.late += was_over
            if seen.answered == 1 or (seen.refused and not seen.answered):
                self._warm.release()
        return seen
