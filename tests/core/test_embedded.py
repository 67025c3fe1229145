# SPDX-License-Identifier: MIT
"""HSM inside a program: `hsm_core.open`, its files and its errors."""

from __future__ import annotations

import asyncio
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hsm_core
from hsm_core import errors
from hsm_core import operations as ops
from hsm_core._internal.crypto import registry
from hsm_core.algorithms import Algorithm
from hsm_core.factory import open_verifier
from hsm_core.secret_input import read_secret
from hsm_core.settings import KeyStoreKind, Settings
from hsm_core.testing import caller

ROOT = b"r" * 32


def modes_below(folder: Path) -> set[int]:
    """Return the modes of a folder and everything below it."""
    return {stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}


def test_the_first_signature(tmp_path: Path) -> None:
    """Twelve lines open an HSM, sign, verify and prove the audit log."""
    with hsm_core.open(tmp_path / "keys", root=tmp_path / "root.key", create=True) as h:
        ada = h.as_user("ada", roles=["operator"])
        key = ada.create("ML-DSA-65", name="release", exist_ok=True)
        signature = key.sign(b"hello")

        assert key.verify(b"hello", signature) == 1
        with pytest.raises(hsm_core.InvalidSignature):
            key.verify(b"hullo", signature)
        key.rotate()
        assert key.verify(b"hello", signature) == 1
        assert repr(key) == "<Key release ML-DSA-65 version 2 of 2, active>"
        report = h.audit.verify()
        assert repr(report) == f"<AuditReport intact, {report.records} records>"


def test_folder_and_root_are_made_once(tmp_path: Path) -> None:
    """The same lines run twice use the same key, and nothing is open to others."""
    folder, root = tmp_path / "app/keys", tmp_path / "app/secrets/root.key"
    made = []
    for _ in range(2):
        with hsm_core.open(str(folder), root=str(root), create=True) as hsm:
            ada = hsm.as_user("ada", roles=["operator"])
            made.append(ada.create("AES-256-GCM", name="notes", exist_ok=True).id)

    assert made[0] == made[1]
    assert modes_below(tmp_path / "app") == {0o600, 0o700}


def test_a_root_in_bytes_and_in_a_file_are_the_same(tmp_path: Path) -> None:
    """The file holds the key as base64, as the server reads it too."""
    with hsm_core.open(tmp_path / "keys", root=tmp_path / "root.key", create=True):
        pass
    key = read_secret(f"@{tmp_path}/root.key", field="root", minimum=32, exact=32)

    with hsm_core.open(tmp_path / "keys", root=key) as hsm:
        hsm.audit.verify()


def test_a_killed_first_opening_is_repeated(tmp_path: Path) -> None:
    """A root key that was made before the folder is used for it."""
    with hsm_core.open(tmp_path / "a", root=tmp_path / "root.key", create=True):
        pass
    before = (tmp_path / "root.key").read_bytes()

    with hsm_core.open(tmp_path / "b", root=tmp_path / "root.key", create=True):
        pass

    assert before == (tmp_path / "root.key").read_bytes()


def test_two_first_openings_at_once_make_one_root(tmp_path: Path) -> None:
    """One of them opens the HSM, the other hears that it is open."""
    barrier = threading.Barrier(4)
    outcomes: list[str] = []
    done = threading.Event()

    def run() -> None:
        barrier.wait()
        try:
            with hsm_core.open(
                tmp_path / "keys", root=tmp_path / "root.key", create=True
            ):
                outcomes.append("opened")
                done.wait(60)
        except errors.StoreLockedError:
            outcomes.append("locked")
            if outcomes.count("locked") == 3:
                done.set()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["locked", "locked", "locked", "opened"]
    with hsm_core.open(tmp_path / "keys", root=tmp_path / "root.key") as hsm:
        hsm.audit.verify()


