# SPDX-License-Identifier: MIT
"""
The command line: every flag with its environment variable.

Flags of the original whose feature is not there yet are known and refused. A flag that
is silently ignored would promise a protection that nobody gives.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from hsm_core.settings import AuditSync, KeyStoreKind, Settings
from hsm_core.settings import Limits as CoreLimits
from hsm_server.settings import (
    HTTPLimits,
    LogFormat,
    LogLevel,
    ServerSettings,
    TLSFiles,
    TokenRules,
)

__all__ = [
    "SECRET_OPTIONS",
    "UNAVAILABLE",
    "environment_name",
    "options",
    "settings_from",
]

_RENAMED: Final = {
    "auth-jwt-secret": "FERROHSM_JWT_SECRET",
    "auth-jwt-config": "FERROHSM_JWT_CONFIG",
    "auth-jwt-issuer": "FERROHSM_JWT_ISSUER",
}
"""Environment variables that keep the original's names."""

SECRET_OPTIONS: Final = ("master-key", "hmac-key", "auth-jwt-secret")
"""Flags that hold or name a secret."""

UNAVAILABLE: Final = (
    "acme-cache-dir",
    "acme-contact",
    "acme-directory-url",
    "acme-domain",
    "acme-use-production",
    "approval-dir",
    "approval-retention-days",
    "approval-retention-interval-secs",
    "approval-sqlite-path",
    "approval-store",
    "audit-retention-days",
    "audit-retention-interval-secs",
    "audit-sqlite-path",
    "auth-jwt-config",
    "auth-jwt-reload-secs",
    "cert-reload-interval-secs",
    "checkpoint-interval-secs",
    "key-rotation-interval-secs",
    "list-cache-ttl-secs",
    "ocsp-refresh-interval-secs",
    "ocsp-response",
    "rate-limit-burst",
    "rate-limit-per-second",
    "retention-config",
    "retention-grace-secs",
    "retention-interval-secs",
    "retention-ledger",
    "sqlite-path",
    "web-dir",
)
"""Flags whose feature is not there yet."""

_SWITCHES: Final = frozenset({"acme-use-production"})
_BIND: Final = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]\s]+)):([0-9]{1,5})\Z")

Callback = Callable[[click.Context, click.Parameter, Any], Any]


def environment_name(flag: str) -> str:
    """Return the environment variable of a flag."""
    return _RENAMED.get(flag, "FERROHSM_" + flag.upper().replace("-", "_"))


def options() -> list[click.Parameter]:
    """Return every option of ``hsm-server``."""
    return [
        *_listener(),
        *_stores(),
        *_secrets(),
        *_tokens(),
        *_limits(),
        *_service(),
        *map(_unavailable, UNAVAILABLE),
    ]


def settings_from(values: dict[str, Any]) -> ServerSettings:
    """Return the settings that parsed options stand for."""
    host, port = values["bind"]
    kind = KeyStoreKind(values["key_store"])
    audit_log: Path | None = values["audit_log"]
    if audit_log is None and kind is KeyStoreKind.FILESYSTEM:
        audit_log = Path("data/audit.log")
    limits = HTTPLimits(
        json_bytes=values["max_json_bytes"],
        payload_bytes=values["max_payload_bytes"],
        raw_bytes=values["max_raw_bytes"],
        aad_bytes=values["max_aad_bytes"],
    )
    return ServerSettings(
        host=host,
        port=port,
        tls=TLSFiles(
            cert=values["cert"], key=values["key"], client_ca=values["client_ca"]
        ),
        core=Settings(
            key_store=kind,
            key_dir=values["key_dir"],
            audit_log=audit_log,
            audit_sync=AuditSync(values["audit_sync"]),
            limits=CoreLimits(
                payload_bytes=max(limits.raw_bytes, limits.payload_bytes),
                aad_bytes=limits.aad_bytes,
            ),
        ),
        tokens=TokenRules(
            issuer=values["auth_jwt_issuer"],
            audience=values["auth_jwt_audience"],
            leeway_seconds=values["auth_jwt_leeway_secs"],
            max_lifetime_seconds=values["auth_jwt_max_lifetime_secs"],
        ),
        limits=limits,
        drain_timeout_seconds=values["drain_timeout_secs"],
        log_level=LogLevel(values["log_level"]),
        log_format=LogFormat(values["log_format"]),
    )


def _option(flag: str, text: str, **more: Any) -> click.Option:
    more.setdefault("show_default", "default" in more)
    return click.Option(
        [f"--{flag}"],
        help=text,
        envvar=environment_name(flag),
        show_envvar=True,
        **more,
    )


def _listener() -> list[click.Parameter]:
    file = click.Path(path_type=Path)
    return [
        _option(
            "bind",
            "Address to listen on; port 0 takes a free one.",
            default="127.0.0.1:8443",
            metavar="HOST:PORT",
            callback=_parse_bind,
        ),
        _option(
            "tls-mode",
            "Where the certificate comes from: 'manual'.",
            default="manual",
            type=click.Choice(["manual", "acme"]),
            callback=_only("manual"),
            metavar="MODE",
        ),
        _option(
            "cert", "Certificate chain, PEM.", type=file, required=True, metavar="FILE"
        ),
        _option(
            "key",
            "Its private key, PEM, readable by its owner alone.",
            type=file,
            required=True,
            metavar="FILE",
        ),
        _option(
            "client-ca",
            "Demand client certificates that one of these signed, PEM.",
            type=file,
            metavar="FILE",
        ),
    ]


