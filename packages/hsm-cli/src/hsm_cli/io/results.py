# SPDX-License-Identifier: MIT
"""Output of result bytes: to files, to standard output, or as JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
import msgspec

from hsm_cli.io.files import encode_base64, write_file
from hsm_cli.io.output import Output
from hsm_core.model import Record


def deliver(
    output: Output,
    record: object,
    data: bytes,
    out: str | None,
    *,
    private: bool,
    text: str | None = None,
) -> None:
    """
    Write the result of a command.

    Args:
        output: Standard output.

        record: The whole result, for JSON output.

        data: The bytes of the result.

        out: File for *data*, ``-`` for standard output, or None.

        private: Whether *data* is secret: its file gets mode 0600, and it is not
            printed as well.

        text: Plain output; None means *data* as base64.
    """
    if out == "-":
        output.data(data)
        return
    if out is not None:
        write_file(out, data, private=private)
        if output.json and not private:
            output.record(record, "")
        return
    output.record(record, encode_base64(data) if text is None else text)


def check_destination(output: Output, out: str | None) -> None:
    """
    Refuse to print a secret key on a terminal unless requested.

    Call it before the operation.

    Raises:
        click.UsageError: *out* is None, and standard output is a terminal.
    """
    if out is None and output.is_terminal and not output.json:
        raise click.UsageError(
            "Secret keys are not printed on a terminal by default. Pass --out FILE, or "
            "--out - to print base64."
        )


def deliver_key(output: Output, record: object, key: bytes, out: str | None) -> None:
    """
    Write key material; see `deliver`.

    Without a file, a pipe gets raw bytes and a terminal gets base64.
    """
    if output.json and out is None:
        output.record(record, "")
    elif output.is_terminal and out in {None, "-"}:
        output.line(encode_base64(key))
    else:
        deliver(output, record, key, out or "-", private=True)


def pair_options(what: str) -> Callable[[Callable[..., Any]], Any]:
    """
    Add *out* and *ciphertext_out*, for a key and its wrapped form.

    Args:
        what: Name of the key.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        function = click.option(
            "--ciphertext-out",
            metavar="FILE",
            help="Write the raw ciphertext to a file; - is standard output.",
        )(function)
        return click.option(
            "--out",
            metavar="FILE",
            help=f"Write the raw {what} to a private file (mode 0600); - is standard "
            "output.",
        )(function)

    return decorate


def check_destinations(
    output: Output, out: str | None, ciphertext_out: str | None
) -> None:
    """
    Refuse destinations that do not separate a key from its ciphertext.

    Raises:
        click.UsageError: Neither a file nor JSON was requested, or both would go to
            standard output.
    """
    if output.json and out is None and ciphertext_out is None:
        return
    if out is None:
        raise click.UsageError(
            "No destination for the secret key. Pass --out FILE or --json."
        )
    if out == "-" and ciphertext_out in {None, "-"}:
        raise click.UsageError(
            "The key and the ciphertext can't both go to standard output. Pass a file "
            "to --out or --ciphertext-out."
        )


def deliver_pair(
    output: Output,
    record: Record,
    ciphertext: bytes,
    key: bytes,
    out: str | None,
    ciphertext_out: str | None,
) -> None:
    """Write a key and its ciphertext; see `check_destinations`."""
    if out is None:
        output.record(record, "")
        return
    deliver_key(output, record, key, out)
    fields = msgspec.structs.asdict(record)
    public = {name: value for name, value in fields.items() if value is not key}
    deliver(output, public, ciphertext, ciphertext_out, private=False)
