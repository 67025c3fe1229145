# SPDX-License-Identifier: MIT
"""Where keys, trail and approvals are kept, and for how long."""

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
"""Flags that say where a kind of key store lies."""


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
            f"--key-store {scheme}:… says where keys are kept, so that --{flag} "
            f"({environment_name(flag)}) must not."
        )


def _keys() -> list[click.Parameter]:
    return [
        option(
            "key-store",
            "Where keys are kept: 'filesystem', 'sqlite', 'memory' (lost at the end), "
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
            "Recover at start, as 'hsm-cli store recover' does, if the key store is "
            "not the one that the audit trail knows.",
            is_flag=True,
            show_default=False,
        ),
        option(
            "backup-dir",
            "Directory in which 'hsm-cli store back-up' makes copies of the SQLite "
            "databases. Without it there are none.",
            type=_PATH,
            metavar="DIR",
        ),
        option(
            "scrub-interval-secs",
            "How often every key is compared with the trail in the background, in "
            "seconds.",
            default=86400,
            type=_INTERVAL,
        ),
    ]


def _trail() -> list[click.Parameter]:
    return [
        option(
            "audit-store",
            "How the audit trail is kept: 'file' or 'sqlite'.",
            default="file",
            type=click.Choice(["file", "sqlite"]),
            metavar="KIND",
        ),
        option(
            "audit-log",
            "Live file of the audit trail. With the memory store, and without this, "
            "the trail is in memory too.  [default: audit.log beside the keys]",
            type=_PATH,
            metavar="FILE",
        ),
        option(
            "audit-sqlite-path",
            "File of the SQLite audit trail.  [default: audit.sqlite beside the keys]",
            type=_PATH,
            metavar="FILE",
        ),
        option(
            "audit-sync",
            "When the answer to a use goes out: after the sync of its record "
            "('strict'), or up to 20 ms before it ('bounded').",
            default="strict",
            type=click.Choice(["strict", "bounded"]),
            metavar="MODE",
        ),
        option(
            "audit-timeout-secs",
            "How long an answer waits for the audit trail before it fails, in seconds.",
            default=1.5,
            type=click.FloatRange(0, 300, min_open=True),
        ),
        option(
            "audit-reserve-bytes",
            "Disk space kept back for records of recovery and administration.",
            default=1024 * 1024,
            type=click.IntRange(0, 2**40),
        ),
        *_trail_age(),
    ]


def _trail_age() -> list[click.Parameter]:
    return [
        option(
            "audit-retention-days",
            "Age at which records of the audit trail are removed; 0 keeps them all.  "
            "[default: 365 with --audit-store sqlite, else 0]",
            type=_DAYS,
        ),
        option(
            "audit-retention-interval-secs",
            "How often they are, in seconds.",
            default=86400,
            type=_INTERVAL,
        ),
    ]


def _approvals() -> list[click.Parameter]:
    return [
        option(
            "approval-store",
            "Where approvals are kept: 'file', 'sqlite', 'memory' (lost at the end), "
            "or SCHEME:REST of an installed store.  "
            "[default: file; memory with the memory key store]",
            callback=_check_store,
            metavar="KIND|URI",
        ),
        option(
            "approval-dir",
            "Directory of the file store of approvals.  "
            "[default: approvals beside the keys]",
            type=_PATH,
            metavar="DIR",
        ),
        option(
            "approval-sqlite-path",
            "File of the SQLite store of approvals.  "
            "[default: approvals.sqlite beside the keys]",
            type=_PATH,
            metavar="FILE",
        ),
        option(
            "approval-retention-days",
            "Age at which approvals that came to an end are removed; 0 keeps them "
            "all.  [default: 90 with --approval-store sqlite, else 0]",
            type=_DAYS,
        ),
        option(
            "approval-retention-interval-secs",
            "How often they are, in seconds.",
            default=86400,
            type=_INTERVAL,
        ),
    ]


def _retention() -> list[click.Parameter]:
    return [
        option(
            "retention-config",
            "File of the retention policy (YAML or JSON): for how long old versions of "
            "keys are kept. It is read again when it changes. Without it nothing is "
            "purged.",
            type=_PATH,
            metavar="FILE",
        ),
        option(
            "retention-ledger",
            "File of the retention ledger, in which every purge is attested.  "
            "[default: with --retention-config, retention-ledger.log beside the trail]",
            type=_PATH,
            metavar="FILE",
        ),
        option(
            "retention-interval-secs",
            "How often it is looked for what may be purged, in seconds.",
            default=3600,
            type=click.IntRange(60, 30 * 24 * 3600),
        ),
        option(
            "retention-grace-secs",
            "How long a purge waits after it was approved, in seconds.",
            default=86400,
            type=click.IntRange(0, 300 * 24 * 3600),
        ),
        option(
            "retention-max-purges",
            "More purges than this at once need an approval of their own.",
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
