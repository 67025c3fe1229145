# SPDX-License-Identifier: MIT
"""The web console: pages for people, made on the server, under ``/ui``."""

from hsm_server.ui.console import add_console

__all__ = ["add_console"]