def test_the_durability_of_records_may_be_a_string(tmp_path: Path) -> None:
    """What is neither of the two is refused, and is not the weaker one."""
    path, strict, unknown = tmp_path / "keys", "strict", "Strict"
    with hsm_core.open(
        path,
        root=ROOT,
        create=True,
        audit_sync=strict,  # type: ignore[arg-type]
    ) as hsm:
        found = hsm.gateway.act_as(caller()).execute(ops.Status()).audit
        assert found is not None
        assert "strict" == found.sync

    with pytest.raises(errors.ConfigurationError, match="strict or bounded") as caught:
        hsm_core.open(path, root=ROOT, audit_sync=unknown)  # type: ignore[arg-type]
    assert "audit_sync" == caught.value.facts["field"]


def test_an_auditor_verifies_with_the_audit_key(tmp_path: Path) -> None:
    """The written audit key proves the audit log, and is not the root key."""
    with hsm_core.open(tmp_path / "keys", root=ROOT, create=True) as hsm:
        hsm.write_audit_key(tmp_path / "audit.key")
        with pytest.raises(errors.ConfigurationError, match=r"audit\.key exists"):
            hsm.write_audit_key(tmp_path / "audit.key")

    key = read_secret(f"@{tmp_path}/audit.key", field="key", minimum=32, exact=32)
    found = open_verifier(tmp_path / "keys/audit.log", key).verify()

    assert found.records == 3
    assert key != ROOT


