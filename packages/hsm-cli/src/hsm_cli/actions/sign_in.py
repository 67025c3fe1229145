# SPDX-License-Identifier: MIT
"""Sign-in: check of a credential at the server, then a profile with its secrets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from msgspec.structs import replace

from hsm_cli.actions.profile_file import save_profile
from hsm_cli.io.output import print_note
from hsm_client import RemoteHSM
from hsm_client.client_certificates import read_pkcs12
from hsm_client.credentials import (
    StoredSecrets,
    has_keyring,
    locked_secrets,
    open_credential_store,
)
from hsm_client.profile_secrets import is_bound
from hsm_client.profiles import (
    RESERVED,
    CredentialKind,
    Profile,
    SecretStore,
    check_profile_name,
    is_same_endpoint,
    load_profiles,
)
from hsm_client.settings import ClientSettings
from hsm_core.dev_profile import config_folder
from hsm_core.errors import (
    AccessDeniedError,
    AuthenticationError,
    ConfigurationError,
    TransportError,
)
from hsm_core.operations.service import CallerInfo, DescribeCaller
from hsm_core.private_files import write_private_file


def new_profile_name(endpoint: str, known: Mapping[str, Profile]) -> str:
    """
    Return a name for the profile of an endpoint: the one it has, or its host name.

    Args:
        endpoint: URL of the server.

        known: Profiles by name.
    """
    for name, profile in known.items():
        if name not in RESERVED and is_same_endpoint(profile.endpoint, endpoint):
            return name
    try:
        parts = urlsplit(endpoint)
        host, port = (parts.hostname or "").replace(":", "-").strip("-"), parts.port
    except ValueError:
        host, port = "", None
    name = f"{host}-{port or 443}" if host in {*known, *RESERVED} else host
    return check_profile_name(name)


def default_store() -> SecretStore:
    """Return the keyring if there is one, else files."""
    return SecretStore.KEYRING if has_keyring() else SecretStore.FILE


def complete_sign_in(
    profile: Profile, secrets: StoredSecrets, settings: ClientSettings
) -> CallerInfo | None:
    """
    Check a credential at the server, save profile and secrets, and return the caller.

    If the server is not trusted, and the PKCS#12 file of the credential has the
    certificate of its CA, the profile trusts that one; not if the user chose a CA.

    Args:
        profile: The new profile.

        secrets: Its secrets.

        settings: Flags and environment.

    Returns:
        None if the policy does not let callers see their identity.

    Raises:
        AuthenticationError: The server rejects the credential; nothing is saved.
        TransportError: The server can't be reached or is not trusted.
        ConfigurationError: A file can't be read or written.
    """
    former = load_profiles().by_name.get(check_profile_name(profile.name))
    try:
        caller = _check(profile, secrets, settings)
    except TransportError as error:
        is_ours = profile.ca_bundle in {None, _bundle_of(profile)}
        if error.facts.get("reason") != "certificate" or not is_ours:
            raise
        bundle = _save_authorities(profile, secrets)
        if bundle is None:
            raise
        profile = replace(profile, ca_bundle=bundle)
        caller = _check(profile, secrets, settings)
        print_note(f"trusting the CA in {profile.client_cert}")
    secrets = replace(secrets, endpoint=profile.endpoint, issuer=profile.issuer)
    # First the secrets: a profile without them would be of no use.
    with locked_secrets(profile):
        open_credential_store(profile.secret_store).save(profile.name, secrets)
    save_profile(profile)
    if former is not None and former.secret_store is not profile.secret_store:
        open_credential_store(former.secret_store).remove(profile.name)
    return caller


def _check(
    profile: Profile, secrets: StoredSecrets, settings: ClientSettings
) -> CallerInfo | None:
    with RemoteHSM(
        profile.endpoint,
        token=lambda: secrets.token,
        ca_bundle=profile.ca_bundle,
        client_cert=profile.client_cert,
        client_key=profile.client_key,
        client_key_password=secrets.password,
        insecure=settings.insecure,
        timeout_seconds=settings.timeout_seconds,
    ) as hsm:
        try:
            return hsm.execute(DescribeCaller())
        except AccessDeniedError:
            return None
        except AuthenticationError:
            raise AuthenticationError(
                f"The server {profile.endpoint} rejected this credential. Nothing was "
                "saved."
            ) from None


def _save_authorities(profile: Profile, secrets: StoredSecrets) -> Path | None:
    """Write the CA certificates of a PKCS#12 file as a CA bundle."""
    from cryptography.hazmat.primitives.serialization import Encoding

    if profile.credential is not CredentialKind.PKCS12 or profile.client_cert is None:
        return None
    found = read_pkcs12(profile.client_cert, secrets.password)
    if not found.authorities:
        return None
    path = _bundle_of(profile)
    pem = b"".join(ca.public_bytes(Encoding.PEM) for ca in found.authorities)
    write_private_file(path, pem)
    return path


def _bundle_of(profile: Profile) -> Path:
    """Return the file for the CA certificates of a profile's PKCS#12 file."""
    return config_folder() / "ca" / f"{profile.name}.pem"


def sign_out(profile: Profile) -> bool:
    """
    Remove the secrets of a profile, and return whether there were any.

    The provider of the profile revokes its refresh token; a note says if it does not.

    Raises:
        ConfigurationError: They can't be removed.
    """
    store = open_credential_store(profile.secret_store)
    stored = None
    with locked_secrets(profile):
        try:
            stored = store.load(profile.name)
        except ConfigurationError as error:
            # They go all the more if others can read them.
            print_note(f"{error} Its tokens are not revoked.")
        had_any = store.remove(profile.name)
    if stored is not None and stored.refresh_token:
        if not is_bound(stored, profile):
            print_note("the profile has changed; its refresh token is not revoked")
            return had_any
        # It loads an HTTP server and a library, which other profiles do not need.
        from hsm_cli.actions.provider_sign_in import open_provider, revoke

        note = revoke(open_provider(profile), stored.refresh_token)
        if note:
            print_note(note)
    return had_any


def prompt_secret(text: str, option: str) -> str:
    """
    Return a secret that the user types, without showing it.

    Args:
        text: The prompt.

        option: Option to use where there is no terminal.

    Raises:
        click.UsageError: Standard input is no terminal.
    """
    import sys

    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError(f"Pass {option}, or run the command on a terminal.")
    answer: Any = click.prompt(text, hide_input=True, err=True)
    return str(answer).strip()
