# SPDX-License-Identifier: MIT
"""The key that a page is about."""

from __future__ import annotations

from typing import Final

from hsm_core.model import KeyInfo
from hsm_core.operations import DescribeKey, ListVersions
from hsm_server.ui.keys.actions import Subject
from hsm_server.ui.origin import HOME
from hsm_server.ui.view import View

__all__ = ["KEY", "find_key", "find_subject", "path_of"]

KEY: Final = "/keys/{key_id:[0-9a-z][0-9a-z._-]{0,63}}"
"""Path of the pages of one key."""


def path_of(key_id: str) -> str:
    """Return where the page of a key is."""
    return f"{HOME}/keys/{key_id}"


async def find_key(view: View) -> KeyInfo:
    """
    Return what may be known of the key that the path names.

    Raises:
        HSMError: There is none, or they may not know of it.
    """
    return await view.execute(DescribeKey(key_id=view.request.match_info["key_id"]))


async def find_subject(view: View) -> Subject:
    """Return the key that the path names, with its versions; see `find_key`."""
    key = await find_key(view)
    versions = await view.execute(ListVersions(key_id=key.key_id))
    return Subject(key, versions.items)
