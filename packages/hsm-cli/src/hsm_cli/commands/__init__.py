# SPDX-License-Identifier: MIT
"""
Commands of hsm-cli, one module per subject.

The module of a command is imported when the command runs, so that ``--help`` and other
commands start without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from hsm_cli.__about__ import __version__
from hsm_cli.groups import Listing, Program
from hsm_cli.options import global_flags
from hsm_client.defaults import LONGEST_USUAL_TTL_SECONDS

if TYPE_CHECKING:
    from hsm_client.settings import TokenSettings

CONTEXT: Final[dict[str, Any]] = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 88,
}

_KEYS: Final[Listing] = {
    "list": ("keys.list_keys", "List keys, newest first."),
    "create": ("new_keys.create", "Create a key."),
    "describe": ("keys.describe", "Show a key's metadata."),
    "edit": ("keys.edit", "Edit a key's name, description, owner or tags."),
    "import": ("new_keys.import_key", "Import a key that was generated elsewhere."),
    "export": ("new_keys.export_key", "Export a key, wrapped with another HSM key."),
    "derive": ("new_keys.derive", "Derive a symmetric key from an HSM key."),
    "public-key": ("public_keys.public_key", "Print a public key."),
    "certificates": (
        "certificates.certificates",
        "Attach, show and remove the certificate chain of a key.",
    ),
    "csr": ("csr.csr", "Create a certificate signing request (CSR) for a key."),
}
_LIFE: Final[Listing] = {
    "rotate": ("key_life.rotate", "Rotate a key: create a new version."),
    "versions": ("keys.versions", "List all versions of a key."),
    "rollback": ("key_life.rollback", "Roll back to an older version."),
    "activate": ("key_life.activate", "Activate the staged version of a key."),
    "suspend": ("key_life.suspend", "Suspend the current version of a key."),
    "resume": ("key_life.resume", "Resume a suspended key version."),
    "revoke": (
        "key_life.revoke",
        "Revoke a key version or a whole key. Irreversible.",
    ),
    "destroy": ("key_life.destroy", "Destroy all material of a key. Irreversible."),
    "cancel-destroy": ("key_life.cancel_destroy", "Cancel a scheduled destruction."),
    "rotation": ("key_life.rotation", "Configure automatic rotation."),
    "retention": (
        "retention.retention",
        "Manage retention windows, legal holds and the retention ledger.",
    ),
}
_USES: Final[Listing] = {
    "sign": ("signatures.sign", "Sign data."),
    "verify": ("signatures.verify", "Verify a signature."),
    "encrypt": ("encryption.encrypt", "Encrypt data."),
    "decrypt": ("encryption.decrypt", "Decrypt data."),
    "seal": ("kem.seal", "Encrypt a message to a KEM key (sealed blob)."),
    "open": ("kem.open_sealed", "Open a sealed blob."),
    "rewrap": ("encryption.rewrap", "Re-encrypt with the current key version."),
    "data-key": ("encryption.data_key", "Generate a data key for use elsewhere."),
    "encapsulate": ("kem.encapsulate", "Generate a shared secret, encapsulated."),
    "decapsulate": ("kem.decapsulate", "Recover an encapsulated shared secret."),
    "mac": ("signatures.mac", "Compute a message authentication code."),
    "verify-mac": ("signatures.verify_mac", "Verify a message authentication code."),
    "random": ("status.random_bytes", "Generate random bytes."),
}
_CONTROL: Final[Listing] = {
    "approvals": ("approvals.approvals", "Review, approve and deny requests."),
    "audit": ("audit.audit", "Read and verify the audit log."),
    "policy": ("policy.policy", "Show, validate, explain and test policies."),
    "status": ("status.status", "Show the health of the HSM."),
    "watch": ("watch.watch", "Watch health and open approval requests."),
    "algorithms": ("status.algorithms", "List algorithms and their availability."),
    "people": ("people.people", "List, add and remove people with credentials."),
    "operator": ("operator.operator", "Self-tests, backup and recovery."),
}
_INTERFACES: Final[Listing] = {
    "pkcs11": ("pkcs11.pkcs11", "Serve keys to programs that use PKCS#11."),
    "ssh-agent": ("ssh_agent.ssh_agent", "Run an SSH agent with keys of the HSM."),
}
_CLIENT: Final[Listing] = {
    "login": ("login.login", "Sign in to a server, and add a profile for it."),
    "logout": ("login.logout", "Sign out: remove the stored secrets of a profile."),
    "whoami": ("login.whoami", "Show your principal and roles."),
    "profile": ("profile.profile", "List, choose and show connection profiles."),
    "token": ("token.token", "Mint, show and inspect bearer tokens."),
    "completion": ("token.completion", "Print a shell completion script."),
    "help": ("help.help_command", "Show the help of a command, or of all."),
}
SECTIONS: Final = {
    "Keys": _KEYS,
    "Life of a key": _LIFE,
    "Cryptographic operations": _USES,
    "Control": _CONTROL,
    "Interfaces for programs": _INTERFACES,
    "This client": _CLIENT,
}
"""Every command, by section of the complete help."""

DAILY: Final = (
    *("login", "list", "create", "describe", "sign", "verify", "encrypt", "decrypt"),
    *("rotate", "approvals", "audit", "status"),
)
"""Commands of the short help, at most 12."""

SPELLINGS: Final[Listing] = {
    "update": ("keys.edit", "edit"),
    "set-rotation": ("key_life.set_rotation", "rotation set, rotation off"),
    "jwk": ("public_keys.jwk", "public-key --format jwk"),
    "ssh-public-key": ("public_keys.ssh_public_key", "public-key --format ssh"),
    "store": ("store.store", "operator store, operator backup"),
    "selftest": ("status.selftest", "operator selftest"),
}
"""Former names of commands, which keep working, with the new ones."""


@click.group(
    cls=Program,
    sections=SECTIONS,
    daily=DAILY,
    spellings=SPELLINGS,
    context_settings=CONTEXT,
    no_args_is_help=False,
    help=(
        "Create, use and manage keys on an hsm-server.\n\n"
        "KEY is a name, an ID, or at least the first 8 digits of an ID."
    ),
)
@global_flags
@click.version_option(__version__, prog_name="hsm-cli")
@click.pass_context
def cli(ctx: click.Context, /, **values: Any) -> None:
    """Read the global flags; an HSM already in ``ctx.obj`` replaces the server."""
    from hsm_cli.connection import read_connection, read_form
    from hsm_cli.invocation import Invocation
    from hsm_cli.io.output import Output, print_note, wants_colour
    from hsm_cli.parameters import warn_of_literal_secrets

    settings = read_connection(ctx, values)
    warn_of_literal_secrets(ctx, "auth_token", "jwt_secret")
    if settings.insecure:
        print_note("warning: server certificate verification is off (--insecure).")
    if _mints(ctx, settings.token) and (
        settings.token.ttl_seconds > LONGEST_USUAL_TTL_SECONDS
    ):
        print_note(
            "warning: by default, servers reject tokens that are valid for more than "
            f"{LONGEST_USUAL_TTL_SECONDS} seconds (--token-ttl)."
        )
    output = Output(
        form=read_form(ctx, values, settings.profile),
        colour=not values["no_color"] and wants_colour(),
    )
    ctx.obj = Invocation(settings, output, ctx.obj)
    if settings.waits:
        ctx.obj.set_approval_wait()
    ctx.call_on_close(ctx.obj.close)


def _mints(ctx: click.Context, token: TokenSettings) -> bool:
    taken = bool(token.auth_token) and ctx.invoked_subcommand != "token"
    return bool(token.jwt_secret or token.private_key) and not taken
