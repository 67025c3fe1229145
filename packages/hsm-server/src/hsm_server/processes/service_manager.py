# SPDX-License-Identifier: MIT
"""
Notifications to the service manager (sd_notify(3)).

The protocol is too small to justify a binding to libsystemd.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable

from hsm_server.config.plan import Plan


class ServiceManager:
    """
    Client of systemd or another service manager.

    Args:
        address: Value of ``NOTIFY_SOCKET``; a name in the abstract namespace begins
            with ``@``. Empty disables notifications.
    """

    def __init__(self, address: str) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address

    def ready(self) -> None:
        """The server serves."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """It reads again what may have changed; then it says that it is ready."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        """It begins to end."""
        self._tell("STOPPING=1")

    async def watch(self, plan: Plan, is_well: Callable[[], bool]) -> None:
        """Notify the watchdog at its interval while the server is healthy."""
        while plan.watchdog_seconds > 0:
            await asyncio.sleep(plan.watchdog_seconds)
            if is_well():
                self._tell("WATCHDOG=1", patience_seconds=0.0)

    def _tell(self, text: str, patience_seconds: float = 1.0) -> None:
        """Send a notification without blocking."""
        if not self._address:
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s,
        ):
            s.settimeout(patience_seconds)
            s.sendto(text.encode(), self._address)
