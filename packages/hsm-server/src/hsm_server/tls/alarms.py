# SPDX-License-Identifier: MIT
"""TLS alarms: reported once, active while the fault lasts."""

from __future__ import annotations

from hsm_server.observability.logs import Logger
from hsm_server.observability.telemetry import Metrics


class Alarms:
    """
    One alarm per part, such as ``files``.

    Args:
        logger: Logs start, change and end of alarms.

        metrics: Show active alarms, and count starts and changes.
    """

    def __init__(self, logger: Logger, metrics: Metrics) -> None:
        self._logger = logger
        self._metrics = metrics
        self._reasons: dict[str, str] = {}

    @property
    def reasons(self) -> dict[str, str]:
        """The complaint of each part that has one."""
        return dict(self._reasons)

    def watch(self, part: str) -> None:
        """Show a part from now on; nothing is known to be wrong with it."""
        self._metrics.show_tls_alarm(part, is_on=False)

    def begin(self, part: str, reason: str) -> None:
        """
        Start or change an alarm; an unchanged one is not logged again.

        Args:
            part: Name of the part, of a small set: it is a label of metrics.

            reason: A sentence for people, without secrets.
        """
        if self._reasons.get(part) == reason:
            return
        self._reasons[part] = reason
        self._logger.error("tls alarm", part=part, reason=reason)
        self._metrics.count_tls_alarm(part)
        self._metrics.show_tls_alarm(part, is_on=True)

    def end(self, part: str) -> None:
        """End the alarm."""
        if self._reasons.pop(part, None) is not None:
            self._logger.info("tls alarm over", part=part)
            self._metrics.show_tls_alarm(part, is_on=False)
