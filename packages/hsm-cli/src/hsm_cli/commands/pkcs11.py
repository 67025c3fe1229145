# SPDX-License-Identifier: MIT
"""Commands of the PKCS#11 interface."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from hsm_cli.interfaces.options import access_options, open_access
from hsm_cli.interfaces.pkcs11.server import serve as serve_stream
from hsm_cli.interfaces.sockets import (
    Stream,
    StreamEndedError,
    default_path,
    listen,
    stdio,
    stopped_by_signals,
)
from hsm_cli.invocation import Invocation
from hsm_cli.io.output import print_note
from hsm_cli.options import Group
from hsm_cli.parameters import LocalCommand

_NAME = "pkcs11"


@click.group("pkcs11", cls=Group, no_args_is_help=False)
def pkcs11() -> None:
    """Serve keys to programs that use PKCS#11, through p11-kit."""


@pkcs11.command("serve", cls=LocalCommand)
@click.option(
    "--socket",
    metavar="PATH",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Path of the socket. Default: $XDG_RUNTIME_DIR/ferrohsm/pkcs11.sock.",
)
@access_options
@click.pass_obj
def serve(invocation: Invocation, /, socket: Path | None, **options: Any) -> None:
    """
    Serve the token of a profile on a Unix socket.

    Only programs of the same user are served. p11-kit's module finds the socket by
    P11_KIT_SERVER_ADDRESS=unix:path=PATH, or by a module file with the line remote:
    unix:path=PATH.
    """
    access = open_access(invocation, _NAME, **options)

    def handle(stream: Stream) -> None:
        serve_stream(stream, access, log=print_note)

    try:
        path = socket or default_path(_NAME)
        with (
            listen(path, log=print_note) as listener,
            stopped_by_signals(listener),
        ):
            listener.serve(handle)
    finally:
        access.close()


@pkcs11.command("stdio", cls=LocalCommand)
@access_options
@click.pass_obj
def serve_stdio(invocation: Invocation, /, **options: Any) -> None:
    """
    Serve the token of a profile to one program, on standard input and output.

    p11-kit's module starts this by a module file with the line remote: |hsm-cli pkcs11
    stdio.
    """
    access = open_access(invocation, _NAME, **options)
    try:
        with suppress(StreamEndedError):
            serve_stream(stdio(), access, log=print_note)
    finally:
        access.close()
