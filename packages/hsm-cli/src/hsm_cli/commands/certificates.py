# SPDX-License-Identifier: MIT
"""Commands for the certificate chain of a key."""

from __future__ import annotations

import click

from hsm_cli.invocation import Invocation
from hsm_cli.io.files import Source
from hsm_cli.io.results import deliver_public
from hsm_cli.options import Group
from hsm_cli.parameters import (
    ChangeCommand,
    HSMCommand,
    file_option,
    key_operand,
    version_option,
)
from hsm_core.errors import InvalidInputError
from hsm_core.operations.certificates import (
    AttachCertificates,
    GetCertificates,
    RemoveCertificates,
)

_VERSION = version_option("Key version. Default: the current one.")


@click.group("certificates", cls=Group, no_args_is_help=False)
def certificates() -> None:
    """Attach, show and remove the certificate chain of a key."""


@certificates.command("attach", cls=ChangeCommand)
@key_operand
@click.option(
    "--in",
    "path",
    metavar="FILE",
    required=True,
    help="Certificate chain (PEM or DER), leaf first; - is standard input.",
)
@_VERSION
@click.pass_obj
def attach(invocation: Invocation, key_id: str, path: str, version: int | None) -> None:
    """
    Attach a certificate chain to a key version. Replaces an earlier one.

    PKCS#11 programs see it beside the key.
    """
    chain = Source(what="certificate chain", path=path).read()
    invocation.change_key(
        AttachCertificates(key_id=key_id, chain=chain, version=version)
    )


@certificates.command("show", cls=HSMCommand)
@key_operand
@_VERSION
@file_option("Write the certificates to a file.")
@click.pass_obj
def show(
    invocation: Invocation, key_id: str, version: int | None, out: str | None
) -> None:
    """Print the certificate chain of a key version as PEM."""
    found = invocation.execute(GetCertificates(key_id=key_id, version=version))
    if not found.items and not invocation.output.is_record:
        raise InvalidInputError(
            f"Version {found.version} has no certificates. To attach them, run: "
            f"hsm-cli certificates attach {key_id} --in FILE"
        )
    deliver_public(invocation.output, found.pem.encode(), out, found)


@certificates.command("remove", cls=ChangeCommand)
@key_operand
@_VERSION
@click.pass_obj
def remove(invocation: Invocation, key_id: str, version: int | None) -> None:
    """Remove the certificate chain of a key version."""
    invocation.change_key(RemoveCertificates(key_id=key_id, version=version))
