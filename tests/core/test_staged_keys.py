"""New keys that are written while their intent becomes durable."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hsm_core import errors
from hsm_core.factory import open_hsm
from hsm_core.session import Session
from hsm_core.settings import Settings
from hsm_core.testing import Faults, caller
from tests.core.hsm_support import memory_session


def _name_of(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")


class Syncs:
    """Lets the first syncs of store and audit log wait for each other."""

    def __init__(self, together: int) -> None:
        self._barrier = threading.Barrier(together)
        self._left = together
        self._guard = threading.Lock()
        self.names: list[str] = []

    def around(self, whole: Callable[[int], None]) -> Callable[[int], None]:
        """Return a sync that waits for the others, if it is one of the first."""

        def sync(descriptor: int) -> None:
            name = _name_of(descriptor)
            if name.endswith(".head"):
                return whole(descriptor)
            with self._guard:
                self.names.append(name)
                is_first, self._left = self._left > 0, self._left - 1
            if is_first:
                self._barrier.wait(60)
            return whole(descriptor)

        return sync


@pytest.mark.parametrize(
    ("algorithm", "together", "further"), [("EC-P256", 4, 2), ("AES-256-GCM", 6, 2)]
)
def test_a_new_key_waits_three_times_for_the_disk(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    algorithm: str,
    together: int,
    further: int,
) -> None:
    """
    Intent, blob, document, their directory and use counter at once; commit; outcome.
    """
    tmp_path.chmod(0o700)
    settings = Settings(
        key_dir=tmp_path / "keys",
        audit_log=tmp_path / "log" / "audit.log",
        audit_timeout_seconds=60,
    )
    with open_hsm(settings, master_key=bytes(32), hmac_key=bytes(32)) as hsm:
        session = Session(hsm.act_as(caller()))
        syncs = Syncs(together)
        with monkeypatch.context() as patch:
            for name in ("fsync", "fdatasync"):
                patch.setattr(os, name, syncs.around(getattr(os, name)))
            key_id = session.create_key(algorithm).key_id

        assert [key_id] == [key.key_id for key in session.keys()]
    first, last = syncs.names[:together], syncs.names[together:]
    assert further == len(last)
    assert sum(name.endswith("audit.log") for name in first) == 1
    assert last[0].endswith("/keys")
    assert last[1].endswith("audit.log")


@pytest.mark.parametrize("call", ["store.stage", "store.commit"])
@pytest.mark.parametrize(
    "error", [errors.StorageFullError(), errors.StoreUnavailableError()]
)
def test_a_new_key_that_is_refused_is_recorded_and_leaves_nothing(
    call: str, error: errors.HSMError
) -> None:
    """Whether it fails while it is written ahead or at its commit, its name is free."""
    faults = Faults()
    with memory_session(faults=faults) as session:
        faults.plan(call, error)
        with pytest.raises(type(error)):
            session.create_key("AES-256-GCM", name="new")

        assert [] == list(session.keys())
        assert session.create_key("AES-256-GCM", name="new").name == "new"
        session.verify_audit()
