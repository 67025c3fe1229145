# SPDX-License-Identifier: MIT
"""Commands of the PKCS#11 interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import click

from hsm_cli.connection import CREDENTIALS, read_connection
from hsm_cli.exit_codes import ExitCode
from hsm_cli.interfaces.access import Access, LocalProgram
from hsm_cli.interfaces.hardening import forbid_dumps
from hsm_cli.interfaces.options import access_options, open_access
from hsm_cli.interfaces.pkcs11.doctor import Check, checks
from hsm_cli.interfaces.pkcs11.server import serve as serve_stream
from hsm_cli.interfaces.pkcs11.uris import ObjectType, pem_of, uri_of
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
from hsm_cli.io.results import deliver_public
from hsm_cli.io.tables import Column
from hsm_cli.options import Group, ListOption, choice, was_given
from hsm_cli.parameters import LocalCommand, file_option, key_operand
from hsm_cli.short_ids import is_short, whole_key
from hsm_core.model import Record
from hsm_core.operations.keys import DescribeKey

_NAME = "pkcs11"


class KeyURI(Record, frozen=True, kw_only=True):
    """URI in the JSON output of ``pkcs11 uri``."""

    uri: str


class TokenSocket(Record, frozen=True, kw_only=True):
    """Socket of the token in the JSON output of ``pkcs11 serve``."""

    socket: str


class Diagnosis(Record, frozen=True, kw_only=True):
    """Checks in the JSON output of ``pkcs11 doctor``."""

    checks: tuple[Check, ...]


@click.group("pkcs11", cls=Group, no_args_is_help=False)
def pkcs11() -> None:
    """Serve keys to programs that use PKCS#11, through p11-kit."""


_profiles_option: Final = click.option(
    "--profile",
    "profiles",
    cls=ListOption,
    metavar="NAME,...",
    help="Connection profiles, with a slot for each; repeatable. Default: the current "
    "one.",
)


@contextmanager
def _accesses(
    ctx: click.Context, profiles: tuple[str, ...], options: dict[str, Any]
) -> Iterator[list[Access]]:
    """Yield the HSM of each slot, and close all at the end."""
    if profiles and options["embedded"] is not None:
        raise click.UsageError("--profile and --embedded are mutually exclusive.")
    invocation, root = ctx.find_object(Invocation), ctx.find_root()
    assert invocation is not None  # noqa: S101 (for the type checker)
    names = dict.fromkeys(profiles)
    if len(names) > 1 and any(was_given(root, one) for one in CREDENTIALS):
        raise click.UsageError(
            "The token or client certificate would be sent to the servers of all "
            "profiles. Omit it, or pass a single --profile."
        )
    invocations = {
        name: Invocation(
            read_connection(root, root.params | {"profile": name}), invocation.output
        )
        for name in names
    }
    with ExitStack() as stack:
        accesses = []
        for name, each in (invocations or {"": invocation}).items():
            notify = _notes_of(name) if len(names) > 1 else print_note
            accesses.append(open_access(each, _NAME, **options, notify=notify))
            stack.callback(accesses[-1].close)
        yield accesses


def _notes_of(profile: str) -> Callable[[str], None]:
    """Return what prints a line about one of several profiles."""
    return lambda text: print_note(f"{profile}: {text}")


@pkcs11.command("serve", cls=LocalCommand)
@click.option(
    "--socket",
    metavar="PATH",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Path of the socket. Default: $XDG_RUNTIME_DIR/ferrohsm/pkcs11.sock.",
)
@_profiles_option
@access_options
@click.pass_context
def serve(
    ctx: click.Context,
    /,
    socket: Path | None,
    profiles: tuple[str, ...],
    **options: Any,
) -> None:
    """
    Serve the tokens of profiles on a Unix socket, until Ctrl-C.

    Only programs of the same user are served. p11-kit's module finds the socket by
    P11_KIT_SERVER_ADDRESS=unix:path=PATH, or by a module file with the line remote:
    unix:path=PATH.
    """
    with _accesses(ctx, profiles, options) as accesses:
        forbid_dumps()

        def handle(stream: Stream) -> None:
            serve_stream(stream, *accesses)

        path = socket or default_path(_NAME)
        with (
            listen(path, log=print_note) as listener,
            stopped_by_signals(listener),
        ):
            if listener.path is not None:
                found = TokenSocket(socket=str(listener.path))
                line = f"P11_KIT_SERVER_ADDRESS=unix:path={found.socket}"
                ctx.ensure_object(Invocation).output.record(found, line)
            listener.serve(handle)


