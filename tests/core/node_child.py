# SPDX-License-Identifier: MIT
"""
A program that is one node of a cluster, and does what its standard input says.

Usage: ``python -m tests.core.node_child URL NAME FOLDER``; its mark lies in FOLDER, and
NAME.yaml there is its policy, if there is one.

Each line of the input is a JSON object with ``do`` and its arguments; each line of the
output is the answer to one: ``ok`` with what was made, or ``code`` of an error. Between
``load`` and ``rest`` the node signs with a key in threads of its own, whatever comes of
it.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from msgspec.structs import replace

from hsm_core.errors import AuthenticationError, HSMError
from hsm_core.factory import OpenHSM, open_hsm
from hsm_core.model import Caller, KeyId, PolicyIdentity
from hsm_core.operations import Operation, Sign
from hsm_core.protocols import Request
from hsm_core.session import Session
from hsm_core.settings import Settings
from hsm_core.testing import caller

R = TypeVar("R")
_THREADS: Final = 3


class Load:
    """Threads that sign with a key until it is replaced."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._key_id = ""
        self.signed = 0

    def begin(self, key_id: str) -> None:
        """Sign with a key from now on."""
        is_first, self._key_id = not self._key_id, key_id
        if is_first:
            for _ in range(_THREADS):
                threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while key_id := self._key_id:
            with suppress(HSMError):
                self._session.sign(key_id, b"load")
                self.signed += 1

    def end(self) -> None:
        """Sign no more."""
        self._key_id = ""


def execute_as(hsm: OpenHSM, certificate: str, operation: Operation[R]) -> R:
    """Execute for whom a client certificate names, checked as a server does."""
    stranger = Caller(principal="", roles=frozenset(), certificate_sha256=certificate)

    def known() -> PolicyIdentity:
        person = hsm.identify(stranger)
        if person is None:
            raise AuthenticationError
        return person

    def check() -> None:
        if known() != person:
            raise AuthenticationError

    person = known()
    who = replace(stranger, principal=person.principal, roles=person.roles)
    pipeline: Any = hsm._pipeline  # noqa: SLF001 (as servers do)
    result: R = pipeline.execute(Request(who, operation, check=check))
    return result


def act(hsm: OpenHSM, session: Session, load: Load, wanted: dict[str, Any]) -> object:
    """Do what one line says."""
    kind, key_id = wanted["do"], wanted.get("key", "")
    if "certificate" in wanted:
        sign = Sign(key_id=KeyId(key_id), message=b"asked")
        return execute_as(hsm, wanted["certificate"], sign).version
    if kind == "reload":
        return hsm.reload_policy()
    if kind == "create":
        made = session.create_key(
            "Ed25519", name=wanted.get("name", ""), idempotency_key=wanted.get("once")
        )
        return made.key_id
    if kind == "sign":
        return session.sign(key_id, b"asked").version
    if kind == "load":
        load.begin(key_id)
        return load.signed
    if kind == "rest":
        load.end()
        return load.signed
    if kind in {"revoke", "suspend", "rotate"}:
        change = getattr(session, kind)
        return change(key_id, idempotency_key=wanted.get("once")).generation
    raise AssertionError(kind)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def write(answer: dict[str, object]) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Open the node, and act line by line."""
    url, name, folder = sys.argv[1:]
    mark = Path(folder) / f"{name}.mark"
    policy = mark.with_suffix(".yaml")
    settings = Settings(
        store=url,
        node_name=name,
        node_mark=mark,
        certificate_identities=True,
        policy_config=policy if policy.exists() else None,
        policy_reload_interval_seconds=3600,
    )
    root, audit_key = b"\x01" * 32, b"\x02" * 32
    with open_hsm(settings, master_key=root, hmac_key=audit_key) as hsm:
        session = Session(hsm.act_as(caller()))
        load = Load(session)
        write({"ok": "open"})
        for line in sys.stdin:
            try:
                wanted = json.loads(line)
                answer: dict[str, object] = {"ok": act(hsm, session, load, wanted)}
            except HSMError as error:
                causes = [repr(found) for found in _chain(error)]
                answer = {"code": error.code, "causes": causes}
            write(answer)
        load.end()


if __name__ == "__main__":
    main()
