# SPDX-License-Identifier: MIT
"""Sign-in and sign-out, and the signed-in user."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from hsm_cli.actions.sign_in import (
    complete_sign_in,
    default_store,
    new_profile_name,
    prompt_secret,
    sign_out,
)
from hsm_cli.actions.tokens import read_token
from hsm_cli.invocation import Invocation
from hsm_cli.io.files import STDIN
from hsm_cli.io.output import print_note
from hsm_cli.io.results import words
from hsm_cli.options import ListOption, choice
from hsm_cli.parameters import HSMCommand, LocalCommand
from hsm_client.client_certificates import is_pkcs12
from hsm_client.credentials import StoredSecrets
from hsm_client.profiles import (
    DEV,
    CredentialKind,
    Profile,
    SecretStore,
    choose_profile,
    is_same_endpoint,
    load_profiles,
)
from hsm_client.settings import ClientSettings
from hsm_core.errors import ConfigurationError, InvalidInputError
from hsm_core.operations.service import CallerInfo, DescribeCaller
from hsm_core.secret_input import is_literal_secret, read_secret_text

_OF_PROVIDERS: Final = (
    *("client_id", "scopes", "audience", "device"),
    *("redirect_port", "issuer_ca_bundle"),
)
_CERTIFICATES: Final = (CredentialKind.CERTIFICATE, CredentialKind.PKCS12)


@click.command("login", cls=LocalCommand)
@click.argument("url", required=False, metavar="[URL]")
@click.option(
    "--credential",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Sign in with this client certificate and its key: PKCS#12 or PEM.",
)
@click.option(
    "--password",
    metavar="SECRET",
    help="Password of the PKCS#12 file: @FILE or fd:N. Default: prompt.",
)
@click.option(
    "--token",
    metavar="SECRET",
    help="Sign in with this bearer token: @FILE, fd:N, or - for standard input or a "
    "prompt.",
)
@click.option(
    "--issuer",
    metavar="URL",
    help="Sign in at this OpenID Connect provider, in a browser.",
)
@click.option(
    "--client-id",
    metavar="ID",
    help="OAuth client ID of hsm-cli at the provider (a public client).",
)
@click.option(
    "--scope",
    "scopes",
    cls=ListOption,
    metavar="SCOPE[,SCOPE...]",
    help="Scopes to request. Default: openid, and offline_access if supported.",
)
@click.option("--audience", metavar="TEXT", help="Requested audience of access tokens.")
@click.option(
    "--device",
    is_flag=True,
    help="Sign in with a code on another device, for a machine without a browser.",
)
@click.option(
    "--redirect-port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="PORT",
    help="Port on 127.0.0.1 for the browser's redirect. Default: any free one.",
)
@click.option(
    "--issuer-ca-bundle",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="CA certificates of the provider (PEM). Default: the system's.",
)
@click.option(
    "--secret-store",
    type=choice(SecretStore),
    metavar="NAME",
    help="Where to keep secrets: keyring (of the system) or file (mode 0600). Default: "
    "keyring if there is one.",
)
@click.pass_context
def login(ctx: click.Context, /, url: str | None, **values: Any) -> None:
    """
    Sign in to the server at URL, and add a profile for it.

    The profile becomes the current one. Its name is the host name, or --profile. The
    global --ca-bundle becomes part of it. Without URL, sign in again with a profile.
    """
    invocation: Invocation = ctx.obj
    given: str | None = ctx.find_root().params["profile"]
    profile = _profile(url, given, invocation.settings)
    if values["secret_store"] is not None:
        profile = msgspec.structs.replace(profile, secret_store=values["secret_store"])
    profile, secrets = _credential(profile, invocation.settings, values)
    caller = complete_sign_in(profile, secrets, invocation.settings)
    table = {
        "profile": profile.name,
        "endpoint": profile.endpoint,
        "principal": caller.principal if caller is not None else "",
        "roles": caller.roles if caller is not None else (),
    }
    person = ""
    if caller is not None:
        person = f" as {caller.principal} ({words(caller.roles)})"
    invocation.output.record(
        table,
        f"Signed in to {profile.endpoint}{person}. Profile: {profile.name}.",
    )


@click.command("logout", cls=LocalCommand)
@click.pass_context
def logout(ctx: click.Context) -> None:
    """
    Sign out: remove the stored secrets of a profile.

    The profile itself stays, so `hsm-cli login` signs in again.
    """
    invocation: Invocation = ctx.obj
    profile = choose_profile(ctx.find_root().params["profile"])
    if profile is None or profile.name == DEV:
        raise ConfigurationError(
            "No profile is in use. Name one with --profile.", field="profile"
        )
    had_any = sign_out(profile)
    if profile.credential in _CERTIFICATES:
        print_note(f"the client certificate stays in {profile.client_cert}")
    text = f"Signed out of profile {profile.name}."
    if not had_any:
        text = f"Profile {profile.name} has no stored secrets."
    invocation.output.record({"profile": profile.name, "signed_out": had_any}, text)


@click.command("whoami", cls=HSMCommand)
@click.pass_obj
def whoami(invocation: Invocation) -> None:
    """Show the principal and the roles that the server gives you."""
    found = invocation.execute(DescribeCaller())
    profile = invocation.settings.profile
    name = profile.name if profile is not None else ""
    table = {**msgspec.to_builtins(found), "profile": name}
    invocation.output.pairs(table, [*_pairs(found), ("profile", name)])


def _pairs(found: CallerInfo) -> list[tuple[str, str]]:
    return [
        ("principal", found.principal),
        ("roles", words(found.roles)),
        ("credential", found.credential_id),
        ("certificate", found.certificate_subject),
        ("address", found.source_address),
    ]


def _profile(url: str | None, given: str | None, settings: ClientSettings) -> Profile:
    """Return the profile to sign in with: a known one, or a new one for the URL."""
    profiles = load_profiles()
    if url is None:
        known = choose_profile(given)
        if known is None or known.name == DEV:
            raise click.UsageError(
                "Missing URL of the server, such as https://hsm.example.com:8443."
            )
        return known
    name = given or new_profile_name(url, profiles.by_name)
    before = profiles.by_name.get(name)
    if before is not None and is_same_endpoint(before.endpoint, url):
        bundle = settings.ca_bundle or before.ca_bundle
        return msgspec.structs.replace(
            before, endpoint=url, ca_bundle=bundle and bundle.absolute()
        )
    return Profile(
        name=name,
        endpoint=url,
        credential=CredentialKind.TOKEN,
        ca_bundle=settings.ca_bundle and settings.ca_bundle.absolute(),
        secret_store=default_store(),
    )


def _credential(
    profile: Profile, settings: ClientSettings, values: dict[str, Any]
) -> tuple[Profile, StoredSecrets]:
    """Return the profile with the given credential, and its secrets."""
    _check_options(values)
    file = values["credential"]
    if values["token"] is not None:
        secrets = StoredSecrets(token=_read_token(values["token"]))
        return _with_token(profile, settings, CredentialKind.TOKEN), secrets
    if values["issuer"] is None and file is None:
        if profile.credential in _CERTIFICATES:
            file = profile.client_cert
        elif profile.credential is not CredentialKind.OIDC:
            raise click.UsageError(
                "How do you sign in? Pass --credential FILE for a client certificate, "
                "--issuer URL for a provider, or --token - for a bearer token."
            )
    if file is not None:
        return _with_certificate(profile, file, settings, values["password"])
    return _at_provider(profile, settings, values)


def _check_options(values: dict[str, Any]) -> None:
    """Refuse options that exclude each other, or would be ignored."""
    ways = [name for name in ("credential", "token", "issuer") if values[name]]
    if len(ways) > 1:
        raise click.UsageError(f"--{ways[0]} and --{ways[1]} are mutually exclusive.")
    if values["password"] is not None and ways[:1] in (["token"], ["issuer"]):
        raise click.UsageError("--password requires --credential.")
    if ways[:1] in (["credential"], ["token"]):
        for name in _OF_PROVIDERS:
            if values[name]:
                option = "scope" if name == "scopes" else name.replace("_", "-")
                raise click.UsageError(f"--{option} requires --issuer.")


def _at_provider(
    profile: Profile, settings: ClientSettings, values: dict[str, Any]
) -> tuple[Profile, StoredSecrets]:
    """Sign in at a provider, in a browser or with a code."""
    # It loads an HTTP server and a library, which other ways do not need.
    from hsm_cli.actions import provider_sign_in as at

    bundle = values["issuer_ca_bundle"] or profile.issuer_ca_bundle
    profile = msgspec.structs.replace(
        _with_token(profile, settings, CredentialKind.OIDC),
        issuer=values["issuer"] or profile.issuer,
        client_id=values["client_id"] or profile.client_id,
        audience=values["audience"] or profile.audience,
        issuer_ca_bundle=bundle and bundle.absolute(),
    )
    if not profile.client_id:
        raise click.UsageError("--issuer requires --client-id.")
    provider = at.open_provider(profile)
    is_known = values["issuer"] is None and profile.scopes
    scopes = values["scopes"] or (is_known or at.default_scopes(provider))
    profile = msgspec.structs.replace(profile, scopes=tuple(scopes))
    if values["device"]:
        return profile, at.sign_in_by_device(provider, profile)
    port: int = values["redirect_port"]
    return profile, at.sign_in_by_browser(provider, profile, port=port)


def _with_token(
    profile: Profile, settings: ClientSettings, kind: CredentialKind
) -> Profile:
    """Return a profile with a token, and a client certificate if one is required."""
    return msgspec.structs.replace(
        profile,
        credential=kind,
        client_cert=settings.client_cert and settings.client_cert.absolute(),
        client_key=settings.client_key and settings.client_key.absolute(),
    )


def _with_certificate(
    profile: Profile, file: Path, settings: ClientSettings, password: str | None
) -> tuple[Profile, StoredSecrets]:
    path = file.expanduser().absolute()
    kind = CredentialKind.PKCS12 if is_pkcs12(path) else CredentialKind.CERTIFICATE
    key = settings.client_key and settings.client_key.absolute()
    profile = msgspec.structs.replace(
        profile, credential=kind, client_cert=path, client_key=key
    )
    if kind is CredentialKind.CERTIFICATE:
        if password is not None:
            raise click.UsageError("--password is for PKCS#12 files.")
        return profile, StoredSecrets()
    return profile, StoredSecrets(password=_read_password(path, password))


def _read_password(path: Path, given: str | None) -> str:
    if given is None:
        return prompt_secret(f"Password of {path.name}", "--password @FILE")
    _refuse_literal(given, "--password")
    return read_secret_text(given, field="password")


def _read_token(given: str) -> str:
    if given == STDIN and sys.stdin is not None and sys.stdin.isatty():
        token = prompt_secret("Token", "--token @FILE")
    else:
        if given != STDIN:
            _refuse_literal(given, "--token")
        token = read_token(given, is_typed=False)
    if not token:
        raise InvalidInputError("The token is empty.", field="token")
    return token


def _refuse_literal(given: str, option: str) -> None:
    if is_literal_secret(given):
        raise click.UsageError(
            f"{option} takes @FILE or fd:N, because other users can see the command "
            "line."
        )
