# SPDX-License-Identifier: MIT
"""Root and audit keys of an HSM inside a program: files, bytes, derivation."""

from __future__ import annotations

import base64
import os
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hsm_core._internal.stores.filesystem.files import temporary_in, write_new
from hsm_core._internal.stores.filesystem.opening import (
    make_private_directory,
    sync_directory,
)
from hsm_core.errors import (
    ConfigurationError,
    InputSizeError,
    InvalidInputError,
    StoreUnavailableError,
)
from hsm_core.protocols import MasterKeySource
from hsm_core.secret_input import read_secret

StrPath: TypeAlias = str | os.PathLike[str]

_KEY_BYTES: Final = 32
_AUDIT_KEY: Final = b"ferrohsm embedded audit key"


def key_of(field: str, key: bytes | StrPath) -> bytes:
    """
    Return a key of 32 bytes, given as it is or as the path of its file.

    Raises:
        InputSizeError: It has another length.
        ConfigurationError: The file can't be read, is open to others, or holds no key.
    """
    if isinstance(key, bytes):
        if len(key) != _KEY_BYTES:
            raise InputSizeError(
                field, actual=len(key), minimum=_KEY_BYTES, maximum=_KEY_BYTES
            )
        return key
    path = _path_of(field, key)
    if not path.exists():
        raise ConfigurationError(f"{field}: there is no file {path}.", field=field)
    return read_secret(f"@{path}", field=field, minimum=_KEY_BYTES, exact=_KEY_BYTES)


def audit_key_of(root: bytes | MasterKeySource) -> bytes:
    """
    Derive the audit key from a root key, by HKDF-SHA-256.

    Raises:
        ConfigurationError: The root key is not known as bytes.
    """
    if not isinstance(root, bytes):
        raise ConfigurationError(
            'audit_key is missing: pass audit_key="FILE" or 32 bytes. It can only be '
            "derived from a root key in a file or in bytes.",
            field="audit_key",
        )
    hkdf = HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=_AUDIT_KEY)
    return hkdf.derive(root)


def prepare_root(
    folder: Path | None, root: bytes | StrPath | MasterKeySource, *, create: bool
) -> bytes | MasterKeySource:
    """
    Return the root key of the HSM in a folder; with *create*, make both if need be.

    Args:
        folder: Folder that may have to be made; None if there is nothing to make.

        root: Root key, or the path of its file.

        create: Whether folder and file may be made.

    Raises:
        InvalidInputError: *root* is of another type or size, or a key as text.
        ConfigurationError: There is no HSM and *create* is false, its root key is
            missing, or the file would lie in the folder.
    """
    is_there = folder is None or _holds_hsm(folder)
    if not is_there and not create:
        raise ConfigurationError(
            f"{folder} holds no HSM. Check the path, or pass create=True to make one.",
            field="path",
        )
    if isinstance(root, str | os.PathLike):
        root = _root_in_file(folder, _path_of("root", root), is_there=is_there)
    elif isinstance(root, bytes):
        root = key_of("root", root)
    elif not hasattr(root, "seal"):
        raise InvalidInputError(
            "root must be 32 bytes, the path of a file or a MasterKeySource, got "
            f"{type(root).__name__}.",
            field="root",
        )
    if folder is not None and not is_there:
        _make_folder("path", folder)
    return root


def _root_in_file(folder: Path | None, path: Path, *, is_there: bool) -> bytes:
    if folder is not None:
        _check_outside(folder, path)
        if not path.exists():
            _make_root(folder, path, is_there=is_there)
    return key_of("root", path)


def write_key(path: Path, key: bytes, *, field: str) -> None:
    """
    Write a key into a new file (0600), durably and at once, as base64.

    Raises:
        ConfigurationError: The file exists, or can't be written.
    """
    temporary = temporary_in(path.parent)
    try:
        write_new(temporary, base64.b64encode(key) + b"\n")
        os.link(temporary, path)
    except FileExistsError:
        raise ConfigurationError(
            f"{field}: {path} exists. Choose another name.", field=field
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"{field}: {path} can't be written ({error.strerror}).", field=field
        ) from None
    finally:
        with suppress(OSError):
            temporary.unlink()
    sync_directory(path.parent)


def _make_folder(field: str, folder: Path) -> None:
    try:
        make_private_directory(folder)
    except StoreUnavailableError as error:
        reason = getattr(error.__cause__, "strerror", "unknown reason")
        raise ConfigurationError(
            f"{field}: the directory {folder} can't be created ({reason}).", field=field
        ) from None


def _holds_hsm(folder: Path) -> bool:
    names = ("keys", "keys.sqlite", "audit.log")
    return any((folder / name).exists() for name in names)


def _path_of(field: str, path: StrPath) -> Path:
    text = os.fspath(path)
    if not isinstance(text, str):
        raise InvalidInputError(
            f"{field} must be a path as text, or 32 bytes.", field=field
        )
    if _is_key(text):
        raise InvalidInputError(
            f"{field} must be the path of a file, got a key as base64. Decode it to "
            "bytes, or keep it in a file (0600).",
            field=field,
        )
    return Path(text)


def _is_key(text: str) -> bool:
    """Return whether text is a key of 32 bytes rather than a path, to not repeat it."""
    try:
        return len(base64.b64decode(text, validate=True)) == _KEY_BYTES
    except ValueError:
        return False


def _check_outside(folder: Path, path: Path) -> None:
    if folder.resolve() in path.resolve().parents:
        raise ConfigurationError(
            f"root must be outside {folder}, got {path}. A backup of the directory "
            "must not contain the root key.",
            field="root",
        )


def _make_root(folder: Path, path: Path, *, is_there: bool) -> None:
    if is_there:
        raise ConfigurationError(
            f"root: there is no file {path}, but {folder} holds an HSM. Restore its "
            "root key; a new one can't open it.",
            field="root",
        )
    if not path.parent.exists():
        _make_folder("root", path.parent)
    try:
        write_key(path, os.urandom(_KEY_BYTES), field="root")
    except ConfigurationError:
        # Another process may have made it at the same time.
        if not path.exists():
            raise
