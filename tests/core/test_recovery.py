# SPDX-License-Identifier: MIT
"""
A crash at every named point of every mutation.

At each point the data directory is copied as it is, and an HSM is opened on the copy:
what it shows is the old state or the new one, wholly, and the trail tells which.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.lib.failpoints import install
from hsm_core.model import KeyInfo, KeyState
from hsm_core.session import Session
from hsm_core.testing import caller
from tests.core.changed_stores import DATA, Data, FilesystemData, problems

Change = Callable[[Session, str, str], KeyInfo]

CHANGES: dict[str, Change] = {
    "CreateKey": lambda s, _, t: s.create_key("aes", name="new", idempotency_key=t),
    "RotateKey": lambda s, k, t: s.rotate(k, idempotency_key=t),
    "Rollback": lambda s, k, t: s.rollback(k, 1, idempotency_key=t),
    "RevokeKey": lambda s, k, t: s.revoke(k, version=1, idempotency_key=t),
    "DestroyKey": lambda s, k, t: s.destroy(k, idempotency_key=t),
    "UpdateKey": lambda s, k, t: s.update(k, name="new", idempotency_key=t),
    "SuspendKey": lambda s, k, t: s.suspend(k, idempotency_key=t),
    "SetRotation": lambda s, k, t: s.set_rotation(k, max_uses=9, idempotency_key=t),
}
if os.environ.get("FERROHSM_FAULTS") != "1":
    # They pass the same points as a rotation and an update do.
    for same in ("Rollback", "SuspendKey", "SetRotation"):
        del CHANGES[same]

SET_UP_EVENTS = 7
"""system.start, then intent and outcome of a creation and a rotation, and two uses."""


def snapshots(
    kind: type[Data], folder: Path, change: Change
) -> tuple[str, dict[str, Data]]:
    """Make a change; return its key, and copies of the data at every point."""
    found: dict[str, Data] = {}
    data = kind(folder / "data")
    data.folder.mkdir(mode=0o700)

    with data.open() as gateway:
        session = Session(gateway.act_as(caller()))
        key = session.create_key("aes", name="old").key_id
        (folder / "v1").write_bytes(session.encrypt(key, b"one"))
        session.rotate(key)
        (folder / "v2").write_bytes(session.encrypt(key, b"two"))

        def copy(name: str) -> None:
            label = f"{len(found):02d}-{name}"
            data.keep(label)
            found[label] = data.kept(label)

        with install(copy):
            change(session, key, "first")
    return key, found


def facts(session: Session) -> dict[str, tuple[int, list[KeyState]]]:
    """Return generation and states of every key by name."""
    keys = [*session.keys(), *session.keys(state=KeyState.DESTROYED)]
    return {
        key.name: (key.generation, [v.state for v in session.versions(key.key_id)])
        for key in keys
    }


def settled(session: Session) -> list[str]:
    """Return the codes of the change's outcomes; one for each intent, or none yet."""
    events = session._hsm.execute(  # noqa: SLF001 (the seam itself)
        ops.ListAuditEvents(ascending=True, start_seq=SET_UP_EVENTS)
    ).items
    intents = [e.event.operation_id for e in events if e.event.phase == "intent"]
    outcomes = [e.event for e in events if e.event.phase == "outcome"]
    assert intents == [event.operation_id for event in outcomes]
    return [event.code for event in outcomes]


@pytest.mark.parametrize("store", DATA, ids=lambda store: store.kind.value)
@pytest.mark.parametrize("kind", CHANGES)
def test_a_crash_at_every_point(kind: str, store: type[Data], tmp_path: Path) -> None:
    """Old or new state, never half; intent settled; a repeat does it once."""
    change = CHANGES[kind]
    key, copies = snapshots(store, tmp_path, change)
    with store(tmp_path / "data").open() as gateway:
        new = facts(Session(gateway.act_as(caller())))
    old = {"old": (2, [KeyState.RETIRED, KeyState.ACTIVE])}

    points = {label[3:] for label in copies}
    assert {"mutation.after_intent", "mutation.after_store"} <= points
    for label, copy in copies.items():
        with copy.open() as gateway:
            session = Session(gateway.act_as(caller()))
            assert {} == problems(gateway), label
            shown, codes = facts(session), settled(session)

            assert shown in (old, new), label
            assert (shown == new) == bool({"ok", "recovered-committed"} & set(codes))
            try:
                change(session, key, "first")
            except errors.OperationAbortedError:
                assert ["recovered-aborted"] == codes, label
                change(session, key, "second")
            assert new == facts(session), label
            session.verify_audit()
            assert {} == problems(gateway), label


def test_ciphertexts_survive_every_crash_of_a_rotation(tmp_path: Path) -> None:
    """What was encrypted before the crash is decrypted after it."""
    _, copies = snapshots(FilesystemData, tmp_path, CHANGES["RotateKey"])
    sealed = {b"one": tmp_path / "v1", b"two": tmp_path / "v2"}

    for copy in copies.values():
        with copy.open() as gateway:
            session = Session(gateway.act_as(caller()))
            for plaintext, path in sealed.items():
                assert plaintext == session.decrypt("old", path.read_bytes())


def test_a_crash_during_recovery(tmp_path: Path) -> None:
    """Recovery can itself be cut off and begun again."""
    _, copies = snapshots(FilesystemData, tmp_path, CHANGES["RotateKey"])
    crashed = next(data for label, data in copies.items() if "after_intent" in label)
    taken: list[Data] = []

    def copy(name: str) -> None:
        label = f"again-{len(taken)}-{name}"
        crashed.keep(label)
        taken.append(crashed.kept(label))

    with install(copy), crashed.open():
        pass

    assert any("recovery.before_record" in data.folder.name for data in taken)
    for data in taken:
        with data.open() as gateway:
            session = Session(gateway.act_as(caller()))
            assert ["recovered-aborted"] == settled(session), data.folder.name
            assert 2 == session.describe("old").generation
