# SPDX-License-Identifier: MIT
"""The command ``csr``."""

from __future__ import annotations

import click

from hsm_cli.actions.options import HSMCommand
from hsm_cli.invocation import Invocation
from hsm_cli.io.files import write_file
from hsm_cli.io.operands import key_operand
from hsm_cli.options.parameter_types import ListOption


@click.command("csr", cls=HSMCommand)
@key_operand
@click.option(
    "--subject", default="", metavar="NAME", help="Subject, such as CN=web,O=Example."
)
@click.option(
    "--dns",
    cls=ListOption,
    metavar="NAME",
    help="DNS name; repeatable or comma-separated.",
)
@click.option(
    "--ip",
    cls=ListOption,
    metavar="ADDR",
    help="IP address; repeatable or comma-separated.",
)
@click.option(
    "--email",
    cls=ListOption,
    metavar="ADDR",
    help="Email address; repeatable or comma-separated.",
)
@click.option(
    "--uri",
    cls=ListOption,
    metavar="URI",
    help="URI; repeatable or comma-separated.",
)
@click.option("--pss", is_flag=True, help="Sign with RSASSA-PSS (RSA keys only).")
@click.option("--out", metavar="FILE", help="Write the request to a file.")
@click.pass_obj
def command(
    invocation: Invocation,
    key_id: str,
    subject: str,
    dns: tuple[str, ...],
    ip: tuple[str, ...],
    email: tuple[str, ...],
    uri: tuple[str, ...],
    pss: bool,
    out: str | None,
) -> None:
    """
    Create a certificate signing request (PKCS #10, PEM), signed in the HSM.

    Supported keys: RSA, ECDSA, EdDSA and ML-DSA.
    """
    from hsm_cli.actions.certificate_requests import (
        CertificateNames,
        request_certificate,
    )
    from hsm_core.keys import open_private_key

    wanted = CertificateNames(
        subject=subject, dns=dns, ip=ip, email=email, uri=uri, pss=pss
    )
    key = open_private_key(invocation, key_id)
    data = request_certificate(key, wanted)
    if out is not None and out != "-":
        write_file(out, data, private=False)
    elif invocation.output.json:
        invocation.output.record({"key_id": key.key_id, "csr": data.decode()}, "")
    else:
        invocation.output.data(data)
