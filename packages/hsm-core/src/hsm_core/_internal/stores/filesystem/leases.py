# SPDX-License-Identifier: MIT
"""
Leases in a directory that many processes of one machine share.

One small file a name, replaced by one rename, under a lock on the directory that is
held for one change only. Each change rewrites its file, so that an unknown outcome does
not weaken the next change.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hsm_core._internal.stores.filesystem.files import (
    atomic_write,
    read_file,
    remove_temporaries,
)
from hsm_core._internal.stores.filesystem.opening import (
    lock_directory,
    make_private_directory,
)
from hsm_core._internal.stores.lease_rules import (
    MAX_LEASE_BYTES,
    LeaseRule,
    RuledLeases,
    decode_lease,
    encode_lease,
)
from hsm_core.errors import IntegrityError, StoreLockedError, StoreUnavailableError
from hsm_core.protocols import Clock, Lease

_ATTEMPTS: Final = 1000
_PAUSE_SECONDS: Final = 0.005


class FilesystemLeases(RuledLeases):
    """
    Leases as files of one directory.

    Args:
        directory: Made with mode 0700 if absent.

        clock: Tells when a lease has expired.

    Raises:
        UnsafeFileModeError: Other users may reach it.
        StoreUnavailableError: It can't be made.
    """

    def __init__(self, directory: Path, clock: Clock) -> None:
        super().__init__(clock)
        self._directory = directory
        make_private_directory(directory)
        with self._locked():
            remove_temporaries(directory)

    def __repr__(self) -> str:
        return f"<FilesystemLeases {str(self._directory)!r}>"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # Whoever holds it makes one change. One that was stopped must not stop us.
        for _ in range(_ATTEMPTS):
            try:
                lock = lock_directory(self._directory)
                break
            except StoreLockedError:
                time.sleep(_PAUSE_SECONDS)
        else:
            raise StoreUnavailableError("The leases are locked by another process.")
        try:
            yield
        finally:
            lock.release()

    def _change(self, name: str, rule: LeaseRule) -> Lease | None:
        path = self._directory / f"{name}.json"
        with self._locked():
            try:
                stored = read_file(path, MAX_LEASE_BYTES)
            except IntegrityError as error:
                raise StoreUnavailableError(
                    f"The lease {name} can't be read."
                ) from error
            wanted = rule(None if stored is None else decode_lease(name, stored))
            if wanted is not None:
                atomic_write(path, encode_lease(wanted))
            return wanted
