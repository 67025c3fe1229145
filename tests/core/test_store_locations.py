# SPDX-License-Identifier: MIT
"""Where stores lie: kinds, URIs, entry points of other distributions, and paths."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._internal.stores.locations import open_approval_store, open_key_store
from hsm_core.errors import (
    ConfigurationError,
    StoreLockedError,
    StoreUnavailableError,
    UnsafeFileModeError,
)
from hsm_core.protocols import OpenedStore
from hsm_core.session import Session
from hsm_core.settings import ApprovalStoreKind, AuditStoreKind, KeyStoreKind, Settings
from hsm_core.testing import FakeClock, MemoryVault, caller
from tests.self_tests import open_tested

BODY = """
from hsm_core._internal.stores.memory.records import MemoryApprovalStore
from hsm_core._internal.stores.memory.records import MemoryKeyStore
from hsm_core._internal.stores.memory.records import MemoryUseCounters
from hsm_core.errors import StoreLockedError
from hsm_core.protocols import OpenedStore
from hsm_core.testing import MemoryVault

vault = MemoryVault()
not_callable = 7
seen = []

def keys(location):
    seen.append(location)
    return OpenedStore(MemoryKeyStore(), MemoryUseCounters())

def objects(location):
    seen.append(location)
    return vault

def approvals(location):
    seen.append(location)
    return MemoryApprovalStore()

def something(location):
    return object()

def failing(location):
    raise OSError(location)

def leaving(location):
    raise SystemExit(0)

def locked(location):
    raise StoreLockedError("It is locked.")
