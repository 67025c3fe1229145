# SPDX-License-Identifier: MIT
"""
Shared metrics of the server's processes.

Each process counts in its own file in a shared folder, so every front end shows the
sum. A restarted process continues the counters of its predecessor.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from prometheus_client import values

KEEPERS_SLOT: Final = "tls"
"""Slot of the TLS manager."""

ALARM_SLOTS: Final = ("vault", KEEPERS_SLOT)
"""Slots of the processes with shared gauges."""

ALARM_GAUGES: Final = "gauge_mostrecent"
"""File prefix of these gauges in prometheus_client."""

SUMMED_GAUGES: Final = "gauge_sum"
"""File prefix of gauges summed over processes."""

_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"  # the library's own name


def share_metrics(folder: Path, slot: str) -> None:
    """
    Let all `Metrics` that this process makes from now on count in a shared folder.

    Args:
        folder: Of all processes of one server.

        slot: Name of this process, without underscores. No two running processes
            have the same; one that is started again has the same as before.
    """
    os.environ[_FOLDER] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]


def shared_folder() -> Path | None:
    """Return the folder in which this process counts, if it shares one."""
    folder = os.environ.get(_FOLDER)
    return None if folder is None else Path(folder)
