# SPDX-License-Identifier: MIT
"""The methods of `hsm_core.session.Session`, a module per family."""

__all__: list[str] = []
