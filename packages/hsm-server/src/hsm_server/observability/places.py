# SPDX-License-Identifier: MIT
"""Places in the code, for messages about unexpected exceptions."""

from __future__ import annotations

from pathlib import PurePath
from types import TracebackType


def location(traceback: TracebackType | None) -> str:
    """Return the innermost place of a traceback as ``file:line``, and nothing else."""
    if traceback is None:
        return ""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code
    return f"{PurePath(code.co_filename).name}:{traceback.tb_lineno} {code.co_name}"
