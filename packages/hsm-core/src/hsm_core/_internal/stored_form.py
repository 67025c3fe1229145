# SPDX-License-Identifier: MIT
"""What stored forms have in common: nothing unknown in them, no content in logs."""

from __future__ import annotations

import msgspec

__all__ = ["StoredForm"]


class StoredForm(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """Base of the parts of a stored form."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"
