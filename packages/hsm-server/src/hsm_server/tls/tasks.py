# SPDX-License-Identifier: MIT
"""Which tasks the settings ask for."""

from __future__ import annotations

from hsm_server.settings import TLSSettings
from hsm_server.tls.alarms import Alarms
from hsm_server.tls.expiry import ExpiryWatch
from hsm_server.tls.keeper import Task
from hsm_server.tls.sources import file_sources

__all__ = ["tasks_for"]


def tasks_for(settings: TLSSettings, alarms: Alarms) -> list[Task]:
    """Return the tasks of the keeper, in the order in which they reload."""
    return [*file_sources(settings, alarms), ExpiryWatch(alarms)]
