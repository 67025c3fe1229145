# SPDX-License-Identifier: MIT
"""Startup from parsed options, in one process or in several."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from hsm_server.config.settings import Isolation, LaunchSettings, ServerSettings
from hsm_server.observability.tracing import check_tracing
from hsm_server.system.hardening import forbid_dumps
from hsm_server.system.secret_handover import TOKEN_SECRET, SecretBox
from hsm_server.system.sockets import check_loop
from hsm_server.system.standard_streams import announce


@dataclass(frozen=True, slots=True)
class Start:
    """
    Parsed command line.

    Attributes:
        box: The secrets, as given.
        launch: Isolation, and users of the processes.
        started: Start of the command on the monotonic clock.
        on_ready: Called with the URL by a server in one process.
    """

    settings: ServerSettings
    box: SecretBox
    launch: LaunchSettings
    started: float
    on_ready: Callable[[str], None] = announce


def start(start: Start) -> None:
    """
    Serve until a signal ends it; with processes, this one becomes the supervisor.

    Raises:
        HSMError: It could not start.
    """
    check_loop(start.settings.event_loop)
    check_tracing(start.settings.tracing)
    forbid_dumps()
    if start.launch.isolation is Isolation.INLINE:
        _serve_inline(start)
    else:
        # What the other way needs is not loaded.
        from hsm_server.processes.launch import launch

        launch(
            start.settings,
            start.box,
            vault_user=start.launch.vault_user,
            front_end_user=start.launch.front_end_user,
            started=start.started,
        )


def _serve_inline(start: Start) -> None:
    import hsm_server.tls.openssl  # noqa: F401 (before anything else of cryptography)
    from hsm_server.bootstrap import inline
    from hsm_server.system.hardening import forbid_new_privileges
    from hsm_server.system.sockets import listening_sockets

    settings, box = start.settings, start.box
    forbid_new_privileges()
    os.environ.update(box.environment)
    inline.serve(
        settings,
        box.secrets(),
        lambda: listening_sockets(settings.bind, os.environ),
        on_ready=start.on_ready,
        read_token_secret=lambda: box.secret(TOKEN_SECRET),
    )
