# SPDX-License-Identifier: MIT
"""Options of every local interface: HSM in this process, and PIN."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from hsm_cli.interfaces.access import MAX_PIN_BYTES, Access, Connector, Embedded, Server
from hsm_cli.invocation import Invocation
from hsm_cli.io.output import print_note
from hsm_cli.options import with_options
from hsm_core.errors import InputSizeError
from hsm_core.secret_input import is_literal_secret, read_secret_text
from hsm_core.settings import AuditSync

_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_EMBEDDED: Final = {
    "root_key": "--root-key",
    "hmac_key": "--hmac-key",
    "policy": "--policy",
    "audit_sync": "--audit-sync",
}


def _read_pin(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> bytes | None:
    """Return the PIN; it is read once, however many slots it is for."""
    if value is None:
        return None
    if is_literal_secret(value):
        raise click.UsageError("--pin must be @FILE or fd:N: ps shows arguments.")
    pin = read_secret_text(value, field="pin").encode()
    if not 1 <= len(pin) <= MAX_PIN_BYTES:
        raise InputSizeError("pin", actual=len(pin), minimum=1, maximum=MAX_PIN_BYTES)
    return pin


access_options: Final = with_options(
    click.option(
        "--embedded",
        metavar="DIR",
        type=click.Path(file_okay=False, path_type=Path),
        help="Open the HSM in this directory, in place of a server's. The user is "
        "--actor with --roles.",
    ),
    click.option(
        "--root-key",
        metavar="FILE",
        type=_FILE,
        help="Root key of the embedded HSM.",
    ),
    click.option(
        "--hmac-key",
        metavar="FILE",
        type=_FILE,
        help="HMAC key of the embedded HSM's audit log. Default: derived from the root "
        "key.",
    ),
    click.option(
        "--policy",
        metavar="FILE",
        type=_FILE,
        help="Policy of the embedded HSM. Default: the built-in policy.",
    ),
    click.option(
        "--audit-sync",
        type=click.Choice(["strict", "bounded"]),
        help="When the embedded HSM returns a result: strict after its audit record is "
        "synced to disk, bounded up to 20 ms earlier. Default: strict.",
    ),
    click.option(
        "--pin",
        metavar="PIN",
        callback=_read_pin,
        help="PIN that programs must give: @FILE or fd:N. Default: the "
        "password of the client certificate if none is stored, else no PIN.",
    ),
)
"""Adds the options whose values `open_access` takes to a command."""


def open_access(
    invocation: Invocation,
    interface: str,
    *,
    embedded: Path | None = None,
    root_key: Path | None = None,
    hmac_key: Path | None = None,
    policy: Path | None = None,
    audit_sync: str | None = None,
    pin: bytes | None = None,
    notify: Callable[[str], None] = print_note,
) -> Access:
    """
    Return the HSM of an interface.

    Args:
        invocation: Connection of the command.

        interface: Name of the interface, such as ``pkcs11``.

        embedded: Value of ``--embedded``.

        root_key: Value of ``--root-key``.

        hmac_key: Value of ``--hmac-key``.

        policy: Value of ``--policy``.

        audit_sync: Value of ``--audit-sync``.

        pin: Value of ``--pin``.

        notify: Called with each note on a refusal; see `Access`.

    Raises:
        click.UsageError: Options do not go together.
        HSMError: The credential can't be read.
    """
    settings = invocation.settings
    given = {
        "root_key": root_key,
        "hmac_key": hmac_key,
        "policy": policy,
        "audit_sync": audit_sync,
    }
    connector: Connector
    if embedded is None:
        for name, value in given.items():
            if value is not None:
                raise click.UsageError(f"{_EMBEDDED[name]} requires --embedded.")
        connector = Server(settings)
    else:
        if root_key is None:
            raise click.UsageError("--embedded requires --root-key.")
        connector = Embedded(
            embedded,
            root_key,
            principal=settings.token.actor,
            roles=settings.token.roles,
            audit_key=hmac_key,
            policy=policy,
            audit_sync=None if audit_sync is None else AuditSync(audit_sync),
        )
    if pin is not None and connector.takes_pin:
        raise click.UsageError(
            "--pin can't be used: the password of the client certificate is the PIN. "
            "Store that password, or omit --pin."
        )
    return Access(interface, connector, pin=pin or b"", notify=notify)
