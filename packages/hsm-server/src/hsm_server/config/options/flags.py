# SPDX-License-Identifier: MIT
"""The flags, in groups of the help."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import click

from hsm_core.settings import PolicyProfile
from hsm_server.config.options.addresses import parse_address
from hsm_server.config.options.console import console_options
from hsm_server.config.options.key_life import key_life_options
from hsm_server.config.options.metrics import metrics_options
from hsm_server.config.options.option import option, refuse_repeated
from hsm_server.config.options.providers import parse_orders
from hsm_server.config.options.rates import rate_options
from hsm_server.config.options.stores import stores
from hsm_server.config.options.tls import tls_options
from hsm_server.config.options.tokens import token_options
from hsm_server.config.options.tracing import tracing_options
from hsm_server.config.options.unavailable import UNAVAILABLE, unavailable
from hsm_server.config.options.users import parse_user
from hsm_server.config.settings import EventLoop, Isolation, LogFormat, LogLevel

SECRET_OPTIONS: Final = ("master-key", "hmac-key", "auth-jwt-secret")
"""Flags that hold or name a secret."""


def options() -> list[click.Parameter]:
    """Return every option of ``hsm-server``."""
    return [
        *(parameter for group in _groups().values() for parameter in group),
        *map(unavailable, UNAVAILABLE),
    ]


def _groups() -> dict[str, list[click.Parameter]]:
    """Return the options by group, in the order of the help."""
    return {
        "Listener and TLS": _listener(),
        "Storage, audit and retention": [*stores(), *key_life_options()],
        "Secrets": _secrets(),
        "Authentication": [*token_options(), *_sign_in(), *console_options()],
        "Limits": [*_limits(), *rate_options()],
        "Policy": _policy(),
        "Cryptography": _cryptography(),
        "Service": [
            *_service(),
            *metrics_options(),
            *tracing_options(),
            *_isolation(),
        ],
    }


class ServerCommand(click.Command):
    """Command ``hsm-server`` with options in groups."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words of the command line; none may be dropped."""
        if not ctx.resilient_parsing:
            refuse_repeated(self, ctx, args)
        return super().parse_args(ctx, args)

    def format_options(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write each group below its title, and what is in none at the end."""
        by_name = {parameter.name: parameter for parameter in self.get_params(ctx)}
        for title, group in _groups().items():
            found = [by_name.pop(parameter.name) for parameter in group]
            _write(title, found, ctx, formatter)
        _write("Options", by_name.values(), ctx, formatter)


def _write(
    title: str,
    parameters: Iterable[click.Parameter],
    ctx: click.Context,
    formatter: click.HelpFormatter,
) -> None:
    records = (parameter.get_help_record(ctx) for parameter in parameters)
    with formatter.section(title):
        formatter.write_dl([record for record in records if record is not None])


def _listener() -> list[click.Parameter]:
    return [
        option(
            "bind",
            "Address to listen on. Port 0 selects a free port.",
            default="127.0.0.1:8443",
            metavar="HOST:PORT",
            callback=_parse_bind,
        ),
        *tls_options(),
    ]


def _secrets() -> list[click.Parameter]:
    rows = {
        "master-key": "Root key that encrypts all keys: 32 bytes.",
        "hmac-key": "HMAC key of the audit log: 32 bytes.",
    }
    return [
        *(
            option(flag, text, required=True, metavar="SECRET")
            for flag, text in rows.items()
        ),
        option(
            "auth-jwt-secret",
            "HS256 key that verifies bearer tokens: at least 32 bytes. Required "
            "unless --auth-jwt-config, --auth-jwt-jwks-url or "
            "--client-cert-identities is set.",
            metavar="SECRET",
        ),
    ]


def _sign_in() -> list[click.Parameter]:
    return [
        option(
            "oidc-config",
            "OpenID Connect provider for sign-in to the console, YAML or JSON.",
            type=click.Path(path_type=Path),
            metavar="FILE",
        ),
    ]


def _limits() -> list[click.Parameter]:
    mib = 1024 * 1024
    rows = {
        "max-json-bytes": ("Maximum size of a JSON body, in bytes.", 2 * mib, 1024),
        "max-payload-bytes": (
            "Maximum size of a decoded byte string in a JSON body, in bytes.",
            mib,
            1,
        ),
        "max-raw-bytes": (
            "Maximum size of an application/octet-stream body, in bytes.",
            64 * mib,
            1,
        ),
        "max-aad-bytes": (
            "Maximum size of additional authenticated data, in bytes.",
            64 * 1024,
            0,
        ),
        "max-connections": (
            "Maximum number of concurrent connections. Lower if the limit of "
            "open files requires it.",
            1000,
            1,
        ),
        "max-connections-per-address": (
            "Maximum number of concurrent connections per network address.",
            500,
            1,
        ),
    }
    return [
        option(flag, text, default=default, type=click.IntRange(least))
        for flag, (text, default, least) in rows.items()
    ]


def _policy() -> list[click.Parameter]:
    return [
        option(
            "policy-config",
            "Policy file, YAML or JSON: permissions and required approvals. "
            "Reloaded when it changes. Default: the built-in policy of "
            "--policy-profile.",
            type=click.Path(path_type=Path),
            metavar="FILE",
        ),
        option(
            "policy-profile",
            "Built-in policy. Ignored with --policy-config.",
            type=click.Choice([profile.value for profile in PolicyProfile]),
            default=PolicyProfile.DEFAULT.value,
            metavar="NAME",
        ),
        option(
            "policy-reload-interval-secs",
            "Interval between checks of the policy file, in seconds. A change "
            "takes effect after two identical reads, or on SIGHUP.",
            default=2.0,
            type=click.FloatRange(0.1, 3600),
        ),
    ]


def _cryptography() -> list[click.Parameter]:
    return [
        option(
            "provider",
            "Providers of an algorithm, in order of preference: pyca, "
            "libcrypto, pqcrypto, oqs or composite. Repeatable; accepts "
            "comma-separated values.",
            multiple=True,
            callback=parse_orders,
            metavar="ALGORITHM=NAME[,NAME...]",
        ),
        option(
            "enable-oqs",
            "Use liboqs if installed. It is fast, but its authors advise "
            "against production use. Disabled by default; also --no-enable-oqs.",
            also="--no-enable-oqs",
            default=False,
            show_default=False,
        ),
    ]


def _service() -> list[click.Parameter]:
    return [
        option(
            "drain-timeout-secs",
            "Time for requests in flight to finish after SIGTERM, in seconds. "
            "The server exits at most 3 seconds later.",
            default=7.0,
            type=click.FloatRange(0),
        ),
        option(
            "list-cache-ttl-secs",
            "Time to cache a caller's key list, in seconds. Any change to a key "
            "or the policy invalidates it. 0 disables the cache.",
            default=5,
            type=click.IntRange(0),
        ),
        option(
            "log-level",
            "Minimum severity of log messages on standard error.",
            default="info",
            type=click.Choice([level.value for level in LogLevel]),
        ),
        option(
            "log-format",
            "Format of log messages.",
            default="json",
            type=click.Choice([form.value for form in LogFormat]),
        ),
    ]


def _parse_bind(
    context: click.Context, parameter: click.Parameter, value: str
) -> tuple[str, int]:
    return parse_address(value)


def _isolation() -> list[click.Parameter]:
    return [
        option(
            "isolation",
            "Where keys are held: 'process' for a separate vault process, "
            "'inline' for the process that accepts connections (development "
            "only).",
            default=Isolation.PROCESS.value,
            type=click.Choice([kind.value for kind in Isolation]),
            metavar="MODE",
        ),
        option(
            "workers",
            "Number of front-end processes. Always 1 with --isolation inline.",
            default=1,
            type=click.IntRange(1, 64),
        ),
        option(
            "event-loop",
            "Event loop of front ends and vault: 'asyncio', or 'uvloop' if "
            "installed, which uses slightly less CPU.",
            default=EventLoop.ASYNCIO.value,
            type=click.Choice([kind.value for kind in EventLoop]),
            metavar="KIND",
        ),
        option(
            "vault-user",
            "System user of the vault process. Requires a start as root.",
            callback=parse_user,
            metavar="USER",
        ),
        option(
            "front-end-user",
            "System user of the front ends. Requires a start as root. It needs "
            "read access to the TLS certificate and private key, and to nothing "
            "else.",
            callback=parse_user,
            metavar="USER",
        ),
    ]
