# SPDX-License-Identifier: MIT
"""Commands of this client: bearer tokens and shell completion."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping
from typing import Any, Final

import click
from click.shell_completion import ShellComplete, get_completion_class

from hsm_cli.actions.tokens import read_token, token_parts
from hsm_cli.invocation import Invocation
from hsm_cli.io.files import Source
from hsm_cli.options import Group, given_as_flag
from hsm_cli.parameters import LocalCommand
from hsm_client.tokens import (
    MIN_SECRET_BYTES,
    has_key,
    mint_token,
    open_signer,
    open_token,
)
from hsm_core.errors import AuthenticationError, ConfigurationError, InvalidInputError
from hsm_core.model import Record
from hsm_core.secret_input import read_secret

_FIELD: Final = "verify_key"
_PUBLIC: Final = ("kty", "crv", "x", "y", "n", "e")


class TokenFacts(Record, frozen=True, kw_only=True):
    """
    Header and claims of a token.

    Attributes:
        algorithm: ``alg`` of its header.
        header: All header parameters, as JSON values.
        claims: All claims, as JSON values.
        expires_in_seconds: Negative if it has expired; None if it never does.
        signature: ``valid``, or ``not verified`` if no key was given.
    """

    algorithm: str
    header: dict[str, Any]
    claims: dict[str, Any]
    expires_in_seconds: int | None
    signature: str


def inspect_token(
    token: str,
    *,
    secret: bytes | None = None,
    keys: bytes | None = None,
    now: float | None = None,
) -> TokenFacts:
    """
    Decode a token; its signature is verified only if a key is given.

    Args:
        token: JWS compact serialization, with any algorithm.

        secret: Verifies HS256.

        keys: A public key as PEM, a JWK or a JWK Set; verifies RS256, ES256 and EdDSA.
            Takes precedence over *secret*.

        now: Seconds since 1970; None means the current time.

    Raises:
        MalformedError: It is not a JWT in compact form.
        InvalidInputError: There is no key in *keys*.
        AuthenticationError: The signature does not match the key.
    """
    header, claims = token_parts(token)
    algorithm = header.get("alg")
    if keys is not None:
        _check_by_keys(token, header, keys)
    elif secret is not None:
        _check_by_secret(token, secret)
    expires = claims.get("exp")
    left = None
    if isinstance(expires, int) and not isinstance(expires, bool):
        left = expires - int(time.time() if now is None else now)
    return TokenFacts(
        algorithm=algorithm if isinstance(algorithm, str) else "",
        header=header,
        claims=claims,
        expires_in_seconds=left,
        signature="not verified" if secret is None and keys is None else "valid",
    )


def _check_by_secret(token: str, secret: bytes) -> None:
    """
    Verify an HS256 token.

    Raises:
        AuthenticationError: The signature does not match the secret.
    """
    from joserfc import jwk

    if not _is_signed(token, jwk.OctKey.import_key(secret), "HS256"):
        raise AuthenticationError(
            "The signature of the token does not match this secret with HS256."
        )


def _check_by_keys(token: str, header: Mapping[str, Any], data: bytes) -> None:
    """
    Verify an RS256, ES256 or EdDSA token.

    Args:
        token: The token.

        header: Its header; its ``kid`` selects keys of a set.

        data: A public key as PEM, a JWK, or a JWK Set.

    Raises:
        InvalidInputError: It is none of these, or has no key of a supported type.
        AuthenticationError: The signature does not match any of the keys.
    """
    found = _keys_of_json(data) if data.lstrip()[:1] == b"{" else [("", _of_pem(data))]
    usable = [(kid, key, alg) for kid, key in found if (alg := _algorithm_of(key))]
    if not usable:
        raise InvalidInputError(
            "The file has no RSA, EC P-256 or Ed25519 public key.", field=_FIELD
        )
    kid = header.get("kid")
    if not any(
        _is_signed(token, key, alg)
        for name, key, alg in usable
        if not name or kid is None or name == kid
    ):
        raise AuthenticationError(
            "The signature of the token does not match this key."
            if len(usable) == 1
            else "The signature of the token does not match the set's key with its kid."
        )


def _is_signed(token: str, key: Any, algorithm: str) -> bool:
    from joserfc import jwt
    from joserfc.errors import JoseError

    try:
        with warnings.catch_warnings():
            # EdDSA does not name the curve (RFC 9864); the key does.
            warnings.simplefilter("ignore")
            jwt.decode(token, key, algorithms=[algorithm])
    except (JoseError, ValueError):
        return False
    return True


def _of_pem(data: bytes) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from joserfc import jwk
    from joserfc.errors import JoseError

    try:
        load_pem_public_key(data)
        for kind in (jwk.RSAKey, jwk.ECKey, jwk.OKPKey):
            try:
                return kind.import_key(data)
            except (JoseError, ValueError, TypeError):
                continue
    except (ValueError, UnsupportedAlgorithm):
        pass
    raise InvalidInputError(
        "The file must be a PEM public key, a JWK or a JWK Set.", field=_FIELD
    )


def _keys_of_json(data: bytes) -> list[tuple[str, Any]]:
    """Return the public part of each key with its ``kid``; skip invalid keys."""
    from joserfc import jwk
    from joserfc.errors import JoseError

    try:
        known = json.loads(data)
        rows = known.get("keys", [known])
        found = []
        for row in rows:
            try:
                public = {name: row[name] for name in _PUBLIC if name in row}
                found.append((str(row.get("kid", "")), jwk.import_key(public)))
            except (JoseError, ValueError, TypeError, LookupError, AttributeError):
                continue
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InvalidInputError(
            "The file must be a PEM public key, a JWK or a JWK Set.", field=_FIELD
        ) from None
    return found


def _algorithm_of(key: Any) -> str:
    """Return the algorithm of a key; empty if tokens do not support it."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    match key.raw_value:
        case rsa.RSAPublicKey():
            return "RS256"
        case ec.EllipticCurvePublicKey() as raw if isinstance(raw.curve, ec.SECP256R1):
            return "ES256"
        case ed25519.Ed25519PublicKey():
            return "EdDSA"
        case _:
            return ""


class MintedToken(Record, frozen=True, kw_only=True):
    """Token in the JSON output of ``token mint`` and ``token show``."""

    token: str


@click.group("token", cls=Group, no_args_is_help=False)
def token() -> None:
    """Mint, show and inspect bearer tokens."""


@token.command("mint", cls=LocalCommand)
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


@token.command("show", cls=LocalCommand)
@click.pass_obj
def show(invocation: Invocation) -> None:
    """
    Print the bearer token that commands send, for use with curl.

    It comes from the profile, --auth-token or the minting options. Keep it secret:
    until it expires, its holder has your rights.
    """
    token = open_token(invocation.settings.token)()
    invocation.output.record(MintedToken(token=token), token)


@token.command("inspect", cls=LocalCommand)
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
    text = read_token(given, is_typed=token is not None)
    if key_file is None:
        facts = inspect_token(text, secret=_secret(invocation))
    else:
        facts = inspect_token(text, keys=_keys(key_file))
    invocation.output.pairs(facts, _pairs(facts))


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


@click.command("completion", cls=LocalCommand)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """
    Print a shell completion script.

    For bash: eval "$(hsm-cli completion bash)"
    """
    invocation: Invocation = ctx.obj
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"Completion is not supported for {shell}.")
    complete = kind(ctx.find_root().command, {}, "hsm-cli", "_HSM_CLI_COMPLETE")
    # The base class fills in the script without starting the shell to ask its version.
    invocation.output.line(ShellComplete.source(complete).rstrip())
