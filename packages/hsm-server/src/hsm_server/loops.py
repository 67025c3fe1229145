# SPDX-License-Identifier: MIT
"""Which event loop the processes of the server run on."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Coroutine
from typing import Any, TypeVar

from hsm_core.errors import ConfigurationError
from hsm_server.settings import EventLoop

__all__ = ["check_loop", "run"]

R = TypeVar("R")


def check_loop(kind: EventLoop) -> None:
    """
    See to it that an event loop is there.

    Raises:
        ConfigurationError: It must be installed first.
    """
    if kind is EventLoop.UVLOOP and importlib.util.find_spec("uvloop") is None:
        raise ConfigurationError(
            "event-loop: uvloop is not installed; pip install 'hsm-server[uvloop]'."
        )


def run(main: Coroutine[Any, Any, R], kind: EventLoop) -> R:
    """Run a coroutine to its end on a new event loop."""
    if kind is EventLoop.UVLOOP:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main)
    return asyncio.run(main)
