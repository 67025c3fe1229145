# SPDX-License-Identifier: MIT
"""
Commands of hsm-cli, one module per subject.

The module of a command is imported when the command runs, so that ``--help`` and other
commands start without it.
"""

from __future__ import annotations

# Imports only modules of this package, whose imports the contracts check.
from importlib import import_module  # noqa: TID251
from typing import Any, Final

import click

from hsm_cli.__about__ import __version__
from hsm_cli.options import Group, global_flags, read_settings
from hsm_client.settings import LONGEST_USUAL_TTL_SECONDS, TokenSettings

__all__ = ["COMMANDS", "CONTEXT", "LazyGroup", "cli"]

CONTEXT: Final[dict[str, Any]] = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 88,
}

_SECTIONS: Final = {
    "Keys": {
        "list": ("keys.list_keys", "List keys, newest first."),
        "create": ("new_keys.create", "Create a key."),
        "import": ("new_keys.import_key", "Import a key that was generated elsewhere."),
        "derive": ("new_keys.derive", "Derive a symmetric key from an HSM key."),
        "export": (
            "new_keys.export_key",
            "Export a key, wrapped with another HSM key.",
        ),
        "describe": ("keys.describe", "Show a key's metadata."),
        "versions": ("keys.versions", "List all versions of a key."),
        "rotate": (
            "key_life.rotate",
            "Rotate a key: create a new version with fresh material.",
        ),
        "activate": ("key_life.activate", "Activate the staged version of a key."),
        "rollback": (
            "key_life.rollback",
            "Roll back to an older version: reuse its material in a new one.",
        ),
        "suspend": ("key_life.suspend", "Suspend the current version of a key."),
        "resume": ("key_life.resume", "Resume a suspended key version."),
        "revoke": (
            "key_life.revoke",
            "Revoke a key version or a whole key. Irreversible.",
        ),
        "destroy": ("key_life.destroy", "Destroy all material of a key. Irreversible."),
        "cancel-destroy": (
            "key_life.cancel_destroy",
            "Cancel a scheduled destruction.",
        ),
        "update": ("keys.update", "Edit a key's name, description, owner or tags."),
        "set-rotation": ("key_life.set_rotation", "Configure automatic rotation."),
        "public-key": ("keys.public_key", "Print a public key."),
        "jwk": ("keys.jwk", "Print public keys as JWK or JWK Set."),
        "ssh-public-key": (
            "keys.ssh_public_key",
            "Print a public key in OpenSSH format.",
        ),
        "csr": ("csr.csr", "Create a certificate signing request (CSR) for a key."),
    },
    "Cryptographic operations": {
        "sign": ("signatures.sign", "Sign data."),
        "verify": ("signatures.verify", "Verify a signature."),
        "encrypt": ("encryption.encrypt", "Encrypt data."),
        "decrypt": ("encryption.decrypt", "Decrypt data."),
        "seal": ("kem.seal", "Encrypt a message to a KEM key (sealed blob)."),
        "open": ("kem.open_sealed", "Open a sealed blob."),
        "rewrap": (
            "encryption.rewrap",
            "Re-encrypt a ciphertext with the current key version.",
        ),
        "data-key": (
            "encryption.data_key",
            "Generate a data key for use outside the HSM.",
        ),
        "encapsulate": (
            "kem.encapsulate",
            "Generate a shared secret and its encapsulation.",
        ),
        "decapsulate": (
            "kem.decapsulate",
            "Recover the shared secret of an encapsulation.",
        ),
        "mac": ("signatures.mac", "Compute a message authentication code."),
        "verify-mac": (
            "signatures.verify_mac",
            "Verify a message authentication code.",
        ),
        "random": ("status.random_bytes", "Generate random bytes."),
    },
    "The HSM": {
        "status": ("status.status", "Show the health of the HSM."),
        "selftest": ("status.selftest", "Run all self-tests now."),
        "algorithms": (
            "status.algorithms",
            "List algorithms, their providers and availability.",
        ),
        "approvals": (
            "approvals.approvals",
            "Review, approve and deny approval requests.",
        ),
        "audit": ("audit.audit", "Read and verify the audit log."),
        "store": ("store.store", "Verify, back up and recover the key store."),
        "policy": ("policy.policy", "Show, validate, explain and test policies."),
        "retention": (
            "retention.retention",
            "Manage retention windows, legal holds and the retention ledger.",
        ),
    },
    "This client": {
        "token": ("token.token", "Mint and inspect bearer tokens."),
        "completion": ("token.completion", "Print a shell completion script."),
    },
}
"""Commands by section of the help: module and function in this package, short help."""

_PLACES: Final = {
    name: place
    for section in _SECTIONS.values()
    for name, (place, _) in section.items()
}

COMMANDS: Final = {
    name: text for section in _SECTIONS.values() for name, (_, text) in section.items()
}
"""Every command and its short help, in the order of the help."""


class LazyGroup(Group):
    """Command group that imports a command when it is first used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or None if no command has this name."""
        place = _PLACES.get(cmd_name)
        if place is None:
            return None
        module, _, function = place.partition(".")
        found: click.Command = getattr(import_module(f"{__name__}.{module}"), function)
        return found

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the lists of commands from the table, without importing them."""
        for title, rows in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in rows.items()])


@click.group(
    cls=LazyGroup,
    context_settings=CONTEXT,
    no_args_is_help=False,
    help=(
        "Create, use and manage keys on an hsm-server.\n\n"
        "KEY is the UUID or the name of a key. --json is also accepted after the "
        "command. The exit code identifies the kind of error."
    ),
)
@global_flags
@click.version_option(__version__, prog_name="hsm-cli")
@click.pass_context
def cli(ctx: click.Context, /, **values: Any) -> None:
    """Read the global flags; an HSM already in ``ctx.obj`` replaces the server."""
    from hsm_cli.invocation import Invocation
    from hsm_cli.io.output import Output, print_note, wants_colour
    from hsm_cli.parameters import warn_of_literal_secrets

    settings = read_settings(ctx, values)
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
        json=values["json"], colour=not values["no_color"] and wants_colour()
    )
    ctx.obj = Invocation(settings, output, ctx.obj)
    if settings.waits:
        ctx.obj.set_approval_wait()
    ctx.call_on_close(ctx.obj.close)


def _mints(ctx: click.Context, token: TokenSettings) -> bool:
    taken = bool(token.auth_token) and ctx.invoked_subcommand != "token"
    return bool(token.jwt_secret or token.private_key) and not taken
