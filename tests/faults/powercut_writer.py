# SPDX-License-Identifier: MIT
"""
Keeps an embedded HSM busy until it is stopped, and writes down what was acknowledged.

Usage: ``python -m tests.faults.powercut_writer FOLDER JOURNALS KIND SEED``. The HSM
lies in FOLDER, whose power will be cut; each thread has a journal in JOURNALS, which
are elsewhere.
"""

import base64
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from hsm_core import operations as ops
from hsm_core.factory import OpenHSM, open_hsm
from hsm_core.model import Caller, Role
from hsm_core.protocols import HSM
from hsm_core.settings import AuditStoreKind, Settings
from tests.faults.expectation import Expectation, ExpectedKey
from tests.faults.journal import Journal, Outcome

MASTER_KEY: Final = b"\x51" * 32
HMAC_KEY: Final = b"\x52" * 32
THREADS: Final = 3

_USES: Final = {"EC-P256": "Sign", "Ed25519": "Sign", "AES-256-GCM": "Encrypt"}
_LIVE_KEYS: Final = 5
_PATIENT_SECONDS: Final = 60.0
"""For records; the clock runs on while the process is stopped and copied."""


def settings_of(folder: Path, kind: str) -> Settings:
    """Return the settings of an HSM over files, or over SQLite."""
    if kind == "filesystem":
        return Settings(
            key_dir=folder / "keys",
            audit_log=folder / "audit.log",
            audit_segment_bytes=256 * 1024,
            audit_timeout_seconds=_PATIENT_SECONDS,
        )
    return Settings(
        key_store="sqlite",
        sqlite_path=folder / "keys.sqlite",
        audit_store=AuditStoreKind.SQLITE,
        audit_log=None,
        audit_sqlite_path=folder / "audit.sqlite",
        audit_timeout_seconds=_PATIENT_SECONDS,
    )


class Writer:
    """One thread's keys, and what it was told of them."""

    def __init__(self, gateway: OpenHSM, name: str, journals: Path, seed: str) -> None:
        self._gateway = gateway
        self._name = name
        self._random = random.Random(f"{seed} {name}")
        self._journal = Journal(journals / f"{name}.journal")
        self._expected = Expectation({})
        self._created = 0

    def work(self) -> None:
        """Do one thing after the other, for ever."""
        while True:
            live = [k for k in self._expected.keys.values() if not k.is_destroyed]
            if len(live) < 2 or (
                len(live) < _LIVE_KEYS and self._random.random() < 0.2
            ):
                self._create()
            elif self._random.random() < 0.6:
                self._change(self._random.choice(live))
            else:
                self._use(self._random.choice(live))

    def _create(self) -> None:
        self._created += 1
        name = f"{self._name}-{self._created}"
        algorithm = self._random.choice(sorted(_USES))
        self._do("CreateKey", name, {"algorithm": algorithm, "name": name})

    def _change(self, key: ExpectedKey) -> None:
        retired, is_active = key.with_state("retired"), key.current.state == "active"
        kinds: list[tuple[str, dict[str, Any]]] = [("RotateKey", {})] * 5
        if retired and is_active:
            kinds += [("Rollback", {"version": self._random.choice(retired)})] * 2
        if is_active:
            kinds.append(("RevokeKey", {"reason": "a test"}))
        if len(key.versions) > 3:
            kinds += [("DestroyKey", {})] * 2
        kind, body = self._random.choice(kinds)
        self._do(kind, key.name, body)

    def _use(self, key: ExpectedKey) -> None:
        if key.current.state == "active":
            kind = _USES[key.algorithm]
            field = "message" if kind == "Sign" else "plaintext"
            data = base64.b64encode(self._random.randbytes(50)).decode()
            self._do(kind, key.name, {field: data})

    def _do(self, kind: str, name: str, body: dict[str, Any]) -> None:
        entry = self._journal.begin(kind, name, body)
        fields = dict(body)
        if kind != "CreateKey":
            fields["key_id"] = self._expected.key_id(name)
        operation = msgspec.convert(fields, getattr(ops, kind))
        result = self._hsm(f"{self._name}.{entry.number}").execute(operation)
        outcome = Outcome(200, msgspec.to_builtins(result))
        self._journal.end(outcome)
        self._expected.apply(entry, outcome)

    def _hsm(self, request_id: str) -> HSM:
        roles = frozenset({Role.ADMINISTRATOR, Role.OPERATOR})
        return self._gateway.act_as(
            Caller(principal=self._name, roles=roles, request_id=request_id)
        )


def main(folder: Path, journals: Path, kind: str, seed: str) -> None:
    """Work in some threads until killed; the first failure ends it all."""
    gateway = open_hsm(
        settings_of(folder, kind), master_key=MASTER_KEY, hmac_key=HMAC_KEY
    )
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    failed = threading.Event()

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            failed.set()

    for number in range(THREADS):
        writer = Writer(gateway, f"w{number}", journals, seed)
        threading.Thread(target=guarded, args=(writer.work,), daemon=True).start()
    failed.wait()
    sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4])
