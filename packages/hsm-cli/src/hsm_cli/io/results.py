# SPDX-License-Identifier: MIT
"""Where the bytes of a result go: to a file, or to standard output in some form."""

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
    Give the result of a command to whom it is for.

    Args:
        output: Standard output.

        record: The whole result, printed where JSON is asked for.

        data: The bytes that it is about.

        out: File that gets *data*, ``-`` for standard output, or None.

        private: Whether *data* is nobody else's business: then its file has mode 0600,
            and it is not printed as well.

        text: What is printed for people; None means base64 of *data*.
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


def check_place(output: Output, out: str | None) -> None:
    """
    Refuse to show a key on a terminal that nobody asked to show it on.

    To be called before anything is executed.

    Raises:
        click.UsageError: *out* is None, and standard output is a terminal.
    """
    if out is None and output.is_terminal and not output.json:
        raise click.UsageError(
            "A secret key is not shown on a terminal by itself; give --out FILE, or "
            "--out - to see it as base64."
        )


def deliver_key(output: Output, record: object, key: bytes, out: str | None) -> None:
    """
    Give key material to whom it is for; see `deliver`.

    Without a file a pipe gets it bare; a terminal shows base64.
    """
    if output.json and out is None:
        output.record(record, "")
    elif output.is_terminal and out in {None, "-"}:
        output.line(encode_base64(key))
    else:
        deliver(output, record, key, out or "-", private=True)


def pair_options(what: str) -> Callable[[Callable[..., Any]], Any]:
    """
    Give a command *out* and *ciphertext_out*, for a key and the form that wraps it.

    Args:
        what: Name of the key.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        function = click.option(
            "--ciphertext-out",
            metavar="FILE",
            help="Write the bare ciphertext to a file; - is standard output.",
        )(function)
        return click.option(
            "--out",
            metavar="FILE",
            help=f"Write the bare {what} to a file of its owner's; - is standard "
            "output.",
        )(function)

    return decorate


def check_places(output: Output, out: str | None, ciphertext_out: str | None) -> None:
    """
    Refuse places that a key and its ciphertext can't both go to.

    Raises:
        click.UsageError: Neither a file nor JSON was asked for, or both are to go to
            standard output.
    """
    if output.json and out is None and ciphertext_out is None:
        return
    if out is None:
        raise click.UsageError("Give --out FILE for the secret key, or --json.")
    if out == "-" and ciphertext_out in {None, "-"}:
        raise click.UsageError(
            "Both can't go to standard output; give --out or --ciphertext-out a file."
        )


def deliver_pair(
    output: Output,
    record: Record,
    ciphertext: bytes,
    key: bytes,
    out: str | None,
    ciphertext_out: str | None,
) -> None:
    """Give a key and its ciphertext to whom they are for; see `check_places`."""
    if out is None:
        output.record(record, "")
        return
    deliver_key(output, record, key, out)
    fields = msgspec.structs.asdict(record)
    public = {name: value for name, value in fields.items() if value is not key}
    deliver(output, public, ciphertext, ciphertext_out, private=False)
