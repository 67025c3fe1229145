# SPDX-License-Identifier: MIT
"""
Command line: every flag with its environment variable.

Flags of the original FerroHSM that are not implemented are rejected: a silently ignored
flag would promise protection that does not exist.
"""

from hsm_server.config.options.flags import SECRET_OPTIONS, ServerCommand, options
from hsm_server.config.options.metrics import metrics_warning
from hsm_server.config.options.names import environment_name
from hsm_server.config.options.stores import check_places
from hsm_server.config.options.unavailable import UNAVAILABLE
from hsm_server.config.options.users import root_warning
from hsm_server.config.options.values import TOKEN_KEYS, settings_from

__all__ = [
    "SECRET_OPTIONS",
    "TOKEN_KEYS",
    "UNAVAILABLE",
    "ServerCommand",
    "check_places",
    "environment_name",
    "metrics_warning",
    "options",
    "root_warning",
    "settings_from",
]