@pkcs11.command("stdio", cls=LocalCommand)
@_profiles_option
@access_options
@click.pass_context
def serve_stdio(
    ctx: click.Context, /, profiles: tuple[str, ...], **options: Any
) -> None:
    """
    Serve the tokens of profiles to one program, on standard input and output.

    p11-kit's module starts this by a module file with the line remote: |hsm-cli pkcs11
    stdio.
    """
    with _accesses(ctx, profiles, options) as accesses, suppress(StreamEndedError):
        forbid_dumps()
        serve_stream(stdio(), *accesses)


@pkcs11.command("uri", cls=LocalCommand)
@key_operand
@click.option(
    "--type",
    "kind",
    type=choice(ObjectType),
    metavar="TYPE",
    help="Object: private, public, cert or secret-key. Default: the key itself.",
)
@access_options
@click.pass_obj
def uri(
    invocation: Invocation,
    /,
    key_id: str,
    kind: ObjectType | None,
    **options: Any,
) -> None:
    """
    Print the PKCS#11 URI of a key (RFC 7512), which names its current version.

    Pass --embedded as in pkcs11 serve: the URI has the label of that token.
    """
    text = _uri(invocation, key_id, kind, options)
    invocation.output.record(KeyURI(uri=text), text)


@pkcs11.command("pem-uri", cls=LocalCommand)
@key_operand
@file_option("Write the PEM to a file.")
@access_options
@click.pass_obj
def pem_uri(
    invocation: Invocation, /, key_id: str, out: str | None, **options: Any
) -> None:
    """
    Print a PEM file that refers to a private key in the HSM.

    It holds the key's PKCS#11 URI, and no secret. OpenSSL programs can use this file in
    place of a key file if OpenSSL's configuration activates its PKCS#11 provider.
    """
    text = pem_of(_uri(invocation, key_id, None, options))
    deliver_public(invocation.output, text.encode(), out)


def _discard(note: str) -> None:
    """Print no note: the command itself reports its errors."""


def _uri(
    invocation: Invocation,
    key_id: str,
    kind: ObjectType | None,
    options: dict[str, Any],
) -> str:
    access = open_access(invocation, _NAME, notify=_discard, **options)
    try:
        hsm = access.hsm(LocalProgram())
        whole = whole_key(hsm, key_id) if is_short(key_id) else key_id
        info = hsm.execute(DescribeKey(key_id=whole))
        return uri_of(info, access.label, kind)
    finally:
        access.close()


@pkcs11.command("doctor", cls=LocalCommand)
@access_options
@click.pass_obj
def doctor(invocation: Invocation, /, **options: Any) -> None:
    """
    Check the path from programs to the token: p11-kit, credential, socket.

    Exits with 1 if programs can't use the token.
    """
    access = open_access(invocation, _NAME, notify=_discard, **options)
    try:
        found = Diagnosis(checks=tuple(checks(access)))
    finally:
        access.close()
    columns = (
        Column("Check", lambda check: check.name),
        Column("State", _state),
        Column("Found", lambda check: check.found),
        Column("To do", lambda check: check.remedy),
    )
    invocation.output.table(found, found.checks, columns)
    if any(check.is_needed and not check.is_well for check in found.checks):
        raise click.exceptions.Exit(ExitCode.OTHER)


def _state(check: Check) -> str:
    if check.is_well:
        return "ok"
    return "failed" if check.is_needed else "absent, optional"
