# SPDX-License-Identifier: MIT
"""A page's key, with its versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hsm_core.errors import KeyTamperedError
from hsm_core.model import KeyInfo, KeyState, VersionInfo
from hsm_core.operations import DescribeKey, ListVersions
from hsm_server.ui.origin import HOME
from hsm_server.ui.view import View

KEY: Final = "/keys/{key_id:[0-9a-z][0-9a-z._-]{0,63}}"
"""Path of the pages of one key."""


@dataclass(frozen=True, slots=True)
class KeyWithVersions:
    """A key with its versions, oldest first."""

    key: KeyInfo
    versions: Sequence[VersionInfo]

    @property
    def confirmation_text(self) -> str:
        """Text to type to confirm an irreversible action."""
        return self.key.name or self.key.key_id[:8]

    @property
    def has_staged(self) -> bool:
        """Whether a version is staged."""
        return any(version.state is KeyState.STAGED for version in self.versions)

    @property
    def sources(self) -> Sequence[VersionInfo]:
        """Versions to roll back to, newest first."""
        return [
            version
            for version in reversed(self.versions)
            if version.version != self.key.version and version.state is KeyState.RETIRED
        ]


def path_of(key_id: str) -> str:
    """Return the path of a key's page."""
    return f"{HOME}/keys/{key_id}"


async def find_key(view: View) -> KeyInfo:
    """
    Return the metadata of the key in the path.

    Raises:
        HSMError: It does not exist, or the caller may not see it.
    """
    return await view.execute(DescribeKey(key_id=view.request.match_info["key_id"]))


async def find_key_with_versions(view: View) -> KeyWithVersions:
    """Return the key in the path with its versions; see `find_key`."""
    key = await find_key(view)
    try:
        versions = (await view.execute(ListVersions(key_id=key.key_id))).items
    except KeyTamperedError:
        versions = ()  # The page reports it for the key.
    return KeyWithVersions(key, versions)