Case = tuple[Callable[[Path], Any], str]
CASES: dict[str, Case] = {
    "no root": (lambda p: hsm_core.open(p / "new"), "root is missing: pass root="),
    "no HSM": (
        lambda p: hsm_core.open(p / "new", root=ROOT),
        "new holds no HSM. Check the path, or pass create=True",
    ),
    "short root": (
        lambda p: hsm_core.open(p / "new", root=b"x" * 16, create=True),
        "root must be 32 bytes, got 16.",
    ),
    "root of another type": (
        lambda p: hsm_core.open(p / "new", root=5, create=True),  # type: ignore[arg-type]
        "root must be 32 bytes, the path of a file or a MasterKeySource, got int.",
    ),
    "lost root": (
        lambda p: hsm_core.open(p / "keys", root=p / "lost.key", create=True),
        "keys holds an HSM. Restore its root key",
    ),
    "root in the folder": (
        lambda p: hsm_core.open(p / "new", root=p / "new/root.key", create=True),
        "root must be outside",
    ),
    "root as text": (
        lambda p: hsm_core.open(p / "keys", root="A" * 43 + "="),
        "root must be the path of a file, got a key as base64.",
    ),
    "other root": (
        lambda p: hsm_core.open(p / "keys", root=b"o" * 32),
        "does not match this key store",
    ),
    "path of another type": (
        lambda p: hsm_core.open(5, root=ROOT),  # type: ignore[arg-type]
        'path must be a directory, ":memory:" or Settings, got int.',
    ),
    "store as a path": (
        lambda p: hsm_core.open("filesystem:keys", root=ROOT, create=True),
        'For other stores pass Settings(key_store="filesystem:keys").',
    ),
    "empty path": (
        lambda p: hsm_core.open("", root=ROOT, create=True),
        'path must be a directory or ":memory:".',
    ),
    "folder that can't be made": (
        lambda p: hsm_core.open("/proc/hsm", root=ROOT, create=True),
        "path: the directory /proc/hsm can't be created (",
    ),
    "lost policy": (
        lambda p: hsm_core.open(p / "keys", root=ROOT, policy="lost.yaml"),
        "policy: there is no file lost.yaml.",
    ),
    "policy beside settings": (
        lambda p: hsm_core.open(Settings(), root=ROOT, policy="policy.yaml"),
        "policy must be set in the Settings",
    ),
    "create with settings": (
        lambda p: hsm_core.open(Settings(), root=ROOT, create=True),
        "create must be False with Settings.",
    ),
    "create with a database": (
        lambda p: hsm_core.open(
            "postgresql://db.example/hsm", root=ROOT, create=True, node_name="a"
        ),
        "create must be False with PostgreSQL.",
    ),
    "node without a name": (
        lambda p: hsm_core.open("postgresql://db.example/hsm", root=ROOT),
        "node_name must have 1 to 40 letters",
    ),
    "short audit key": (
        lambda p: hsm_core.open(p / "keys", root=ROOT, audit_key=b""),
        "audit_key must be 32 bytes, got 0.",
    ),
    "lost audit key": (
        lambda p: hsm_core.open(p / "keys", root=ROOT, audit_key=p / "audit.key"),
        "audit_key: there is no file",
    ),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with an HSM in ``keys``."""
    folder = tmp_path_factory.mktemp("place")
    with hsm_core.open(folder / "keys", root=ROOT, create=True):
        pass
    return folder


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_wrong_arguments(place: Path, case: Case) -> None:
    """The error names the argument, what is allowed and what came; nothing is made."""
    before = sorted(place.rglob("*"))
    call, message = case

    with pytest.raises(hsm_core.HSMError) as caught:
        call(place)

    assert message in str(caught.value)
    assert "A" * 43 not in str(caught.value)
    assert before == sorted(place.rglob("*"))


@pytest.mark.parametrize(
    ("name", "roles", "message"),
    [
        ("ada", "operator", "roles must be several strings, such as"),
        ("ada", [], "roles must not be empty."),
        ("ada", ["oprator"], "Unknown role 'oprator'. Use one of Administrator"),
        ("ada", [5], "roles must be strings only, got int."),
        ("", ["operator"], "name must have 1 to 128 characters"),
        (5, ["operator"], "name must be a string, got int."),
    ],
)
def test_wrong_users(name: Any, roles: Any, message: str) -> None:
    """A user needs a name and roles that there are."""
    with hsm_core.open(":memory:") as hsm:
        with pytest.raises(errors.InvalidInputError) as caught:
            hsm.as_user(name, roles=roles)

        assert message in str(caught.value)


def test_settings_open_any_store(tmp_path: Path) -> None:
    """Settings take the place of a folder."""
    settings = Settings(
        key_store=KeyStoreKind.SQLITE,
        sqlite_path=tmp_path / "keys.sqlite",
        audit_log=tmp_path / "audit.log",
    )

    with hsm_core.open(settings, root=ROOT) as hsm:
        assert repr(hsm) == "<EmbeddedHSM sqlite>"
    assert repr(hsm) == "<EmbeddedHSM sqlite, closed>"


def test_no_password_of_a_store_is_told() -> None:
    """A URL may have come from a variable; the error may go into a log."""
    with pytest.raises(
        errors.ConfigurationError, match=r'"redis://\*\*\*@h/x"'
    ) as caught:
        hsm_core.open("redis://ada:p4ss@h/x", root=ROOT)

    assert "p4ss" not in str(caught.value)


def test_the_import_loads_nothing() -> None:
    """Importing the package loads neither cryptography nor msgspec."""
    program = (
        "import sys, hsm_core; "
        "print({'cryptography', 'msgspec', 'yaml', 'asyncio'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )

    assert done.stdout == "set()\n"


def test_public_names() -> None:
    """Each public name exists, and no other one does."""
    for name in hsm_core.__all__:
        assert getattr(hsm_core, name) is not None
        assert name in dir(hsm_core)
    with pytest.raises(AttributeError, match="has no attribute 'opn'"):
        hsm_core.opn  # type: ignore[attr-defined]  # noqa: B018


def test_algorithms_are_tested_before_first_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Opening tests no algorithm of users' keys; the first use of each does."""
    tested: list[str] = []

    def broken(algorithm: Algorithm, provider: object) -> None:
        tested.append(algorithm)
        raise errors.SelfTestFailedError("wrong answer")

    monkeypatch.setattr(registry, "known_answer_test", broken)
    with hsm_core.open(":memory:") as hsm:
        ada = hsm.as_user("ada", roles=["operator"])
        assert tested == []
        for _ in range(2):
            with pytest.raises(errors.SelfTestFailedError, match="Ed25519 is disabled"):
                ada.create("Ed25519")

    assert tested == ["Ed25519"]


def test_a_late_event_loop_is_refused() -> None:
    """A closed HSM serves no event loop either."""
    with hsm_core.open(":memory:") as hsm:
        pass
    late = hsm.gateway.act_as_async().act_as(caller())

    with pytest.raises(errors.UnavailableError, match="closed"):
        asyncio.run(late.execute(ops.Status()))
