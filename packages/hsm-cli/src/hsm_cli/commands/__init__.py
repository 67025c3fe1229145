# SPDX-License-Identifier: MIT
"""
The commands of hsm-cli, one module each.

A command's module is imported when the command is asked for, so that ``--help`` and
every other command start without it.
"""

from __future__ import annotations

# It imports modules of this package only, whose own imports the contracts see.
from importlib import import_module  # noqa: TID251
from typing import Any, Final

import click

from hsm_cli.__about__ import __version__
from hsm_cli.options.flags import global_flags, read_settings
from hsm_cli.options.parameter_types import Group
from hsm_cli.settings import LONGEST_USUAL_TTL_SECONDS, TokenSettings

__all__ = ["COMMANDS", "CONTEXT", "LazyGroup", "cli"]

CONTEXT: Final[dict[str, Any]] = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 88,
}

_SECTIONS: Final = {
    "Keys": {
        "list": ("list_keys", "Show keys, newest first."),
        "create": ("create", "Make a key."),
        "import": ("import_key", "Make a key from material that was made elsewhere."),
        "derive": ("derive", "Make a symmetric key from a key of the HSM."),
        "export": ("export", "Return a key wrapped by another key of the HSM."),
        "describe": ("describe", "Show what may be known of a key."),
        "versions": ("versions", "Show all versions of a key."),
        "rotate": ("rotate", "Make a new version from fresh material."),
        "activate": ("activate", "Make the staged version the current one."),
        "rollback": (
            "rollback",
            "Make a new version from the material of an older one.",
        ),
        "suspend": (
            "suspend",
            "Let the current version serve nothing but its public key.",
        ),
        "resume": ("resume", "Let a suspended version be active again."),
        "revoke": (
            "revoke",
            "Mark a version, or all of a key, as compromised; for ever.",
        ),
        "destroy": ("destroy", "Destroy all material of a key; for ever."),
        "cancel-destroy": (
            "cancel_destroy",
            "Give a key back that waits for its destruction.",
        ),
        "update": ("update", "Change what is said of a key."),
        "set-rotation": ("set_rotation", "Say when the HSM rotates a key by itself."),
        "public-key": ("public_key", "Print a public key."),
        "jwk": ("jwk", "Print public keys as JWK, or as a JWK Set."),
        "ssh-public-key": ("ssh_public_key", "Print a public key as OpenSSH takes it."),
        "csr": ("csr", "Request a certificate for a key."),
    },
    "Using keys": {
        "sign": ("sign", "Sign data."),
        "verify": ("verify", "Check a signature."),
        "encrypt": ("encrypt", "Encrypt data."),
        "decrypt": ("decrypt", "Decrypt data."),
        "seal": ("seal", "Encrypt a message to a KEM key."),
        "open": ("open_sealed", "Decrypt what seal made."),
        "rewrap": ("rewrap", "Encrypt a ciphertext anew under the current version."),
        "data-key": ("data_key", "Make a symmetric key for use outside."),
        "encapsulate": ("encapsulate", "Make a fresh shared secret for a KEM key."),
        "decapsulate": (
            "decapsulate",
            "Take the shared secret out of an encapsulation.",
        ),
        "mac": ("mac", "Compute a message authentication code."),
        "verify-mac": ("verify_mac", "Check a message authentication code."),
        "random": ("random_bytes", "Print random bytes of the HSM."),
    },
    "The HSM": {
        "status": ("status", "Show the health of the HSM."),
        "selftest": ("selftest", "Run all self-tests now."),
        "algorithms": (
            "algorithms",
            "Show algorithms, and who serves them or what to install.",
        ),
        "approvals": ("approvals", "See what others ask for, and agree or refuse."),
        "audit": ("audit", "Read and verify the audit trail."),
        "store": (
            "store",
            "Compare the key store with the trail, back it up, recover it.",
        ),
        "policy": ("policy", "Show, check, explain and try policies."),
        "retention": (
            "retention",
            "See and change for how long old key versions are kept.",
        ),
    },
    "This client": {
        "token": ("token", "Mint and inspect bearer tokens."),
        "completion": (
            "completion",
            "Print a script that completes commands in a shell.",
        ),
    },
}
"""Each command by section of the help: its module in this package, its short help."""

_MODULES: Final = {
    name: module
    for section in _SECTIONS.values()
    for name, (module, _) in section.items()
}

COMMANDS: Final = {
    name: text for section in _SECTIONS.values() for name, (_, text) in section.items()
}
"""Every command and its short help, in the order of the help."""


class LazyGroup(Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, imported now, or None if there is none of this name."""
        module = _MODULES.get(cmd_name)
        if module is None:
            return None
        found: click.Command = import_module(f"{__name__}.{module}").command
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
        "Create, use and watch over keys on an hsm-server.\n\n"
        "Where a KEY is asked for, its UUID or its name will do. --json is accepted "
        "after a command too. The exit code says what kind of error it was."
    ),
)
@global_flags
@click.version_option(__version__, prog_name="hsm-cli")
@click.pass_context
def cli(ctx: click.Context, /, **values: Any) -> None:
    """Read the global flags; what stands in ``ctx.obj`` before is used as the HSM."""
    from hsm_cli.actions.options import warn_of_visible
    from hsm_cli.invocation import Invocation
    from hsm_cli.io.output import Output, print_note, wants_colour

    settings = read_settings(ctx, values)
    warn_of_visible(ctx, "auth_token", "jwt_secret")
    if settings.insecure:
        print_note("warning: the server's certificate is not checked (--insecure).")
    if _mints(ctx, settings.token) and (
        settings.token.ttl_seconds > LONGEST_USUAL_TTL_SECONDS
    ):
        print_note(
            "warning: servers refuse tokens that are valid for more than "
            f"{LONGEST_USUAL_TTL_SECONDS} seconds, unless told otherwise (--token-ttl)."
        )
    output = Output(
        json=values["json"], colour=not values["no_color"] and wants_colour()
    )
    ctx.obj = Invocation(settings, output, ctx.obj)
    if settings.waits:
        ctx.obj.be_patient()
    ctx.call_on_close(ctx.obj.close)


def _mints(ctx: click.Context, token: TokenSettings) -> bool:
    taken = bool(token.auth_token) and ctx.invoked_subcommand != "token"
    return bool(token.jwt_secret or token.private_key) and not taken
