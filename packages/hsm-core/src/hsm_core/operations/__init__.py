# SPDX-License-Identifier: MIT
"""
Every operation of an HSM, with its result: the only list of what an HSM can do.

A request is a value. ``Sign(key_id=…, message=…)`` is written down the same way in
a program, in a REST body, in an IPC frame and (as a digest) in the trail.

Wherever a ``key_id`` is asked for, the unique name of a key is accepted too.

Names are loaded on first use, all at once. A command needs one subject and imports its
module, because the classes of all operations take a tenth of its time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hsm_core.operations.catalogue import *
else:

    def __getattr__(name: str) -> object:
        """
        Load the public names on first use (PEP 562).

        Raises:
            AttributeError: There is no such name.
        """
        import hsm_core.operations.catalogue as catalogue

        names = globals()
        names.update((each, getattr(catalogue, each)) for each in catalogue.NAMES)
        names["__all__"] = catalogue.NAMES
        if name not in names:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return names[name]
