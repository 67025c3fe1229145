# SPDX-License-Identifier: MIT
"""Honest races on a filesystem: nobody is called tampered with, nothing is missed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hsm_core import errors
from hsm_core._internal.lib.failpoints import install
from hsm_core.factory import OpenHSM
from hsm_core.model import Integrity
from hsm_core.session import Session
from hsm_core.testing import caller, memory_hsm
from tests.contract.hsm_ways import filesystem_hsm


def test_looking_while_it_changes(tmp_path: Path) -> None:
    """Descriptions and listings during rotations never take a new document for old."""
    with filesystem_hsm(tmp_path) as gateway, ThreadPoolExecutor(4) as pool:
        session = Session(gateway.act_as(caller()))
        key = session.create_key("ed25519").key_id
        stop = threading.Event()

        def look(how: Callable[[], object]) -> None:
            while not stop.is_set():
                how()

        looking = [
            pool.submit(look, lambda: session.describe(key)),
            pool.submit(look, lambda: session.versions(key)),
            pool.submit(look, lambda: list(session.keys())),
        ]
        for _ in range(60):
            session.rotate(key)
        stop.set()
        for look_out in looking:
            look_out.result()

        assert Integrity.OK is session.describe(key).integrity
        assert 61 == session.describe(key).version


def test_using_while_it_is_destroyed(tmp_path: Path) -> None:
    """A use that meets the destruction of its key says so, and calls no one names."""
    with filesystem_hsm(tmp_path) as gateway, ThreadPoolExecutor(4) as pool:
        session = Session(gateway.act_as(caller()))
        for _ in range(15):
            key = session.create_key("aes").key_id
            gateway._services.inventory.materials._handles._items.clear()  # noqa: SLF001
            begin = threading.Barrier(4)

            def use(key: str = key, begin: threading.Barrier = begin) -> set[str]:
                begin.wait()
                seen = set()
                for _ in range(20):
                    try:
                        session.encrypt(key, b"m")
                        session.describe(key)
                    except errors.HSMError as error:
                        seen.add(error.code)
                return seen

            using = [pool.submit(use) for _ in range(3)]
            begin.wait()
            session.destroy(key)

            codes = set().union(*(user.result() for user in using))
            assert codes <= {"wrong_state"}
            assert Integrity.OK is session.describe(key).integrity
        assert "operational" == session.status().state


def test_a_handle_that_was_opened_too_late_is_not_kept(
    gateway: OpenHSM, session: Session
) -> None:
    """What was opened while its version was revoked is dropped again."""
    key = session.create_key("ed25519").key_id
    inventory = gateway._services.inventory  # noqa: SLF001 (the race is in there)
    before = inventory.document(key)
    session.revoke(key)

    inventory.materials.handle(before, before.versions[0])

    assert {} == dict(inventory.materials._handles._items)  # noqa: SLF001


@pytest.mark.parametrize("change", ["rotate", "revoke"])
def test_a_change_during_a_use(
    gateway: OpenHSM, session: Session, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A use stands if its version was retired meanwhile, and not if it was revoked."""
    key = session.create_key("hmac-sha256").key_id
    inventory = gateway._services.inventory  # noqa: SLF001 (to meddle in between)
    real, left = inventory.materials.handle, [getattr(session, change)]

    def meddling(*arguments: Any) -> object:
        if left:
            left.pop()(key)
        return real(*arguments)

    monkeypatch.setattr(inventory.materials, "handle", meddling)
    if change == "rotate":
        made = session.mac(key, b"m")
        assert (1, 1) == (
            made.version,
            session.verify_mac(key, b"m", made.mac).version,
        )
    else:
        with pytest.raises(errors.KeyStateError):
            session.mac(key, b"m")

    assert [] == left


class TestClosing:
    def test_waits_for_what_runs(self, tmp_path: Path) -> None:
        """A change that is under way is finished before the stop is recorded."""
        gateway = filesystem_hsm(tmp_path)
        session = Session(gateway.act_as(caller()))
        reached, go_on = threading.Event(), threading.Event()

        def pause(name: str) -> None:
            if name == "mutation.after_store":
                reached.set()
                go_on.wait()

        with ThreadPoolExecutor(2) as pool, install(pause):
            creating = pool.submit(session.create_key, "ed25519")
            reached.wait()
            closing = pool.submit(gateway.close)
            while not gateway._gate._is_closed:  # noqa: SLF001 (to wait for it)
                time.sleep(0.001)
            with pytest.raises(errors.UnavailableError, match="closed"):
                session.status()
            go_on.set()
            key = creating.result().key_id
            closing.result()

        with filesystem_hsm(tmp_path) as again:
            events = [
                e.event for e in Session(again.act_as(caller())).audit_events(limit=4)
            ]
            assert ["system.start", "system.stop", "CreateKey", "CreateKey"] == [
                event.kind for event in events
            ]
            assert key == events[2].key_id

    def test_nothing_goes_on_afterwards(self) -> None:
        """A closed HSM answers with one clear error."""
        gateway = memory_hsm()
        session = Session(gateway.act_as(caller()))
        gateway.close()
        gateway.close()

        for use in (session.status, lambda: session.create_key("aes")):
            with pytest.raises(errors.UnavailableError):
                use()
