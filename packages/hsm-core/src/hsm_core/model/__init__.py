# SPDX-License-Identifier: MIT
"""
Public data model: callers, keys, approvals, audit records.

All are frozen ``msgspec.Struct`` records. Their ``repr`` shows only the type, so that
log lines and tracebacks disclose no values.
"""

from hsm_core.model import approvals, callers, keys, records, trail
from hsm_core.model.approvals import *
from hsm_core.model.callers import *
from hsm_core.model.keys import *
from hsm_core.model.records import *
from hsm_core.model.trail import *

__all__: list[str] = []
__all__ += approvals.__all__
__all__ += callers.__all__
__all__ += keys.__all__
__all__ += records.__all__
__all__ += trail.__all__
