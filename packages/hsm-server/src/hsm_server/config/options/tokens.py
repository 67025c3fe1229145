# SPDX-License-Identifier: MIT
"""Flags about bearer tokens: by which keys they are verified, and what they say."""

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
            "Keys that tokens are verified with, in place of --auth-jwt-secret; YAML "
            "or JSON. A change takes effect by itself.",
            type=click.Path(path_type=Path),
            metavar="FILE",
        ),
        option(
            "auth-jwt-jwks-url",
            "Where public keys of tokens are fetched from as a JWK Set, over HTTPS. "
            "They count beside those of --auth-jwt-config.",
            default="",
            show_default=False,
            callback=parse_key_set_url,
            metavar="URL",
        ),
        option(
            "auth-jwt-jwks-ca",
            "Who may have signed the certificate of that server, PEM; by default those "
            "whom the system trusts.",
            type=click.Path(path_type=Path, readable=False),
            metavar="FILE",
        ),
        option(
            "auth-jwt-reload-secs",
            "How often that file is looked at for a change, and keys are fetched, in "
            "seconds; within this time they are in force.",
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
            "Required audience (aud) of tokens; without it, tokens for an audience are "
            "refused.",
            default="",
            show_default=False,
            metavar="TEXT",
        ),
        option(
            "auth-jwt-leeway-secs",
            "How far the issuer's clock may be off, in seconds, where the file of keys "
            "does not say.",
            default=60,
            type=click.IntRange(0, 300),
        ),
        option(
            "auth-jwt-max-lifetime-secs",
            "Longest life of a token, in seconds.",
            default=86400,
            type=click.IntRange(1),
        ),
    ]
