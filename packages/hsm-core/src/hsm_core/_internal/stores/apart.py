# SPDX-License-Identifier: MIT
"""
Store paths: checks that they are valid, distinct and unlocked.

Locks or file headers would separate two stores in one file, except if one of them takes
the file for its own temporary file. So paths are checked before anything is opened or
created.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from hsm_core._internal.stores.filesystem import opening
from hsm_core._internal.stores.filesystem.audit_files import (
    baseline_name,
    head_name,
    lock_name,
    new_name,
    reserve_name,
)
from hsm_core.errors import ConfigurationError
from hsm_core.settings import (
    ApprovalStoreKind,
    AuditStoreKind,
    KeyStoreKind,
    Settings,
)

_Naming: TypeAlias = Callable[[str], str]


def _ending(suffix: str) -> _Naming:
    return lambda name: name + suffix


_DATABASE: Final = tuple(map(_ending, ("", "-wal", "-shm", "-journal", ".lock")))
_DATABASE_TRAIL: Final = (*_DATABASE, head_name, reserve_name)
_FILE_TRAIL: Final = (
    _ending(""),
    baseline_name,
    head_name,
    lock_name,
    new_name,
    reserve_name,
)


class _Place(NamedTuple):
    """
    Path of a store.

    Attributes:
        field: The setting that says so.
        path: What it says.
        names: Which files it has there, after the name of the path; none if the path
            is a directory.
    """

    field: str
    path: Path
    names: tuple[_Naming, ...] = ()


def check_apart(settings: Settings) -> None:
    """
    Check the places that stores and trail would have.

    Raises:
        ConfigurationError: One can't be a path, two have a file in common, or audit log
            or approvals lie in the directory of the keys.
    """
    taken: dict[object, str] = {}
    keys: list[Path] = []
    for place in _places(settings):
        _check_path(place)
        if place.field in {"key_store", "key_dir"} and not place.names:
            keys = _files(place)
        elif place.field.startswith(("audit_", "approval_")):
            _check_outside(keys, place)
        for identity, path in _identities(place):
            other = taken.setdefault(identity, place.field)
            if other != place.field:
                raise ConfigurationError(
                    f"{other} and {place.field} must not share a path: both would "
                    f"use {path}.",
                    field=place.field,
                )


def _check_outside(keys: list[Path], place: _Place) -> None:
    inside = [path for path in _files(place) if set(keys) & set(path.parents)]
    if inside:
        raise ConfigurationError(
            f"{place.field} must be outside the directory of the keys, got "
            f"{inside[0]}.",
            field=place.field,
        )


def check_unlocked(settings: Settings) -> None:
    """
    Check that no process has a store or trail open; nothing is made, or stays locked.

    It saves a second server its self-tests. What counts is the lock that opening takes.

    Raises:
        StoreLockedError: One has.
    """
    for place in _places(settings):
        name = lock_name(place.path.name)
        is_file = bool(place.names)
        path = place.path.with_name(name) if is_file else place.path / "lock"
        opening.check_unlocked(path)


def tighten_folders(settings: Settings) -> None:
    """
    Set mode 0700 on empty folders of ours in which stores and trails are to lie.

    To be called before the first of them makes something there.
    """
    for place in _places(settings):
        if not place.names:
            opening.tighten_directory(place.path)
        elif place.names is _FILE_TRAIL:
            opening.tighten_directory(place.path.parent)


def _places(settings: Settings) -> Iterator[_Place]:
    scheme, colon, rest = settings.key_store.partition(":")
    if scheme == KeyStoreKind.SQLITE:
        path = Path(rest) if colon else settings.sqlite_path
        yield _Place("key_store" if colon else "sqlite_path", path, _DATABASE)
    elif scheme == KeyStoreKind.FILESYSTEM:
        path = Path(rest) if colon else settings.key_dir
        yield _Place("key_store" if colon else "key_dir", path)
    if settings.audit_store == AuditStoreKind.SQLITE:
        yield _Place("audit_sqlite_path", settings.audit_sqlite_path, _DATABASE_TRAIL)
    elif settings.audit_log is not None:
        yield _Place("audit_log", settings.audit_log, _FILE_TRAIL)
    if settings.approval_store == ApprovalStoreKind.SQLITE:
        yield _Place("approval_sqlite_path", settings.approval_sqlite_path, _DATABASE)
    elif settings.approval_store == ApprovalStoreKind.FILE:
        yield _Place("approval_dir", settings.approval_dir)
    if settings.retention_ledger is not None:
        yield _Place("retention_ledger", settings.retention_ledger, _FILE_TRAIL)
    if settings.retention_config is not None:
        yield _Place("retention_config", settings.retention_config, (_ending(""),))
    if settings.backup_dir is not None:
        yield _Place("backup_dir", settings.backup_dir)


def _check_path(place: _Place) -> None:
    is_named = place.path.name not in {"", ".."} or not place.names
    if "\0" in str(place.path) or not is_named:
        kind = "file" if place.names else "directory"
        raise ConfigurationError(
            f"{place.field} must be the path of a {kind}.", field=place.field
        )


def _identities(place: _Place) -> Iterator[tuple[object, Path]]:
    """Give what tells its files apart from all others, whatever path leads there."""
    for path in _files(place):
        yield path, path
        try:
            found = os.stat(path)
        except OSError:
            continue
        yield (found.st_dev, found.st_ino), path


def _files(place: _Place) -> list[Path]:
    if not place.names:
        return [Path(os.path.realpath(place.path))]
    folder = Path(os.path.realpath(place.path.parent))
    return [folder / naming(place.path.name) for naming in place.names]
