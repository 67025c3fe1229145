# SPDX-License-Identifier: MIT
"""Metrics of the server: instruments and exposition."""

from hsm_server.observability.telemetry.figures import Figures
from hsm_server.observability.telemetry.metrics import METRICS_CONTENT_TYPE, Metrics
from hsm_server.observability.telemetry.sharing import (
    ALARM_GAUGES,
    ALARM_SLOTS,
    KEEPERS_SLOT,
    SUMMED_GAUGES,
    share_metrics,
)

__all__ = [
    "ALARM_GAUGES",
    "ALARM_SLOTS",
    "KEEPERS_SLOT",
    "METRICS_CONTENT_TYPE",
    "SUMMED_GAUGES",
    "Figures",
    "Metrics",
    "share_metrics",
]
