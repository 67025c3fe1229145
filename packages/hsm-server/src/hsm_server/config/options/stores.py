# SPDX-License-Identifier: MIT
"""Flags of stores, audit log and retention."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import click
from click.core import ParameterSource

from hsm_core.settings import KeyStoreKind
from hsm_server.config.options.names import environment_name
from hsm_server.config.options.option import option

_PATH: Final = click.Path(path_type=Path)
_URI: Final = re.compile(r"[a-z][a-z0-9+.-]*:.+", re.DOTALL)
_DAYS: Final = click.IntRange(0, 36500)
_INTERVAL: Final = click.IntRange(60, 10 * 365 * 24 * 3600)
_PLACES: Final = {
    KeyStoreKind.FILESYSTEM.value: "key-dir",
    KeyStoreKind.SQLITE.value: "sqlite-path",
}
"""Flags of the location of a kind of key store."""


def stores() -> list[click.Parameter]:
    """Return the options of all stores."""
    return [*_keys(), *_trail(), *_approvals(), *_retention()]


def check_places(context: click.Context, key_store: str) -> None:
    """
    Refuse a key store whose place is said twice.

    Raises:
        click.UsageError: It is in the URI and in a flag or variable of its own.
    """
    scheme, colon, _ = key_store.partition(":")
    flag = _PLACES.get(scheme)
    if not colon or flag is None:
        return
    source = context.get_parameter_source(flag.replace("-", "_"))
    if source in {ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT}:
        raise click.UsageError(
            f"--{flag} ({environment_name(flag)}) conflicts with --key-store "
            f"{scheme}:…, which sets the location of keys."
        )


def _keys() -> list[click.Parameter]:
    return [
        option(
            "key-store",
            "Key store: 'filesystem', 'sqlite', 'memory' (lost on exit), "
            "s3://BUCKET/PREFIX, or SCHEME:REST of an installed store.",
            default=KeyStoreKind.FILESYSTEM.value,
            callback=_check_store,
            metavar="KIND|URI",
        ),
        option(
            "key-dir",
            "Directory of the filesystem store.",
            default=Path("data/keys"),
            type=_PATH,
            metavar="DIR",
        ),
        option(
            "sqlite-path",
            "File of the SQLite key store.",
            default=Path("data/keys.sqlite"),
            type=_PATH,
            metavar="FILE",
        ),
        option(
            "accept-changed-store",
            "Run a recovery at startup, like 'hsm-cli store recover', if the "
            "key store does not match the audit log.",
            is_flag=True,
            show_default=False,
        ),
        option(
            "backup-dir",
            "Directory for backups of the SQLite databases by 'hsm-cli store "
            "back-up'. Default: backups disabled.",
            type=_PATH,
            metavar="DIR",
        ),
        option(
            "scrub-interval-secs",
            "Interval between background checks of all keys against the audit "
            "log, in seconds.",
            default=86400,
            type=_INTERVAL,
        ),
    ]


def _trail() -> list[click.Parameter]:
    return [
        option(
            "audit-store",
            "Audit store: 'file' or 'sqlite'.",
            default="file",
            type=click.Choice(["file", "sqlite"]),
            metavar="KIND",
        ),
        option(
            "audit-log",
            "File of the audit log. With the memory key store the audit log is "
            "in memory unless this is set.  [default: audit.log beside the "
            "keys]",
            type=_PATH,
            metavar="FILE",
        ),
        option(
            "audit-sqlite-path",
            "File of the SQLite audit store.  [default: audit.sqlite beside the keys]",
            type=_PATH,
            metavar="FILE",
        ),
        option(
            "audit-sync",
            "When to answer a request: 'strict' after its audit record is "
            "synced to disk, 'bounded' up to 20 ms earlier.",
            default="strict",
            type=click.Choice(["strict", "bounded"]),
            metavar="MODE",
        ),
        option(
            "audit-timeout-secs",
            "Maximum time a request waits for the audit log before it fails, in "
            "seconds.",
            default=1.5,
            type=click.FloatRange(0, 300, min_open=True),
        ),
        option(
            "audit-reserve-bytes",
            "Disk space reserved for audit records of recovery and "
            "administration, in bytes.",
            default=1024 * 1024,
            type=click.IntRange(0, 2**40),
        ),
        *_trail_age(),
    ]


def _trail_age() -> list[click.Parameter]:
    return [
        option(
            "audit-retention-days",
            "Age at which audit records are removed, in days; 0 keeps all "
            "records.  [default: 365 with --audit-store sqlite, else 0]",
            type=_DAYS,
        ),
        option(
            "audit-retention-interval-secs",
            "Interval between removals of old audit records, in seconds.",
            default=86400,
            type=_INTERVAL,
        ),
    ]


def _approvals() -> list[click.Parameter]:
    return [
        option(
            "approval-store",
            "Approval store: 'file', 'sqlite', 'memory' (lost on exit), or "
            "SCHEME:REST of an installed store.  [default: file; memory with "
            "the memory key store]",
            callback=_check_store,
            metavar="KIND|URI",
        ),
        option(
            "approval-dir",
            "Directory of the file approval store.  [default: approvals beside "
            "the keys]",
            type=_PATH,
            metavar="DIR",
        ),
        option(
            "approval-sqlite-path",
            "File of the SQLite approval store.  [default: approvals.sqlite "
            "beside the keys]",
            type=_PATH,
            metavar="FILE",
        ),
        option(
            "approval-retention-days",
            "Age at which closed approval requests are removed, in days; 0 "
            "keeps all requests.  [default: 90 with --approval-store sqlite, "
            "else 0]",
            type=_DAYS,
        ),
        option(
            "approval-retention-interval-secs",
            "Interval between removals of closed approval requests, in seconds.",
            default=86400,
            type=_INTERVAL,
        ),
    ]


def _retention() -> list[click.Parameter]:
    return [
        option(
            "retention-config",
            "Retention policy file, YAML or JSON: retention windows of old key "
            "versions. Reloaded when it changes. Default: nothing is purged.",
            type=_PATH,
            metavar="FILE",
        ),
        option(
            "retention-ledger",
            "File of the retention ledger, which records every purge.  "
            "[default: with --retention-config, retention-ledger.log beside the "
            "trail]",
            type=_PATH,
            metavar="FILE",
        ),
        option(
            "retention-interval-secs",
            "Interval between checks for key versions due for purge, in seconds.",
            default=3600,
            type=click.IntRange(60, 30 * 24 * 3600),
        ),
        option(
            "retention-grace-secs",
            "Delay between the approval of a purge and its execution, in seconds.",
            default=86400,
            type=click.IntRange(0, 300 * 24 * 3600),
        ),
        option(
            "retention-max-purges",
            "Maximum number of purges at once without a separate approval.",
            default=100,
            type=click.IntRange(1, 100_000),
        ),
    ]


def _check_store(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> str | None:
    """Check the form alone; what a scheme stands for is known when it is opened."""
    first = "filesystem" if parameter.name == "key_store" else "file"
    known = {None, first, "sqlite", "memory"}
    if value in known or (value is not None and _URI.fullmatch(value)):
        return value
    raise click.BadParameter(f"must be '{first}', 'sqlite', 'memory' or SCHEME:REST.")
