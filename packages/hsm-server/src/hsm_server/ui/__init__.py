# SPDX-License-Identifier: MIT
"""Web console: server-rendered pages under ``/ui``."""

from hsm_server.ui.console import add_console

__all__ = ["add_console"]
