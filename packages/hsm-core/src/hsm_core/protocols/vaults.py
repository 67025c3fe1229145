# SPDX-License-Identifier: MIT
"""
Remote vaults: named objects somewhere else, from which a key store can be built.

All that a vault ever sees is sealed or authenticated by the HSM. It need not be trusted
with secrets, nor to be honest; only what it calls stored must be stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

__all__ = ["ABSENT", "RemoteKeyVault", "VaultObject", "VaultOpener"]

ABSENT = ""
"""Expected version of a put that must create the object."""


@dataclass(frozen=True, slots=True)
class VaultObject:
    """
    An object as it is now.

    Attributes:
        tag: Changes whenever the content does; never empty (an ETag, RFC 9110 8.8.3).
    """

    data: bytes
    tag: str


@runtime_checkable
class RemoteKeyVault(Protocol):
    """
    Opaque objects by name: up to 200 of ``a-z 0-9 . _ - /``, a letter or digit first.

    Implementers promise: `put` is atomic, durable when it returns, and seen by every
    `get` after it. A list may lag behind. Safe for many threads.

    Any method may raise `StoreUnavailableError`; a `put` or `delete` that does may have
    been done nevertheless, or may be later.
    """

    def get(self, name: str, /) -> VaultObject | None:
        """Return an object, or None if there is none; never an older one."""
        ...

    def put(self, name: str, data: bytes, /, *, expected: str | None = None) -> str:
        """
        Store an object, and return its new tag.

        Args:
            name: Its name.

            data: Up to 17 MiB.

            expected: The tag that it must have now, or `ABSENT`; None replaces whatever
                is there.

        Raises:
            VaultConflictError: It has another tag, or none; nothing was changed.
            StorageFullError: There is no room; nothing was changed.
        """
        ...

    def list(self, prefix: str, /, *, after: str = "", limit: int = 1000) -> list[str]:
        """
        Return names that begin with *prefix*, in ascending order of their characters.

        Args:
            prefix: May be empty.

            after: Only names after this one.

            limit: At most so many; fewer mean that there are no more.
        """
        ...

    def delete(self, name: str, /) -> None:
        """Delete an object, if there is one."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


class VaultOpener(Protocol):
    """
    What an entry point of the group ``hsm_core.vaults`` is: it opens a vault.

    The entry point's name is the scheme, so that ``--key-store scheme:rest`` finds it.
    """

    def __call__(self, location: str, /) -> RemoteKeyVault:
        """
        Open the vault at a place.

        Args:
            location: What follows the scheme and its colon; its form is the opener's.

        Raises:
            ConfigurationError: The place has no such form, or can't be used.
        """
        ...
