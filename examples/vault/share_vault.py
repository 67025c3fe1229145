# SPDX-License-Identifier: MIT
"""A vault in a directory that several machines mount, such as an NFS share."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

from hsm_core.errors import (
    ConfigurationError,
    StoreUnavailableError,
    VaultConflictError,
)
from hsm_core.protocols import ABSENT, RemoteKeyVault, VaultObject


class ShareVault(RemoteKeyVault):
    """Objects as files of one directory, each step under the lock of one file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, name: str, /) -> VaultObject | None:
        """Return an object, or None."""
        with self._locked():
            return self._read(name)

    def put(self, name: str, data: bytes, /, *, expected: str | None = None) -> str:
        """Store an object if it is as expected, durably."""
        with self._locked():
            found = self._read(name)
            if expected not in (None, found.tag if found else ABSENT):
                raise VaultConflictError
            new = self._folder / ".new"
            with new.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path(name))
            self._sync()
            return _tag(data)

    def list(self, prefix: str, /, *, after: str = "", limit: int = 1000) -> list[str]:
        """Return names in order."""
        with self._locked():
            names = (unquote(path.name) for path in self._folder.glob("=*"))
            names = (name.removeprefix("=") for name in names)
            return sorted(n for n in names if n.startswith(prefix) and n > after)[
                :limit
            ]

    def delete(self, name: str, /) -> None:
        """Delete an object."""
        with self._locked():
            self._path(name).unlink(missing_ok=True)
            self._sync()

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def _path(self, name: str) -> Path:
        return self._folder / ("=" + quote(name, safe=""))

    def _read(self, name: str) -> VaultObject | None:
        try:
            data = self._path(name).read_bytes()
        except FileNotFoundError:
            return None
        return VaultObject(data, _tag(data))

    def _sync(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            # A share that is not mounted has no such file, and is never "empty".
            with (self._folder / "lock").open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise StoreUnavailableError("The share can't be used.") from error


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def open_share(location: str, /) -> ShareVault:
    """Open the vault in a directory; what the entry point names."""
    if not (Path(location) / "lock").is_file():
        raise ConfigurationError(f"There is no file 'lock' in {location}.")
    return ShareVault(Path(location))
