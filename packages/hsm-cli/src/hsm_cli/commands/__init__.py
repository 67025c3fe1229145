# SPDX-License-Identifier: MIT
"""
The commands of hsm-cli, one module each.

A command's module is imported when the command is asked for, so that ``--help`` and
every other command start without it.
"""

from __future__ import annotations

from typing import Any, Final

import click

from hsm_cli.__about__ import __version__
from hsm_cli.flags import global_flags, read_settings
from hsm_cli.settings import LONGEST_USUAL_TTL_SECONDS, TokenSettings

__all__ = ["COMMANDS", "CONTEXT", "LazyGroup", "cli"]

CONTEXT: Final[dict[str, Any]] = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 88,
}

_SECTIONS: Final = {
    "Keys": {
        "list": "Show keys, newest first.",
        "create": "Make a key.",
        "import": "Make a key from material that was made elsewhere.",
        "derive": "Make a symmetric key from a key of the HSM.",
        "export": "Return a key wrapped by another key of the HSM.",
        "describe": "Show what may be known of a key.",
        "versions": "Show all versions of a key.",
        "rotate": "Make a new version from fresh material.",
        "activate": "Make the staged version the current one.",
        "rollback": "Make a new version from the material of an older one.",
        "suspend": "Let the current version serve nothing but its public key.",
        "resume": "Let a suspended version be active again.",
        "revoke": "Mark a version, or all of a key, as compromised; for ever.",
        "destroy": "Destroy all material of a key; for ever.",
        "cancel-destroy": "Give a key back that waits for its destruction.",
        "update": "Change what is said of a key.",
        "set-rotation": "Say when the HSM rotates a key by itself.",
        "public-key": "Print a public key.",
        "jwk": "Print public keys as JWK, or as a JWK Set.",
        "ssh-public-key": "Print a public key as OpenSSH takes it.",
        "csr": "Request a certificate for a key.",
    },
    "Using keys": {
        "sign": "Sign data.",
        "verify": "Check a signature.",
        "encrypt": "Encrypt data.",
        "decrypt": "Decrypt data.",
        "seal": "Encrypt a message to a KEM key.",
        "open": "Decrypt what seal made.",
        "rewrap": "Encrypt a ciphertext anew under the current version.",
        "data-key": "Make a symmetric key for use outside.",
        "encapsulate": "Make a fresh shared secret for a KEM key.",
        "decapsulate": "Take the shared secret out of an encapsulation.",
        "mac": "Compute a message authentication code.",
        "verify-mac": "Check a message authentication code.",
        "random": "Print random bytes of the HSM.",
    },
    "The HSM": {
        "status": "Show the health of the HSM.",
        "selftest": "Run all self-tests now.",
        "algorithms": "Show algorithms, and who serves them or what to install.",
        "approvals": "See what others ask for, and agree or refuse.",
        "audit": "Read and verify the audit trail.",
        "store": "Compare the key store with the trail, back it up, recover it.",
        "policy": "Show, check, explain and try policies.",
        "retention": "See and change for how long old key versions are kept.",
    },
    "This client": {
        "token": "Mint and inspect bearer tokens.",
        "completion": "Print a script that completes commands in a shell.",
    },
}

