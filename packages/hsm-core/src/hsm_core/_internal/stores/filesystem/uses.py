# SPDX-License-Identifier: MIT
"""
Use counters in a directory: one small file per material, replaced by rename.

The directory is part of a key store and stands under its lock. A sync that failed after
a rename leaves nobody sure of the disk; the whole store is then unavailable until it is
opened again, so that nothing more is protected than is known to be counted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from hsm_core._internal.stores.filesystem.files import (
    create_file,
    list_directory,
    read_file,
)
from hsm_core._internal.stores.filesystem.healing import Unsettled
from hsm_core._internal.stores.filesystem.layout import Layout
from hsm_core._internal.stores.naming import check_material_id, is_key_id
from hsm_core.errors import IntegrityError
from hsm_core.protocols import UseCounters

_VALUE_BYTES: Final = 4096


class FilesystemUseCounters(UseCounters):
    """
    Values as files of a key store.

    Args:
        layout: Of an open key store.

        check_usable: Raises when the key store can't be used.

        check_writable: Raises when it can't be written.

        unsettled: Of the key store.

    Attributes:
        writing: Held while something is written, as one failed sync of the directory
            concerns everything that is on its way there.
    """

    def __init__(
        self,
        layout: Layout,
        check_usable: Callable[[], None],
        check_writable: Callable[[], None],
        unsettled: Unsettled,
    ) -> None:
        self._layout = layout
        self._check_usable = check_usable
        self._check_writable = check_writable
        self._unsettled = unsettled
        self.writing = threading.Lock()

    def __repr__(self) -> str:
        return f"<FilesystemUseCounters {str(self._layout.uses)!r}>"

    def get(self, material_id: str, /) -> bytes | None:
        """
        Return the value of a material, or None if there is none.

        What lies there and is no small plain file has no bytes for us.
        """
        check_material_id(material_id)
        self._check_usable()
        try:
            return read_file(self._layout.uses / material_id, _VALUE_BYTES)
        except IntegrityError:
            return b""

    def put(self, material_id: str, value: bytes, /) -> None:
        """Replace the value of a material; see `UseCounters.put`."""
        check_material_id(material_id)
        path = self._layout.uses / material_id
        with self.writing:
            self._check_writable()
            with self._unsettled.unless_kept(path):
                self._layout.write(path, value)

    def put_first(self, material_id: str, value: bytes, /) -> None:
        """Store the first value of a material; see `UseCounters.put_first`."""
        check_material_id(material_id)
        path = self._layout.uses / material_id
        with self.writing:
            self._check_writable()
            with self._unsettled.unless_kept(path):
                create_file(path, value)

    def discard(self, material_id: str, /) -> None:
        """Delete the value of a material, durably, if there is one."""
        check_material_id(material_id)
        with self.writing:
            self._check_writable()
            self._unsettled.remove([self._layout.uses / material_id])

    def material_ids(self) -> list[str]:
        """Return every material that has a value; other names are left alone."""
        self._check_usable()
        return [
            name for name in list_directory(self._layout.uses)[1] if is_key_id(name)
        ]
