# SPDX-License-Identifier: MIT
"""The composition root: opens the HSM, listens, drains, closes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from typing import Any

from hsm_core.factory import OpenHSM, open_async, open_hsm
from hsm_server.app import create_app
from hsm_server.exit_codes import ListenError
from hsm_server.listener import Listener
from hsm_server.logs import Logger, capture_foreign, location, make_logger
from hsm_server.settings import Secrets, ServerSettings
from hsm_server.tls import server_context

__all__ = ["serve"]


def serve(
    settings: ServerSettings, secrets: Secrets, *, on_ready: Callable[[str], None]
) -> None:
    """
    Serve until SIGTERM, SIGINT or SIGHUP; finish what is in flight, close the HSM.

    Whatever needs no key is checked first, so that a wrong setting changes nothing.

    Args:
        settings: Must name TLS files.

        secrets: Keys of the HSM and of the tokens.

        on_ready: Called with the URL once connections are accepted.

    Raises:
        HSMError: It could not start; see `hsm_core.factory.open_hsm`.
        ListenError: The address is in use, or the TLS files can't be used.
    """
    if settings.tls is None:
        raise ListenError("There is no certificate to listen with.")
    logger = make_logger(sys.stderr, settings.log_level, settings.log_format)
    capture_foreign(logger)
    context = server_context(settings.tls)
    with contextlib.closing(_bind(settings.host, settings.port)) as listener:
        with open_hsm(
            settings.core,
            master_key=secrets.master_key,
            hmac_key=secrets.hmac_key,
        ) as gateway:
            asyncio.run(
                _serve(settings, secrets, gateway, listener, context, logger, on_ready)
            )
        logger.info("stopped")


async def _serve(
    settings: ServerSettings,
    secrets: Secrets,
    gateway: OpenHSM,
    listener: socket.socket,
    context: ssl.SSLContext,
    logger: Logger,
    on_ready: Callable[[str], None],
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_loop_exception_handler(logger))
    stop = asyncio.Event()
    signals = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        # Under nohup a hang-up is to be ignored, and is.
        signals.append(signal.SIGHUP)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    app = create_app(
        open_async(gateway), settings, jwt_secret=secrets.jwt_secret, logger=logger
    )
    serving = Listener(app, listener, context)
    await serving.start()
    try:
        on_ready(_url(listener))
        await stop.wait()
        logger.info("draining")
    finally:
        if not await serving.stop():
            logger.warning("requests were cut off")
        # Another signal must not keep the trail from being closed in order.
        for number in signals:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)


def _bind(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError):
        raise ListenError(f"{host} is not the name of an address.") from None
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        # Listening at once makes a second server on this address fail here, before
        # it looks at any key. Connections wait until they are accepted.
        listener.listen(128)
    except OSError as error:
        listener.close()
        reason = (
            "is in use"
            if error.errno == errno.EADDRINUSE
            else f"fails: {error.strerror}"
        )
        raise ListenError(f"Listening on {host}:{port} {reason}.") from None
    listener.setblocking(False)
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _loop_exception_handler(
    logger: Logger,
) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    def handle(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        logger.warning(
            "loop",
            error=type(error).__name__,
            place=location(error.__traceback__) if error is not None else "",
        )

    return handle
