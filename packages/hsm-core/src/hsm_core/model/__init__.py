# SPDX-License-Identifier: MIT
"""
Public data model: callers, keys, approvals, audit records.

All are frozen ``msgspec.Struct`` records. Their ``repr`` shows only the type, so that
log lines and tracebacks disclose no values.

Approvals and audit records are loaded on first use: most commands need none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsm_core.model.callers import *
from hsm_core.model.keys import *
from hsm_core.model.records import *

if TYPE_CHECKING:
    from hsm_core.model.approvals import *
    from hsm_core.model.trail import *
else:

    def __getattr__(name: str) -> object:
        """
        Load a name of approvals or audit records (PEP 562).

        Raises:
            AttributeError: There is no such name.
        """
        import hsm_core.model.approvals as approvals
        import hsm_core.model.trail as trail

        for source in (approvals, trail):
            if name in source.__all__:
                found = globals()[name] = getattr(source, name)
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
