# SPDX-License-Identifier: MIT
"""Selection of the event loop."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
from asyncio.sslproto import SSLProtocol
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from hsm_core.errors import ConfigurationError
from hsm_server.config.settings import EventLoop

R = TypeVar("R")

_INCOMING_BYTES: Final = 32 * 1024
"""Buffer for encrypted input of one TLS connection."""


def check_loop(kind: EventLoop) -> None:
    """
    Check that the event loop is installed.

    Raises:
        ConfigurationError: It must be installed first.
    """
    if kind is EventLoop.UVLOOP and importlib.util.find_spec("uvloop") is None:
        raise ConfigurationError(
            "event-loop: uvloop is not installed. Run: pip install uvloop."
        )


def pass_over_what_stays() -> None:
    """
    Exclude existing objects from garbage collection.

    At the end of a start that is what modules are made of, and stays. To look at it
    takes longer than to answer many requests, which wait meanwhile.
    """
    gc.collect()
    gc.freeze()


def run(main: Coroutine[Any, Any, R], kind: EventLoop) -> R:
    """
    Run a coroutine to its end on a new event loop.

    asyncio gives each TLS connection 256 KiB for what comes in, as long as it lives.
    Strangers can have many that do nothing.
    """
    SSLProtocol.max_size = _INCOMING_BYTES
    if kind is EventLoop.UVLOOP:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main)
    return asyncio.run(main)
