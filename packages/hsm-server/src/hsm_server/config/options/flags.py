# SPDX-License-Identifier: MIT
"""The flags, by what they are about."""

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
    """Return what can be said, by what it is about, in the order of the help."""
    return {
        "Listener and TLS": _listener(),
        "Stores, trail and retention": [*stores(), *key_life_options()],
        "Secrets": _secrets(),
        "Who is let in": [*token_options(), *_sign_in(), *console_options()],
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
    """The command ``hsm-server``, whose help has its options in groups."""

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
            "Address to listen on; port 0 takes a free one.",
            default="127.0.0.1:8443",
            metavar="HOST:PORT",
            callback=_parse_bind,
        ),
        *tls_options(),
    ]


def _secrets() -> list[click.Parameter]:
    rows = {
        "master-key": "Root that seals all keys: 32 bytes.",
        "hmac-key": "Key of the audit trail: 32 bytes.",
    }
    return [
        *(
            option(flag, text, required=True, metavar="SECRET")
            for flag, text in rows.items()
        ),
        option(
            "auth-jwt-secret",
            "HS256 key of bearer tokens: at least 32 bytes. Required where there is "
            "none of --auth-jwt-config, --auth-jwt-jwks-url and "
            "--client-cert-identities.",
            metavar="SECRET",
        ),
    ]


def _sign_in() -> list[click.Parameter]:
    return [
        option(
            "oidc-config",
            "A provider of OpenID Connect, by which people sign in to the console; "
            "YAML or JSON.",
            type=click.Path(path_type=Path),
            metavar="FILE",
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
        "max-connections-per-address": (
            "Of these, how many one network address may have.",
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
            "Policy: who may do what, and who must agree; YAML or JSON. By default the "
            "built-in one of --policy-profile. A change takes effect by itself.",
            type=click.Path(path_type=Path),
            metavar="FILE",
        ),
        option(
            "policy-profile",
            "Built-in policy, where there is no --policy-config.",
            type=click.Choice([profile.value for profile in PolicyProfile]),
            default=PolicyProfile.DEFAULT.value,
            metavar="NAME",
        ),
        option(
            "policy-reload-interval-secs",
            "How often the file is looked at for a change, in seconds. What it holds "
            "is put in force when it was there twice in a row, or after SIGHUP.",
            default=2.0,
            type=click.FloatRange(0.1, 3600),
        ),
    ]


def _cryptography() -> list[click.Parameter]:
    return [
        option(
            "provider",
            "Who may serve an algorithm, the first first, where it differs from the "
            "default: pyca, libcrypto, pqcrypto, oqs or composite. May be repeated, "
            "or several with commas between.",
            multiple=True,
            callback=parse_orders,
            metavar="ALGORITHM=NAME[,NAME...]",
        ),
        option(
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
        option(
            "drain-timeout-secs",
            "How long requests in flight may finish after SIGTERM, in seconds; the "
            "server ends at most 3 seconds later.",
            default=7.0,
            type=click.FloatRange(0),
        ),
        option(
            "list-cache-ttl-secs",
            "How long a listing of keys may be shown again to the same caller, in "
            "seconds. Every change of a key or of the policy ends that. 0 for never.",
            default=5,
            type=click.IntRange(0),
        ),
        option(
            "log-level",
            "Least severe level that is logged to standard error.",
            default="info",
            type=click.Choice([level.value for level in LogLevel]),
        ),
        option(
            "log-format",
            "How a line of the log is written.",
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
            "Whether keys live in a process of their own ('process'), or where the "
            "network is too ('inline', for development).",
            default=Isolation.PROCESS.value,
            type=click.Choice([kind.value for kind in Isolation]),
            metavar="MODE",
        ),
        option(
            "workers",
            "Processes that accept connections; with --isolation inline there is one.",
            default=1,
            type=click.IntRange(1, 64),
        ),
        option(
            "event-loop",
            "What front ends and vault run on: 'asyncio', or 'uvloop' where it is "
            "installed, which needs a little less of a processor.",
            default=EventLoop.ASYNCIO.value,
            type=click.Choice([kind.value for kind in EventLoop]),
            metavar="KIND",
        ),
        option(
            "vault-user",
            "User who is to hold the keys, where the server is started by root.",
            callback=parse_user,
            metavar="USER",
        ),
        option(
            "front-end-user",
            "User who is to accept connections, where the server is started by root. "
            "It must be able to read certificate and private key, and nothing else.",
            callback=parse_user,
            metavar="USER",
        ),
    ]
