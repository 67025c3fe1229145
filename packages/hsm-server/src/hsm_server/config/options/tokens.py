# SPDX-License-Identifier: MIT
"""Flags of bearer tokens: verification keys and required claims."""

from __future__ import annotations

from pathlib import Path

import click

from hsm_server.config.options.key_sets import parse_key_set_url
from hsm_server.config.options.option import option


def token_options() -> list[click.Parameter]:
    """Return the flags, in the order of the help."""
    return [*_token_keys(), *_token_claims()]


def _token_keys() -> list[click.Parameter]:
    return [
        option(
            "auth-jwt-config",
            "File with keys that verify tokens, YAML or JSON. Replaces "
            "--auth-jwt-secret. Reloaded when it changes.",
            type=click.Path(path_type=Path),
            metavar="FILE",
        ),
        option(
            "auth-jwt-jwks-url",
            "HTTPS URL of a JWK Set with public keys that verify tokens. Used "
            "together with the keys of --auth-jwt-config.",
            default="",
            show_default=False,
            callback=parse_key_set_url,
            metavar="URL",
        ),
        option(
            "auth-jwt-jwks-ca",
            "CA certificates that verify the JWK Set server, PEM. Default: the "
            "system's CAs.",
            type=click.Path(path_type=Path, readable=False),
            metavar="FILE",
        ),
        option(
            "auth-jwt-reload-secs",
            "Interval between checks of --auth-jwt-config for changes and "
            "fetches of the JWK Set, in seconds.",
            default=30.0,
            type=click.FloatRange(0.5, 3600),
        ),
    ]


def _token_claims() -> list[click.Parameter]:
    return [
        option(
            "auth-jwt-issuer",
            "Required issuer (iss) of tokens.",
            default="",
            show_default=False,
            metavar="TEXT",
        ),
        option(
            "auth-jwt-audience",
            "Required audience (aud) of tokens. If unset, tokens with an "
            "audience are rejected.",
            default="",
            show_default=False,
            metavar="TEXT",
        ),
        option(
            "auth-jwt-leeway-secs",
            "Allowed clock difference to the token issuer, in seconds. "
            "--auth-jwt-config can override it.",
            default=60,
            type=click.IntRange(0, 300),
        ),
        option(
            "auth-jwt-max-lifetime-secs",
            "Maximum lifetime of a token, in seconds.",
            default=86400,
            type=click.IntRange(1),
        ),
    ]
