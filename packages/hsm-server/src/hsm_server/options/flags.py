# SPDX-License-Identifier: MIT
"""The flags, by what they are about."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import click

from hsm_server.options.names import environment_name
from hsm_server.options.providers import parse_orders
from hsm_server.options.unavailable import UNAVAILABLE, only, unavailable
from hsm_server.settings import LogFormat, LogLevel

__all__ = ["SECRET_OPTIONS", "options"]

SECRET_OPTIONS: Final = ("master-key", "hmac-key", "auth-jwt-secret")
"""Flags that hold or name a secret."""

_BIND: Final = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]\s]+)):([0-9]{1,5})\Z")


def options() -> list[click.Parameter]:
    """Return every option of ``hsm-server``."""
    return [
        *_listener(),
        *_stores(),
        *_secrets(),
        *_tokens(),
        *_limits(),
        *_cryptography(),
        *_service(),
        *map(unavailable, UNAVAILABLE),
    ]


def _option(flag: str, text: str, *, also: str = "", **more: Any) -> click.Option:
    more.setdefault("show_default", "default" in more)
    return click.Option(
        [f"--{flag}/{also}" if also else f"--{flag}"],
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
            callback=only("manual"),
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
            callback=only("filesystem", "memory"),
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
            callback=only("file"),
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
            "accept-changed-store",
            "Start although the key store is not the one that the audit trail knows, "
            "such as an older copy that was put back; the trail records that.",
            is_flag=True,
            show_default=False,
        ),
        _option(
            "isolation",
            "Whether keys live in a process of their own: 'inline' (they don't).",
            default="inline",
            type=click.Choice(["inline", "process"]),
            callback=only("inline"),
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
        "max-connections": (
            "Connections at one time; fewer if the limit of open files is low.",
            1000,
            1,
        ),
    }
    return [
        _option(flag, text, default=default, type=click.IntRange(least))
        for flag, (text, default, least) in rows.items()
    ]


def _cryptography() -> list[click.Parameter]:
    return [
        _option(
            "provider",
            "Who may serve an algorithm, the first first, where it differs from the "
            "default: pyca, libcrypto, pqcrypto, oqs or composite. May be repeated; "
            "the variable holds several with blanks between.",
            multiple=True,
            callback=parse_orders,
            metavar="ALGORITHM=NAME[,NAME...]",
        ),
        _option(
            "enable-oqs",
            "Look for liboqs, which is quick; its makers say that it is not for "
            "production. Not looked for by default, nor with --no-enable-oqs.",
            also="--no-enable-oqs",
            default=False,
            show_default=False,
        ),
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


def _parse_bind(
    context: click.Context, option: click.Parameter, value: str
) -> tuple[str, int]:
    found = _BIND.match(value)
    if found is None or int(found[3]) > 65535:
        raise click.BadParameter("must be HOST:PORT, or [IPV6]:PORT.")
    return found[1] or found[2], int(found[3])
