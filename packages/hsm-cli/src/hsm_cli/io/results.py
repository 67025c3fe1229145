# SPDX-License-Identifier: MIT
"""Results of commands: delivery of bytes, and records as pairs or table rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from hsm_cli.io.files import encode_base64, write_file
from hsm_cli.io.output import Output
from hsm_cli.io.tables import Column, short_id
from hsm_core.model import Integrity, KeyInfo, Record, RotationRule, UseInfo

if TYPE_CHECKING:
    from hsm_core.model import AuditEntry


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
        if output.is_record and not private:
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
    elif record is not None and output.is_record:
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
    if out is None and output.is_terminal and not output.is_record:
        raise click.UsageError(
            "Secret keys are not printed on a terminal by default. Pass --out FILE, or "
            "--out - to print base64."
        )


def deliver_key(output: Output, record: object, key: bytes, out: str | None) -> None:
    """
    Write key material; see `deliver`.

    Without a file, a pipe gets raw bytes and a terminal gets base64.
    """
    if output.is_record and out is None:
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
            standard output or to one file.
    """
    if output.is_record and out is None and ciphertext_out is None:
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
    if ciphertext_out and Path(out).resolve() == Path(ciphertext_out).resolve():
        raise click.UsageError(
            "The key and the ciphertext can't both go to one file. Pass different "
            "files to --out and --ciphertext-out."
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


def instant(when: datetime | None) -> str:
    """Return a time in UTC to the second (RFC 3339), empty if it is None."""
    if when is None:
        return ""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def counted(number: int, what: str) -> str:
    """Return a number with its unit, in the plural unless it is 1."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


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
        ("certificates", str(key.certificates) if key.certificates else ""),
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


KEY_COLUMNS: Final = (
    Column("Name", lambda key: key.name),
    Column("ID", lambda key: short_id(key.key_id), lambda key: key.key_id),
    Column("Algorithm", lambda key: key.algorithm or "unknown"),
    Column("State", lambda key: _state(key), lambda key: key.state or "unknown"),
    Column("Version", lambda key: str(key.version)),
    Column("Usage", None, lambda key: words(key.usages)),
    Column("Integrity", None, lambda key: key.integrity),
    Column("Owner", None, lambda key: key.owner),
    Column("Created", None, lambda key: instant(key.created_at)),
    Column("Tags", lambda key: words(key.tags)),
)
"""Columns of a table of `KeyInfo`."""


def _state(key: KeyInfo) -> str:
    """Return the state of a key, or why it is not usable."""
    state = key.state or "unknown"
    return state if key.integrity is Integrity.OK else key.integrity.value.upper()


VERSION_COLUMNS: Final = (
    Column("Version", lambda found: str(found.version)),
    Column("State", lambda found: found.state),
    Column("Integrity", None, lambda found: found.integrity),
    Column("Created", lambda found: instant(found.created_at)),
    Column("Changed", None, lambda found: instant(found.state_changed_at)),
    Column("From", lambda found: str(found.rolled_back_from or "")),
    Column("Uses", lambda found: _count(found.use), lambda found: _uses(found.use)),
    Column("Bytes", None, lambda found: str(found.use.bytes) if found.use else ""),
    Column("Last used", None, lambda found: _last_used(found.use)),
    Column("Activated", None, lambda found: instant(found.activated_at)),
    Column("Retired", None, lambda found: instant(found.retired_at)),
    Column("Destroyed at", None, lambda found: instant(found.purge_at)),
    Column("Compromised", None, lambda found: instant(found.compromised_at)),
    Column("Reason", lambda found: found.reason),
)
"""Columns of a table of `VersionInfo`."""


def _count(use: UseInfo | None) -> str:
    return "" if use is None else str(use.uses)


def _uses(use: UseInfo | None) -> str:
    return "" if use is None else uses(use)


def _last_used(use: UseInfo | None) -> str:
    return "" if use is None else instant(use.last_used_at)


EVENT_COLUMNS: Final = (
    Column("Seq", lambda entry: str(entry.event.seq)),
    Column("Time", lambda entry: _time(entry)),
    Column("Kind", lambda entry: entry.event.kind),
    Column("Phase", None, lambda entry: entry.event.phase),
    Column("Result", lambda entry: _result(entry), lambda entry: entry.event.code),
    Column("Principal", lambda entry: _principal(entry)),
    Column("Interface", None, lambda entry: _interface(entry)),
    Column("Key", lambda entry: short_id(entry.event.key_id), lambda e: e.event.key_id),
    Column("Version", None, lambda entry: str(entry.event.version or "")),
)
"""Columns of a table of `AuditEntry`."""

NODE_COLUMNS: Final = (Column("Node", lambda entry: entry.node),)
"""Columns before these in a table of several logs."""


def _time(entry: AuditEntry) -> str:
    return instant(datetime.fromtimestamp(entry.event.time / 1_000_000, UTC))


def _principal(entry: AuditEntry) -> str:
    caller = entry.event.caller
    return caller.principal if caller is not None else ""


def _interface(entry: AuditEntry) -> str:
    """Return the interface, and in parentheses what the program claims."""
    caller = entry.event.caller
    if caller is None:
        return ""
    claimed = caller.interface_claimed
    return f"{caller.interface} ({claimed})" if claimed else caller.interface


def _result(entry: AuditEntry) -> str:
    """Return the code of a record, or that it is an intent, whose code says nothing."""
    from hsm_core.model import Phase

    event = entry.event
    return "intent" if event.phase is Phase.INTENT else event.code
