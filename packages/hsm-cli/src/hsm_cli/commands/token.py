# SPDX-License-Identifier: MIT
"""Subcommands of ``token``."""

from __future__ import annotations

import sys

import click

from hsm_cli.actions.options import LocalCommand
from hsm_cli.identity.token_keys import MIN_SECRET_BYTES, has_key, open_signer
from hsm_cli.identity.tokens import TokenFacts, inspect_token, mint_token
from hsm_cli.invocation import Invocation
from hsm_cli.io.files import Source
from hsm_cli.io.output import print_note
from hsm_cli.options.flags import given_as_flag
from hsm_cli.options.parameter_types import Group
from hsm_core.errors import ConfigurationError, InvalidInputError
from hsm_core.model import Record
from hsm_core.secret_input import is_literal_secret, read_secret, read_secret_text

_LONGEST_BYTES = 64 * 1024
_STDIN = "-"


class MintedToken(Record, frozen=True, kw_only=True):
    """Token in the JSON output of ``token mint``."""

    token: str


@click.group("token", cls=Group, no_args_is_help=False)
def command() -> None:
    """Mint and inspect bearer tokens."""


@command.command("mint", cls=LocalCommand)
@click.pass_obj
def mint(invocation: Invocation) -> None:
    """
    Mint a bearer token and print it.

    Its contents come from the global flags --actor, --roles, --token-ttl and
    --jwt-issuer. --jwt-secret or --jwt-private-key, with --jwt-algorithm and --jwt-kid,
    signs it. Keep it secret: until it expires, its holder has the actor's rights.
    """
    settings = invocation.settings.token
    if not has_key(settings):
        raise ConfigurationError(
            "No key to sign the token with. Pass --jwt-secret or --jwt-private-key, or "
            "set FERROHSM_JWT_SECRET.",
            field="jwt_secret",
        )
    token = mint_token(
        open_signer(settings),
        actor=settings.actor,
        roles=settings.roles,
        ttl_seconds=settings.ttl_seconds,
        issuer=settings.issuer,
    )
    invocation.output.record(MintedToken(token=token), token)


@command.command("inspect", cls=LocalCommand)
@click.argument("token", required=False, metavar="[TOKEN]")
@click.option(
    "--verify-key",
    "key_file",
    metavar="FILE",
    help="Verify the signature with this public key (PEM), JWK or JWK Set.",
)
@click.pass_obj
def inspect(invocation: Invocation, token: str | None, key_file: str | None) -> None:
    """
    Show the header and the claims of a token.

    TOKEN is a token, @FILE, fd:N, or - for standard input. Default: --auth-token. The
    signature is verified only with --jwt-secret (HS256) or --verify-key (RS256, ES256,
    EdDSA). Expiry and the server's other requirements are not checked.
    """
    given = token if token is not None else invocation.settings.token.auth_token
    if not given:
        raise click.UsageError("Missing token. Pass TOKEN or --auth-token.")
    if token not in {None, _STDIN} and is_literal_secret(given):
        print_note(
            "warning: other users can see TOKEN on the command line. Use @FILE, fd:N "
            "or - for standard input."
        )
    text = _read(given)
    if key_file is None:
        facts = inspect_token(text, secret=_secret(invocation))
    else:
        facts = inspect_token(text, keys=_keys(key_file))
    invocation.output.pairs(facts, _pairs(facts))


def _read(given: str) -> str:
    if given != _STDIN:
        return read_secret_text(given, field="auth_token").strip()
    if sys.stdin is None:
        raise InvalidInputError("Standard input is closed.", field="auth_token")
    return sys.stdin.buffer.read(_LONGEST_BYTES).decode("ascii", "replace").strip()


def _keys(path: str) -> bytes:
    context = click.get_current_context().find_root()
    if given_as_flag(context, "jwt_secret"):
        raise click.UsageError("--jwt-secret and --verify-key are mutually exclusive.")
    return Source(what="key", path=path).read()


def _secret(invocation: Invocation) -> bytes | None:
    given = invocation.settings.token.jwt_secret
    if not given:
        return None
    return read_secret(given, field="jwt_secret", minimum=MIN_SECRET_BYTES, exact=None)


def _pairs(facts: TokenFacts) -> list[tuple[str, str]]:
    left, signature = facts.expires_in_seconds, facts.signature
    if signature != "valid":
        signature += "; do not trust these claims"
    if left is None:
        lifetime = "never"
    else:
        lifetime = f"in {left} s" if left > 0 else f"{-left} s ago"
    return [
        ("algorithm", facts.algorithm),
        *(
            (f"header {name}", _words(value))
            for name, value in facts.header.items()
            if name != "alg"
        ),
        *((name, _words(value)) for name, value in facts.claims.items()),
        ("expires", lifetime),
        ("signature", signature),
    ]


def _words(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
