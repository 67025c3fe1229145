# SPDX-License-Identifier: MIT
"""What every process of a server is told; nothing in it is secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from hsm_core.model import Record
from hsm_server.config.settings import ServerSettings


class User(Record, frozen=True, kw_only=True):
    """A user of the system, by number."""

    uid: int
    gid: int


class Plan(Record, frozen=True, kw_only=True):
    """
    A server of several processes.

    Attributes:
        settings: Of the server.
        url: Where it listens.
        vault_user: Who holds the keys; None is the supervisor's own user.
        front_end_user: Who has the connections; None is the supervisor's own user.
        notify: Socket of the service manager (``NOTIFY_SOCKET``), or empty.
        watchdog_seconds: How often the service manager wants to hear from us; 0 for
            never.
        runtime_folder: Folder for what lives as long as the server; None finds one.
        started: Instant of the monotonic clock at which the server began.
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
        """Whether the last listening socket is the keeper's, for a CA's challenges."""
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
    raise TypeError(f"A plan holds no {type(value).__name__}.")


def _from_plain(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise TypeError(f"A plan holds no {kind.__name__}.")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_to_plain)
_DECODER = msgspec.msgpack.Decoder(Plan, dec_hook=_from_plain)
