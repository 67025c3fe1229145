# SPDX-License-Identifier: MIT
"""Plan of a server's processes; contains no secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from hsm_core.model import Record
from hsm_server.config.annotations import User
from hsm_server.config.settings import ServerSettings


class Plan(Record, frozen=True, kw_only=True):
    """
    Plan of a server with several processes.

    Attributes:
        settings: Settings of the server.
        url: URL of the server.
        vault_user: User of the vault; None for the supervisor's own.
        front_end_user: User of the front ends; None for the supervisor's own.
        notify: Socket of the service manager (``NOTIFY_SOCKET``), or empty.
        watchdog_seconds: Watchdog interval of the service manager; 0 for none.
        runtime_folder: Folder for runtime files; None selects one.
        started: Start of the server on the monotonic clock.
    """

    settings: ServerSettings
    url: str
    vault_user: User | None = None
    front_end_user: User | None = None
    notify: str = ""
    watchdog_seconds: float = 0.0
    runtime_folder: Path | None = None
    started: float = 0.0

    @property
    def has_metrics_socket(self) -> bool:
        """Whether the last socket of a front end is for metrics alone."""
        return self.settings.metrics.address is not None

    @property
    def has_challenge_socket(self) -> bool:
        """Whether the last listening socket is for a CA's challenges."""
        tls = self.settings.tls
        return tls is not None and tls.acme is not None and bool(tls.acme.http_address)


def pack_plan(plan: Plan) -> bytes:
    """Return a plan as MessagePack."""
    return _ENCODER.encode(plan)


def read_plan(data: bytes) -> Plan:
    """Return the plan that `pack_plan` has written."""
    return _DECODER.decode(data)


def _to_plain(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"A plan cannot hold {type(value).__name__}.")


def _from_plain(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise TypeError(f"A plan cannot hold {kind.__name__}.")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_to_plain)
_DECODER = msgspec.msgpack.Decoder(Plan, dec_hook=_from_plain)
