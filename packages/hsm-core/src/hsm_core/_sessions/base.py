# SPDX-License-Identifier: MIT
"""What all methods of a session need."""

from __future__ import annotations

from hsm_core.protocols import HSM

__all__ = ["SessionBase"]


class SessionBase:
    """Holds the HSM."""

    def __init__(self, hsm: HSM) -> None:
        self._hsm = hsm
