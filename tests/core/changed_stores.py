# SPDX-License-Identifier: MIT
"""What others may do to the stores of an HSM that is not running."""

from __future__ import annotations

import shutil
import sqlite3
from abc import ABC, abstractmethod
from pathlib import Path

from hsm_core import operations as ops
from hsm_core.factory import OpenHSM
from hsm_core.session import Session
from hsm_core.settings import KeyStoreKind, PolicyProfile, Settings
from hsm_core.testing import FakeClock, caller
from tests.self_tests import open_tested
from tests.support import copy_in_use


class Data(ABC):
    """
    The data of an HSM, below one directory.

    Args:
        folder: Where it lies.
    """

    kind: KeyStoreKind
    store: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(
        self,
        *,
        accepting: bool = False,
        clock: FakeClock | None = None,
        profile: PolicyProfile = PolicyProfile.DEFAULT,
    ) -> OpenHSM:
        """Open the HSM, if wanted whatever its trail says of its store."""
        settings = Settings(
            key_store=self.kind,
            key_dir=self.folder / "keys",
            sqlite_path=self.folder / "keys.sqlite",
            audit_log=self.folder / "audit.log",
            accept_changed_store=accepting,
            approval_dir=self.folder / "approvals",
            policy_profile=profile,
        )
        return open_tested(settings, clock=clock)

    def keep(self, name: str) -> None:
        """Keep a copy of everything."""
        copy_in_use(self.folder, self.folder.parent / name)

    def restore_store(self, name: str) -> None:
        """Put the key store of a copy back."""
        self._restore(name, f"{self.store}*")

    def restore_trail(self, name: str) -> None:
        """Put the trail of a copy back."""
        self._restore(name, "audit.log*")

    def _restore(self, name: str, pattern: str) -> None:
        for path in self.folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        for path in (self.folder.parent / name).glob(pattern):
            if path.is_dir():
                shutil.copytree(path, self.folder / path.name)
            else:
                shutil.copy(path, self.folder / path.name)

    def kept(self, name: str) -> Data:
        """Return a copy that was kept."""
        return type(self)(self.folder.parent / name)

    @abstractmethod
    def document(self, key: str) -> bytes:
        """Return the document of a key."""

    @abstractmethod
    def write_document(self, key: str, document: bytes) -> None:
        """Replace the document of a key."""

    @abstractmethod
    def blob(self, key: str, version: int) -> bytes | None:
        """Return the sealed blob of a version, if there is one."""

    @abstractmethod
    def write_blob(self, key: str, version: int, blob: bytes) -> None:
        """Add or replace the sealed blob of a version."""

    @abstractmethod
    def remove(self, key: str) -> None:
        """Remove a key, with all that is there of it."""

    @abstractmethod
    def bring_back(self, key: str, name: str) -> None:
        """Put back all of a key that was removed, as a copy has it."""


class FilesystemData(Data):
    """With keys in files."""

    kind = KeyStoreKind.FILESYSTEM
    store = "keys"

    def _path(self, key: str, name: str) -> Path:
        return self.folder / "keys" / "keys" / key / name

    def document(self, key: str) -> bytes:
        """See `Data.document`."""
        return self._path(key, "key.json").read_bytes()

    def write_document(self, key: str, document: bytes) -> None:
        """See `Data.write_document`."""
        self._path(key, "key.json").write_bytes(document)

    def blob(self, key: str, version: int) -> bytes | None:
        """See `Data.blob`."""
        path = self._path(key, f"v{version:08d}")
        return path.read_bytes() if path.exists() else None

    def write_blob(self, key: str, version: int, blob: bytes) -> None:
        """See `Data.write_blob`."""
        path = self._path(key, f"v{version:08d}")
        path.write_bytes(blob)
        path.chmod(0o600)

    def remove(self, key: str) -> None:
        """See `Data.remove`."""
        shutil.rmtree(self._path(key, ""))

    def bring_back(self, key: str, name: str) -> None:
        """See `Data.bring_back`."""
        folder = Path("keys") / "keys" / key
        shutil.copytree(self.kept(name).folder / folder, self.folder / folder)


class SqliteData(Data):
    """With keys in SQLite."""

    kind = KeyStoreKind.SQLITE
    store = "keys.sqlite"

    def do(self, statement: str, *values: object) -> object:
        """Execute a statement; return the first value of its first row."""
        connection = sqlite3.connect(self.folder / "keys.sqlite")
        try:
            with connection:
                found = connection.execute(statement, values).fetchone()
        finally:
            connection.close()
        return found[0] if found else None

    def _number(self, key: str) -> int:
        found = self.do("SELECT n FROM keys WHERE key_id = ?", key)
        assert isinstance(found, int)
        return found

    def document(self, key: str) -> bytes:
        """See `Data.document`."""
        n = self._number(key)
        found = self.do("SELECT document FROM documents WHERE n = ?", n)
        assert isinstance(found, bytes)
        return found

    def write_document(self, key: str, document: bytes) -> None:
        """See `Data.write_document`."""
        n = self._number(key)
        self.do("UPDATE documents SET document = ? WHERE n = ?", document, n)

    def blob(self, key: str, version: int) -> bytes | None:
        """See `Data.blob`."""
        place = (self._number(key) << 27) | version
        found = self.do("SELECT blob FROM blobs WHERE id = ?", place)
        assert found is None or isinstance(found, bytes)
        return found

    def write_blob(self, key: str, version: int, blob: bytes) -> None:
        """See `Data.write_blob`."""
        place = (self._number(key) << 27) | version
        self.do("INSERT OR REPLACE INTO blobs VALUES (?, ?)", place, blob)

    def remove(self, key: str) -> None:
        """See `Data.remove`."""
        n = self._number(key)
        self.do("DELETE FROM keys WHERE n = ?", n)
        self.do("DELETE FROM documents WHERE n = ?", n)

    def bring_back(self, key: str, name: str) -> None:
        """See `Data.bring_back`."""
        connection = sqlite3.connect(self.folder / "keys.sqlite")
        path = str(self.kept(name).folder / "keys.sqlite")
        connection.execute("ATTACH ? AS kept", (path,))
        (n,) = connection.execute(
            "SELECT n FROM kept.keys WHERE key_id = ?", (key,)
        ).fetchone()
        with connection:
            connection.execute("DELETE FROM keys WHERE key_id = ?", (key,))
            for table in ("keys", "documents"):
                connection.execute(
                    f"INSERT OR REPLACE INTO {table} "  # noqa: S608 (our own names)
                    f"SELECT * FROM kept.{table} WHERE n = ?",
                    (n,),
                )
            connection.execute(
                "INSERT OR REPLACE INTO blobs "
                "SELECT * FROM kept.blobs WHERE id >> 27 = ?",
                (n,),
            )
        connection.close()


DATA = (FilesystemData, SqliteData)


def session_on(gateway: OpenHSM) -> Session:
    """Return a session of somebody who may do everything."""
    return Session(gateway.act_as(caller()))


def problems(gateway: OpenHSM) -> dict[str, str]:
    """Compare everything, and return what is wrong with which key."""
    found = gateway.act_as(caller()).execute(ops.VerifyStore()).findings
    return {finding.key_id: finding.problem for finding in found}


def id_of(data: Data, name: str) -> str:
    """Return the id of a key that was made, by its name."""
    return (data.folder.parent / name).read_text()