"""


@pytest.fixture
def install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., None]]:
    """Give what installs a distribution with some entry points, and its module."""

    def add(name: str, points: str, body: str = BODY) -> None:
        site = tmp_path / f"site-{name}"
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        )
        (info / "entry_points.txt").write_text(points)
        (site / f"{name}.py").write_text(body)
        monkeypatch.syspath_prepend(site)
        monkeypatch.delitem(sys.modules, name, raising=False)

    yield add
    for name in [name for name in sys.modules if name.startswith("elsewhere")]:
        del sys.modules[name]


def opened(location: str, **facts: object) -> OpenedStore:
    """Open a key store."""
    settings = Settings(key_store=location, **facts)  # type: ignore[arg-type]
    return open_key_store(settings, FakeClock(), SystemEntropy())


class TestOurOwn:
    @pytest.mark.parametrize(
        ("scheme", "name"), [("filesystem", "lock"), ("sqlite", "")]
    )
    def test_paths(self, tmp_path: Path, scheme: str, name: str) -> None:
        """
        A kind opens the usual path, and a URI the one that it names.
        """
        usual, named = tmp_path / "usual", tmp_path / "name:d"

        opened(scheme, key_dir=usual, sqlite_path=usual).keys.close()
        opened(f"{scheme}:{named}", key_dir=usual, sqlite_path=usual).keys.close()

        assert (usual / name).exists()
        assert (named / name).exists()

    def test_counters(self, tmp_path: Path) -> None:
        """
        Use counters lie beside the keys, and are closed with them.
        """
        material = "00000000-0000-4000-8000-000000000001"
        for location in ("memory", f"filesystem:{tmp_path}/a", f"sqlite:{tmp_path}/b"):
            store = opened(location)
            store.uses.put(material, b"1")
            assert [material] == list(store.uses.material_ids())
            store.keys.close()

    @pytest.mark.parametrize(
        "location",
        ["filesystem:", "sqlite:", "filesystem:a\0b", "memory:", "s3", "s3:"],
    )
    def test_no_place(self, location: str) -> None:
        """
        A place that is missing, or that there can't be, is refused.
        """
        with pytest.raises(ConfigurationError, match="key_store") as caught:
            opened(location)

        assert "key_store" == caught.value.facts["field"]

    @pytest.mark.parametrize(
        "location", ["", "file", "File:x", "mysql://x", ":x", "..:x", "x" * 9999]
    )
    def test_unknown(self, location: str) -> None:
        """
        A scheme that nobody offers is refused, and the error says what there is.
        """
        with pytest.raises(ConfigurationError) as caught:
            opened(location)

        text = str(caught.value)
        assert all(name in text for name in ("key_store", "filesystem", "sqlite", "s3"))
        assert len(text) < 300


class TestApprovals:
    @pytest.mark.parametrize("kind", ["file", "sqlite", "memory"])
    def test_our_kinds_take_no_place(self, kind: str) -> None:
        """
        What follows a kind of ours is refused, and not looked for elsewhere.
        """
        with pytest.raises(ConfigurationError, match=f"approval_store: {kind} takes"):
            open_approval_store(Settings(approval_store=f"{kind}:x"))

    @pytest.mark.parametrize("kind", ["file", "sqlite"])
    def test_not_available(self, tmp_path: Path, kind: str) -> None:
        """
        The error says that it is the approvals that can't be reached, not the keys.
        """
        (tmp_path / "file").touch()
        below = tmp_path / "file" / "below"
        settings = Settings(
            approval_store=kind, approval_dir=below, approval_sqlite_path=below
        )

        with pytest.raises(StoreUnavailableError, match="approval store") as caught:
            open_approval_store(settings)

        assert caught.value.__cause__ is not None


class TestEntryPoints:
    def test_key_store(self, install: Callable[..., None]) -> None:
        """
        A scheme of another distribution opens its store, at what follows the colon.
        """
        install("elsewhere", "[hsm_core.key_stores]\nelse = elsewhere:keys\n")

        store = opened("else://host/a:b")

        assert store.keys.available
        assert "wrapped" in repr(store.keys)
        assert ["//host/a:b"] == sys.modules["elsewhere"].seen
        store.keys.close()

    def test_vault(self, install: Callable[..., None]) -> None:
        """
        A vault of another distribution becomes a key store.
        """
        install("elsewhere", "[hsm_core.vaults]\nelse = elsewhere:objects\n")

        store = opened("else:")
        store.keys.write_meta("ring", b"1")
        store.keys.close()

        assert b"1" == sys.modules["elsewhere"].vault.objects["meta/ring"]

    def test_approvals(self, install: Callable[..., None]) -> None:
        """
        A store of approvals is found in the same way.
        """
        install("elsewhere", "[hsm_core.approval_stores]\nelse = elsewhere:approvals\n")

        store = open_approval_store(Settings(approval_store="else:x"))

        assert store.available
        with pytest.raises(ConfigurationError, match=r"approval_store.*else.*file"):
            open_approval_store(Settings(approval_store="other:x"))
        with pytest.raises(ConfigurationError, match="key_store"):
            opened("else:x")

    def test_only_what_is_named_is_loaded(self, install: Callable[..., None]) -> None:
        """
        What no setting names is not imported, and can't fail.
        """
        install("elsewhere", "[hsm_core.key_stores]\nelse = elsewhere:keys\n")
        install(
            "elsewhere_loud",
            "[hsm_core.key_stores]\nloud = elsewhere_loud:keys\n"
            "[hsm_core.vaults]\nlouder = elsewhere_loud:keys\n",
            "raise RuntimeError",
        )

        opened("else:").keys.close()
        opened("memory").keys.close()
        with pytest.raises(ConfigurationError, match="loud, louder, memory"):
            opened("quiet:")

        assert "elsewhere" in sys.modules
        assert "elsewhere_loud" not in sys.modules

    @pytest.mark.parametrize(
        ("body", "found"),
        [
            ("raise RuntimeError('secret')", "RuntimeError"),
            ("import no_such_module", "ModuleNotFoundError"),
            ("raise SystemExit(0)", "SystemExit"),
            ("", "AttributeError"),
            ("keys = (", "SyntaxError"),
        ],
    )
    def test_that_can_not_be_loaded(
        self, install: Callable[..., None], body: str, found: str
    ) -> None:
        """
        What can't be loaded stops the start; the error says whose it is, and why.
        """
        install("elsewhere", "[hsm_core.key_stores]\nelse = elsewhere:keys\n", body)

        with pytest.raises(ConfigurationError) as caught:
            opened("else:")

        text = str(caught.value)
        assert all(word in text for word in ("key_store", "else", "elsewhere", found))
        assert "secret" not in text

    @pytest.mark.parametrize(
        "second", ["[hsm_core.key_stores]\nelse = x:y\n", "[hsm_core.vaults]\nelse=x:y"]
    )
    def test_offered_twice(self, install: Callable[..., None], second: str) -> None:
        """
        A scheme that two distributions offer is refused, and both are named.
        """
        install("elsewhere", "[hsm_core.key_stores]\nelse = elsewhere:keys\n")
        install("elsewhere_too", second)

        with pytest.raises(ConfigurationError, match="elsewhere and elsewhere_too"):
            opened("else:")

        assert "elsewhere" not in sys.modules

    def test_our_own_come_first(
        self, install: Callable[..., None], tmp_path: Path
    ) -> None:
        """
        Nothing that is installed takes the place of our own schemes.
        """
        install("elsewhere", "[hsm_core.key_stores]\nfilesystem = elsewhere:keys\n")

        opened(f"filesystem:{tmp_path}/keys").keys.close()

        assert (tmp_path / "keys" / "lock").exists()
        assert "elsewhere" not in sys.modules

    @pytest.mark.parametrize(
        ("group", "name", "kind"),
        [
            ("key_stores", "not_callable", ConfigurationError),
            ("key_stores", "something", ConfigurationError),
            ("key_stores", "objects", ConfigurationError),
            ("vaults", "something", ConfigurationError),
            ("vaults", "keys", ConfigurationError),
            ("vaults", "failing", StoreUnavailableError),
            ("key_stores", "failing", StoreUnavailableError),
            ("vaults", "leaving", StoreUnavailableError),
            ("key_stores", "locked", StoreLockedError),
        ],
    )
    def test_that_opens_something_else(
        self,
        install: Callable[..., None],
        group: str,
        name: str,
        kind: type[Exception],
    ) -> None:
        """
        What opens nothing of the kind is refused; its own errors of ours pass.
        """
        install("elsewhere", f"[hsm_core.{group}]\nelse = elsewhere:{name}\n")

        with pytest.raises(kind) as caught:
            opened("else:token")

        assert kind is type(caught.value)
        assert "token" not in str(caught.value)


class TestVaultOfAProgram:
    def test_keys_in_it(self, tmp_path: Path) -> None:
        """
        A program that opens an HSM can give it a vault, and finds its keys in it again.
        """
        vault = MemoryVault()
        settings = Settings(audit_log=tmp_path / "audit.log")
        with open_tested(settings, vault=vault) as gateway:
            session = Session(gateway.act_as(caller()))
            session.create_key("AES-256-GCM", name="disk")
            sealed = session.encrypt("disk", b"attack at dawn")
            session.rotate("disk")

        with open_tested(settings, vault=vault) as gateway:
            session = Session(gateway.act_as(caller()))
            assert b"attack at dawn" == session.decrypt("disk", sealed)

        assert not any(b"attack" in data for data in vault.objects.values())

    def test_memory(self) -> None:
        """
        A vault and a store in memory exclude each other.
        """
        with pytest.raises(ConfigurationError, match="key_store"):
            open_tested(
                Settings(key_store="memory", audit_log=None), vault=MemoryVault()
            )


def refused(settings: Settings) -> ConfigurationError:
    """Return the error that such settings get."""
    with pytest.raises(ConfigurationError) as caught:
        open_tested(settings)
    assert type(caught.value) is ConfigurationError
    return caught.value


def databases(keys: Path, trail: Path, **facts: object) -> Settings:
    """Return settings with keys and trail in SQLite."""
    return Settings(
        key_store=KeyStoreKind.SQLITE,
        sqlite_path=keys,
        audit_store=AuditStoreKind.SQLITE,
        audit_sqlite_path=trail,
        **facts,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("keys", "trail"),
    [
        ("one", "one"),
        ("one", "./folder/../one"),
        ("one", "link/one"),
        ("one", "one-wal"),
        ("one.lock", "one"),
        ("one.head", "one"),
        ("one.reserve", "one"),
    ],
)
def test_keys_and_trail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: str, trail: str
) -> None:
    """
    Neither the database of the other nor a file beside it, by any path to it.
    """
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to(tmp_path)
    Path("folder").mkdir()
    before = sorted(tmp_path.rglob("*"))

    error = refused(databases(Path(keys), tmp_path / trail))

    assert "sqlite_path and audit_sqlite_path must not share a path" in str(error)
    assert "audit_sqlite_path" == error.facts["field"]
    assert before == sorted(tmp_path.rglob("*"))


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_links(tmp_path: Path, link: object) -> None:
    """
    Two names of one file are one file, and it stays as it is.
    """
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"content")
    assert callable(link)
    link(one, two)

    assert "must not share a path" in str(refused(databases(one, two)))
    assert b"content" == one.read_bytes()


def test_the_others(tmp_path: Path) -> None:
    """
    Approvals, backups, trails in files and places in URIs are looked at as well.
    """
    one, two = tmp_path / "one", tmp_path / "two"
    in_files = Settings(key_dir=one, audit_log=two, approval_dir=one)
    cases = [
        databases(
            one,
            two,
            approval_store=ApprovalStoreKind.SQLITE,
            approval_sqlite_path=one,
        ),
        Settings(
            key_store=f"sqlite:{one}",
            audit_log=one,
            approval_store=ApprovalStoreKind.MEMORY,
        ),
        Settings(key_store=f"filesystem:{one}", audit_log=two, backup_dir=one),
        Settings(
            key_dir=one,
            audit_log=two,
            approval_store=ApprovalStoreKind.FILE,
            approval_dir=one,
        ),
    ]
    for settings in cases:
        assert "must not share a path" in str(refused(settings))
    # Where approvals are in memory, nothing lies in their directory.
    with open_tested(in_files):
        pass


def test_inside_the_directory_of_the_keys(tmp_path: Path) -> None:
    """
    Audit log and approvals are no files of the key store.
    """
    keys, trail = tmp_path / "keys", tmp_path / "audit.log"
    cases = [
        Settings(key_dir=keys, audit_log=keys / "audit.log"),
        Settings(
            key_dir=keys,
            audit_store=AuditStoreKind.SQLITE,
            audit_sqlite_path=keys / "below" / "audit.sqlite",
        ),
        Settings(
            key_dir=keys,
            audit_log=trail,
            approval_store=ApprovalStoreKind.FILE,
            approval_dir=keys / "approvals",
        ),
    ]
    for settings in cases:
        assert "must be outside the directory of the keys" in str(refused(settings))


@pytest.mark.parametrize("path", [".", "sub/.."])
def test_beside_the_folder_where_it_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """
    Trail and approvals of a store in ``.`` lie beside it, not in it.
    """
    monkeypatch.chdir(tmp_path)
    settings = Settings(key_dir=Path(path))

    assert tmp_path.parent == settings.folder
    assert settings.audit_log == tmp_path.parent / "audit.log"
    assert settings.approval_dir.parent == tmp_path.parent


@pytest.mark.parametrize("path", ["", ".", "..", "/", "a/..", "a\0b"])
@pytest.mark.parametrize("field", ["sqlite_path", "audit_sqlite_path", "audit_log"])
def test_no_file(tmp_path: Path, field: str, path: str) -> None:
    """
    What can't name a file is refused by the name of its setting.
    """
    kind = AuditStoreKind.FILE if field == "audit_log" else AuditStoreKind.SQLITE
    facts = {
        "key_store": KeyStoreKind.SQLITE,
        "audit_store": kind,
        "sqlite_path": tmp_path / "keys",
        "audit_sqlite_path": tmp_path / "trail",
    }
    settings = Settings(**facts | {field: Path(path)})  # type: ignore[arg-type]

    error = refused(settings)

    assert f"{field} must be the path of a file." == str(error)
    assert field == error.facts["field"]


def test_no_directory() -> None:
    """
    What can't name a directory is refused by the name of its setting.
    """
    error = refused(Settings(key_dir=Path("a\0b")))

    assert "key_dir must be the path of a directory." == str(error)


def _files(folder: Path) -> Settings:
    return Settings(
        key_dir=folder / "keys",
        audit_log=folder / "audit.log",
        approval_store=ApprovalStoreKind.FILE,
    )


@pytest.mark.parametrize("made", [["data"], ["data", "data/keys", "data/approvals"]])
@pytest.mark.parametrize("mode", [0o755, 0o775, 0o777])
def test_empty_folders_become_private(
    tmp_path: Path, made: list[str], mode: int
) -> None:
    """
    What somebody made with mkdir is taken as it is meant, if nothing else is in it.
    """
    for name in made:
        (tmp_path / name).mkdir()
    if len(made) == 1:
        (tmp_path / "data").chmod(mode)
    else:
        (tmp_path / "data").chmod(0o700)
        for name in made[1:]:
            (tmp_path / name).chmod(mode)

    with open_tested(_files(tmp_path / "data")):
        pass

    assert {0o700} == {(tmp_path / name).stat().st_mode & 0o777 for name in made}


def test_a_folder_with_something_in_it_stays_open(tmp_path: Path) -> None:
    """
    It is refused, with the command that mends it, and nothing in it was changed.
    """
    folder = tmp_path / "a folder"
    folder.mkdir(0o755)
    folder.chmod(0o755)
    (folder / "something").touch()

    with pytest.raises(UnsafeFileModeError) as caught:
        open_tested(_files(folder))

    assert str(caught.value).endswith(f"Run: chmod 700 '{folder}'")
    assert 0o755 == folder.stat().st_mode & 0o777
    command = str(caught.value).partition("Run: ")[2]
    subprocess.run(shlex.split(command), check=True)
    with open_tested(_files(folder)):
        pass


def test_a_folder_of_somebody_else_stays_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Its mode is its owner's business.
    """
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    with pytest.raises(ConfigurationError):
        open_tested(_files(tmp_path / "data"))

    assert 0o755 == (tmp_path / "data").stat().st_mode & 0o777