COMMANDS: Final = {
    name: text for section in _SECTIONS.values() for name, text in section.items()
}
"""Every command and its short help, in the order of the help."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, imported now, or None if there is none of this name."""
        return _load(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the lists of commands from the table, without importing them."""
        for title, rows in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(list(rows.items()))


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
    from hsm_cli.invocation import Invocation
    from hsm_cli.options import warn_of_visible
    from hsm_cli.output import Output, print_note, wants_colour

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


def _load(name: str) -> click.Command:
    names = list(COMMANDS)
    if name in _LIFE:
        return _load_life_command(name)
    if name in _PUBLIC:
        return _load_public(name)
    if names.index(name) < names.index("sign"):
        return _load_key_command(name)
    if names.index(name) < names.index("random"):
        return _load_use(name)
    return _load_other(name)


def _load_key_command(name: str) -> click.Command:
    match name:
        case "list":
            from hsm_cli.commands import list_keys

            return list_keys.command
        case "create":
            from hsm_cli.commands import create

            return create.command
        case "import":
            from hsm_cli.commands import import_key

            return import_key.command
        case "derive":
            from hsm_cli.commands import derive

            return derive.command
        case "export":
            from hsm_cli.commands import export

            return export.command
        case "describe":
            from hsm_cli.commands import describe

            return describe.command
        case "versions":
            from hsm_cli.commands import versions

            return versions.command
        case "rotate":
            from hsm_cli.commands import rotate

            return rotate.command
        case "rollback":
            from hsm_cli.commands import rollback

            return rollback.command
        case "revoke":
            from hsm_cli.commands import revoke

            return revoke.command
        case _:
            from hsm_cli.commands import destroy

            return destroy.command


_PUBLIC: Final = frozenset({"csr", "jwk", "public-key", "ssh-public-key"})


def _load_public(name: str) -> click.Command:
    match name:
        case "public-key":
            from hsm_cli.commands import public_key

            return public_key.command
        case "jwk":
            from hsm_cli.commands import jwk

            return jwk.command
        case "ssh-public-key":
            from hsm_cli.commands import ssh_public_key

            return ssh_public_key.command
        case _:
            from hsm_cli.commands import csr

            return csr.command


_LIFE: Final = frozenset(
    {
        "activate",
        "cancel-destroy",
        "resume",
        "set-rotation",
        "suspend",
        "update",
    }
)


def _load_life_command(name: str) -> click.Command:
    match name:
        case "activate":
            from hsm_cli.commands import activate

            return activate.command
        case "suspend":
            from hsm_cli.commands import suspend

            return suspend.command
        case "resume":
            from hsm_cli.commands import resume

            return resume.command
        case "cancel-destroy":
            from hsm_cli.commands import cancel_destroy

            return cancel_destroy.command
        case "update":
            from hsm_cli.commands import update

            return update.command
        case _:
            from hsm_cli.commands import set_rotation

            return set_rotation.command


def _load_use(name: str) -> click.Command:
    match name:
        case "sign":
            from hsm_cli.commands import sign

            return sign.command
        case "verify":
            from hsm_cli.commands import verify

            return verify.command
        case "encrypt":
            from hsm_cli.commands import encrypt

            return encrypt.command
        case "decrypt":
            from hsm_cli.commands import decrypt

            return decrypt.command
        case "mac":
            from hsm_cli.commands import mac

            return mac.command
        case "seal":
            from hsm_cli.commands import seal

            return seal.command
        case "open":
            from hsm_cli.commands import open_sealed

            return open_sealed.command
        case "rewrap":
            from hsm_cli.commands import rewrap

            return rewrap.command
        case "data-key":
            from hsm_cli.commands import data_key

            return data_key.command
        case "encapsulate":
            from hsm_cli.commands import encapsulate

            return encapsulate.command
        case "decapsulate":
            from hsm_cli.commands import decapsulate

            return decapsulate.command
        case _:
            from hsm_cli.commands import verify_mac

            return verify_mac.command


def _load_other(name: str) -> click.Command:
    match name:
        case "random":
            from hsm_cli.commands import random_bytes

            return random_bytes.command
        case "status":
            from hsm_cli.commands import status

            return status.command
        case "store":
            from hsm_cli.commands import store

            return store.command
        case "selftest":
            from hsm_cli.commands import selftest

            return selftest.command
        case "algorithms":
            from hsm_cli.commands import algorithms

            return algorithms.command
        case "approvals":
            from hsm_cli.commands import approvals

            return approvals.command
        case "audit":
            from hsm_cli.commands import audit

            return audit.command
        case "policy":
            from hsm_cli.commands import policy

            return policy.command
        case "retention":
            from hsm_cli.commands import retention

            return retention.command
        case "token":
            from hsm_cli.commands import token

            return token.command
        case _:
            from hsm_cli.commands import completion

            return completion.command
