# SPDX-License-Identifier: MIT
"""Results of commands: delivery of bytes, and records as pairs or table rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from hsm_cli.io.files import encode_base64, write_file
from hsm_cli.io.output import Output
from hsm_core.model import (
    AuditEntry,
    KeyInfo,
    Record,
    RotationRule,
    UseInfo,
    VersionInfo,
)


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


def deliver_public(
    output: Output, data: bytes, out: str | None, record: object = None
) -> None:
    """
    Write public data, such as PEM, to a file, or to standard output.

    Args:
        output: Standard output.

        data: The data.

        out: File for it; ``-`` and None are standard output.

        record: Record that replaces it in JSON output, or None.
    """
    if out is not None and out != "-":
        write_file(out, data, private=False)
    elif record is not None and output.json:
        output.record(record, "")
    else:
        output.data(data)


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
            "-o",
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


KEY_HEADER = (
    "ID",
    "Name",
    "Algorithm",
    "State",
    "Usage",
    "Version",
    "Integrity",
    "Created",
    "Tags",
)
VERSION_HEADER = (
    "Version",
    "State",
    "Integrity",
    "Created",
    "Changed",
    "From",
    "Uses",
    "Bytes",
    "Last used",
    "Activated",
    "Retired",
    "Destroyed at",
    "Compromised",
    "Reason",
)
EVENT_HEADER = ("Seq", "Time", "Kind", "Phase", "Code", "Principal", "Key", "Version")


def instant(when: datetime | None) -> str:
    """Return a time in UTC to the second (RFC 3339), empty if it is None."""
    if when is None:
        return ""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def words(items: Iterable[str]) -> str:
    """Return words separated by commas."""
    return ",".join(items)


def key_pairs(key: KeyInfo) -> list[tuple[str, str]]:
    """Return the metadata of a key as names and values."""
    return [
        ("id", key.key_id),
        ("name", key.name),
        ("algorithm", key.algorithm or "unknown"),
        ("state", key.state or "unknown"),
        ("version", str(key.version)),
        ("usages", words(key.usages)),
        ("integrity", key.integrity),
        ("owner", key.owner),
        ("description", key.description),
        ("tags", words(key.tags)),
        ("created", instant(key.created_at)),
        ("updated", instant(key.updated_at)),
        ("generation", str(key.generation)),
        ("origin", key.origin),
        ("exportable", "yes" if key.exportable else "no"),
        ("draft", key.draft),
        ("rotation", _rotation(key.rotation)),
        ("destroyed at", instant(key.destroy_at)),
        *_use_pairs(key.use),
    ]


def _rotation(rule: RotationRule | None) -> str:
    if rule is None:
        return ""
    limits = {"days": rule.max_age_days, "uses": rule.max_uses}
    return "every " + " or ".join(f"{n} {unit}" for unit, n in limits.items() if n)


def _use_pairs(use: UseInfo | None) -> list[tuple[str, str]]:
    if use is None:
        return []
    return [
        ("uses", uses(use)),
        ("bytes", str(use.bytes)),
        ("last used", instant(use.last_used_at) or "never"),
    ]


def uses(use: UseInfo) -> str:
    """Return the number of uses of a key material, and its limit."""
    if not use.limit:
        return str(use.uses)
    return f"{use.uses} of {use.limit} ({100 * use.uses // use.limit} %)"


def key_row(key: KeyInfo) -> tuple[str, ...]:
    """Return a key as cells below `KEY_HEADER`."""
    return (
        key.key_id,
        key.name,
        key.algorithm or "unknown",
        key.state or "unknown",
        words(key.usages),
        str(key.version),
        key.integrity,
        instant(key.created_at),
        words(key.tags),
    )


def version_row(version: VersionInfo) -> tuple[str, ...]:
    """Return a version as cells below `VERSION_HEADER`."""
    return (
        str(version.version),
        version.state,
        version.integrity,
        instant(version.created_at),
        instant(version.state_changed_at),
        str(version.rolled_back_from or ""),
        uses(version.use) if version.use is not None else "",
        str(version.use.bytes) if version.use is not None else "",
        instant(version.use.last_used_at) if version.use is not None else "",
        instant(version.activated_at),
        instant(version.retired_at),
        instant(version.purge_at),
        instant(version.compromised_at),
        version.reason,
    )


def event_row(entry: AuditEntry) -> tuple[str, ...]:
    """Return an audit record as cells below `EVENT_HEADER`."""
    event = entry.event
    when = datetime.fromtimestamp(event.time / 1_000_000, UTC)
    return (
        str(event.seq),
        instant(when),
        event.kind,
        event.phase,
        event.code,
        event.caller.principal if event.caller is not None else "",
        event.key_id,
        str(event.version or ""),
    )
