# SPDX-License-Identifier: MIT
"""Which tasks the settings ask for."""

from __future__ import annotations

from datetime import timedelta

from hsm_server.logs import Logger
from hsm_server.settings import TLSSettings
from hsm_server.telemetry import Metrics
from hsm_server.tls.alarms import Alarms
from hsm_server.tls.crl_watch import CRLWatch
from hsm_server.tls.expiry import ExpiryWatch
from hsm_server.tls.keeper import Task
from hsm_server.tls.ocsp.stapler import Stapler
from hsm_server.tls.sources import file_sources

__all__ = ["tasks_for"]


def tasks_for(
    settings: TLSSettings, alarms: Alarms, metrics: Metrics, logger: Logger
) -> list[Task]:
    """Return the tasks of the keeper, in the order in which they reload."""
    return [
        *file_sources(settings, alarms),
        Stapler(
            timedelta(seconds=settings.ocsp_refresh_interval_seconds),
            settings.ocsp_responses,
            alarms,
            metrics,
            logger,
        ),
        ExpiryWatch(alarms),
        CRLWatch(alarms, logger),
    ]