def _stores() -> list[click.Parameter]:
    path = click.Path(path_type=Path)
    return [
        _option(
            "key-store",
            "Where keys are kept: 'filesystem', or 'memory' (lost at the end).",
            default="filesystem",
            type=click.Choice(["filesystem", "memory", "sqlite"]),
            callback=_only("filesystem", "memory"),
            metavar="KIND",
        ),
        _option(
            "key-dir",
            "Directory of the filesystem store.",
            default=Path("data/keys"),
            type=path,
            metavar="DIR",
        ),
        _option(
            "audit-store",
            "How the audit trail is kept: 'file'.",
            default="file",
            type=click.Choice(["file", "sqlite"]),
            callback=_only("file"),
            metavar="KIND",
        ),
        _option(
            "audit-log",
            "Live file of the audit trail. With the memory store, and without this, "
            "the trail is in memory too.  [default: data/audit.log]",
            type=path,
            metavar="FILE",
        ),
        _option(
            "audit-sync",
            "When the answer to a use goes out: after the sync of its record "
            "('strict'), or up to 20 ms before it ('bounded').",
            default="strict",
            type=click.Choice(["strict", "bounded"]),
            metavar="MODE",
        ),
        _option(
            "isolation",
            "Whether keys live in a process of their own: 'inline' (they don't).",
            default="inline",
            type=click.Choice(["inline", "process"]),
            callback=_only("inline"),
            metavar="MODE",
        ),
    ]


def _secrets() -> list[click.Parameter]:
    rows = {
        "master-key": "Root that seals all keys: 32 bytes.",
        "hmac-key": "Key of the audit trail: 32 bytes.",
        "auth-jwt-secret": "HS256 key of bearer tokens: at least 32 bytes.",
    }
    return [
        _option(flag, text, required=True, metavar="SECRET")
        for flag, text in rows.items()
    ]


def _tokens() -> list[click.Parameter]:
    return [
        _option(
            "auth-jwt-issuer",
            "Required issuer (iss) of tokens.",
            default="",
            show_default=False,
            metavar="TEXT",
        ),
        _option(
            "auth-jwt-audience",
            "Required audience (aud) of tokens; without it, tokens for an audience are "
            "refused.",
            default="",
            show_default=False,
            metavar="TEXT",
        ),
        _option(
            "auth-jwt-leeway-secs",
            "How far the issuer's clock may be off, in seconds.",
            default=60,
            type=click.IntRange(0, 300),
        ),
        _option(
            "auth-jwt-max-lifetime-secs",
            "Longest life of a token, in seconds.",
            default=86400,
            type=click.IntRange(1),
        ),
    ]


def _limits() -> list[click.Parameter]:
    mib = 1024 * 1024
    rows = {
        "max-json-bytes": ("Largest JSON body.", 2 * mib, 1024),
        "max-payload-bytes": ("Largest decoded byte string in it.", mib, 1),
        "max-raw-bytes": ("Largest application/octet-stream body.", 64 * mib, 1),
        "max-aad-bytes": ("Largest additional authenticated data.", 64 * 1024, 0),
    }
    return [
        _option(flag, text, default=default, type=click.IntRange(least))
        for flag, (text, default, least) in rows.items()
    ]


def _service() -> list[click.Parameter]:
    return [
        _option(
            "drain-timeout-secs",
            "How long requests in flight may finish after SIGTERM, in seconds.",
            default=10.0,
            type=click.FloatRange(0),
        ),
        _option(
            "log-level",
            "Least severe level that is logged to standard error.",
            default="info",
            type=click.Choice([level.value for level in LogLevel]),
        ),
        _option(
            "log-format",
            "How a line of the log is written.",
            default="json",
            type=click.Choice([form.value for form in LogFormat]),
        ),
    ]


def _unavailable(flag: str) -> click.Option:
    switch: dict[str, Any] = {"is_flag": True} if flag in _SWITCHES else {}
    return click.Option(
        [f"--{flag}"],
        envvar=environment_name(flag),
        hidden=True,
        expose_value=False,
        callback=_refuse,
        metavar="TEXT",
        **switch,
    )


def _refuse(context: click.Context, option: click.Parameter, value: object) -> None:
    source = context.get_parameter_source(str(option.name))
    if source is ParameterSource.COMMANDLINE:
        raise click.UsageError(f"{option.opts[0]} is not available in this version.")
    if source is ParameterSource.ENVIRONMENT:
        raise click.UsageError(
            f"{option.envvar} ({option.opts[0]}) is not available in this version; "
            "unset it."
        )


def _only(*available: str) -> Callback:
    def check(context: click.Context, option: click.Parameter, value: str) -> str:
        if value not in available:
            raise click.UsageError(
                f"{option.opts[0]} {value} is not available in this version; there "
                f"is {' and '.join(available)}."
            )
        return value

    return check


def _parse_bind(
    context: click.Context, option: click.Parameter, value: str
) -> tuple[str, int]:
    found = _BIND.match(value)
    if found is None or int(found[3]) > 65535:
        raise click.BadParameter("must be HOST:PORT, or [IPV6]:PORT.")
    return found[1] or found[2], int(found[3])
