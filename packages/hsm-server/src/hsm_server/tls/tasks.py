# SPDX-License-Identifier: MIT
"""Selection of the TLS manager's tasks."""

from __future__ import annotations

import socket
from datetime import timedelta

from hsm_server.config.settings import TLSSettings
from hsm_server.observability.logs import Logger
from hsm_server.observability.telemetry import Metrics
from hsm_server.tls.alarms import Alarms
from hsm_server.tls.crl_watch import CRLWatch
from hsm_server.tls.expiry import ExpiryWatch
from hsm_server.tls.keeper import Task
from hsm_server.tls.ocsp.stapler import Stapler
from hsm_server.tls.sources import file_sources


def tasks_for(
    settings: TLSSettings,
    alarms: Alarms,
    metrics: Metrics,
    logger: Logger,
    http: socket.socket | None = None,
) -> list[Task]:
    """
    Return the tasks of the keeper, in the order in which they reload.

    Args:
        settings: What they look after.

        alarms: Are told what goes wrong.

        metrics: Count and show.

        logger: Is told of what is no alarm.

        http: Listening socket for a CA's challenges, where there is one.
    """
    return [
        *_issuing(settings, alarms, metrics, logger, http),
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


def _issuing(
    settings: TLSSettings,
    alarms: Alarms,
    metrics: Metrics,
    logger: Logger,
    http: socket.socket | None,
) -> list[Task]:
    if settings.acme is None:
        return []
    # It has much with it that nothing else needs.
    from hsm_server.tls.acme.task import ACMETask

    return [ACMETask(settings.acme, alarms, metrics, logger, http)]
