# SPDX-License-Identifier: MIT
"""One module per family of operations; `table` lists every handler."""

from hsm_core._internal.handlers.table import handler_table

__all__ = ["handler_table"]
