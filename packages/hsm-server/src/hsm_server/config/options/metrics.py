# SPDX-License-Identifier: MIT
"""Flags that restrict access to ``/metrics``."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from pathlib import Path
from typing import Any, Final

import click

from hsm_core.errors import ConfigurationError
from hsm_core.secret_input import read_secret_text
from hsm_server.config.options.addresses import parse_address
from hsm_server.config.options.option import option
from hsm_server.config.settings import MetricsSettings, ServerSettings

_TOKEN: Final = re.compile(r"[!-~]{32,512}\Z")


def metrics_options() -> list[click.Parameter]:
    """Return the flags, in the order of the help."""
    return [
        option(
            "metrics-bind",
            "Serve /metrics on this loopback address only, without TLS. "
            "Default: on --bind.",
            callback=_parse_bind,
            metavar="HOST:PORT",
        ),
        option(
            "metrics-token-file",
            "File with the bearer token that /metrics requires: 32 to 512 "
            "characters, mode 0600. Default: no token.",
            type=click.Path(path_type=Path),
            metavar="FILE",
        ),
    ]


def metrics_settings(values: dict[str, Any]) -> MetricsSettings:
    """
    Return the settings that parsed options stand for.

    Raises:
        UnsafeFileModeError: Others than its owner may read the token.
        ConfigurationError: The token is none, or the address is not of loopback.
    """
    address: tuple[str, int] | None = values["metrics_bind"]
    if address is not None and not is_loopback(address[0]):
        raise ConfigurationError(
            f"--metrics-bind {address[0]} must be a loopback address, such as "
            "127.0.0.1, because it does not use TLS."
        )
    path: Path | None = values["metrics_token_file"]
    return MetricsSettings(
        address=address, token_sha256="" if path is None else _hash_of(path)
    )


def metrics_warning(settings: ServerSettings) -> str:
    """Return a warning if other hosts can read the metrics, or an empty text."""
    metrics, tls = settings.metrics, settings.tls
    asks_for_certificates = (
        tls is not None and tls.client is not None and tls.client.is_required
    )
    is_closed = metrics.address is not None or metrics.token_sha256
    if is_closed or asks_for_certificates or is_loopback(settings.host):
        return ""
    return (
        f"/metrics is readable by every client that reaches {settings.host}. "
        "Pass --metrics-token-file or --metrics-bind to restrict access."
    )


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _hash_of(path: Path) -> str:
    token = read_secret_text(f"@{path}", field="--metrics-token-file")
    if not _TOKEN.match(token):
        raise ConfigurationError(
            "--metrics-token-file must contain one line of 32 to 512 printable "
            "ASCII characters without spaces.",
            field="--metrics-token-file",
        )
    return hashlib.sha256(token.encode()).hexdigest()


def _parse_bind(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[str, int] | None:
    return None if value is None else parse_address(value)
