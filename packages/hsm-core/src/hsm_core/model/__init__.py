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
        Load approvals and audit records on first use (PEP 562).

        Raises:
            AttributeError: There is no such name.
        """
        import hsm_core.model.approvals as approvals
        import hsm_core.model.callers as callers
        import hsm_core.model.keys as keys
        import hsm_core.model.records as records
        import hsm_core.model.trail as trail

        found: dict[str, object] = {}
        for source in (approvals, callers, keys, records, trail):
            found.update((each, getattr(source, each)) for each in source.__all__)
        # At once, for other threads may look.
        globals().update(found, __all__=list(found))
        if name not in globals():
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals()[name]
