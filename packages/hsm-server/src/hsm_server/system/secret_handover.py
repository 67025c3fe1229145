# SPDX-License-Identifier: MIT
"""
Secret handover: secrets from the command line to the vault only.

The secrets are written into a sealed memory file (memfd_create(2)) before the
supervisor starts: executing the supervisor removes them from memory, arguments and
environment. At each start of the vault the kernel copies them into a pipe. For a secret
in a file only the path is stored, and the vault reads the file at each start.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from hsm_core.errors import ConfigurationError, SelfTestFailedError
from hsm_core.model import Record
from hsm_core.secret_input import read_secret
from hsm_core.settings import ApprovalStoreKind, KeyStoreKind, Settings
from hsm_server.config.settings import Secrets

MAX_SEALED_BYTES: Final = 64 * 1024 * 1024
"""Maximum size of sealed content; revocation lists can be long."""

# fcntl(2); Python names them from 3.13 on, and not in every build.
_F_ADD_SEALS: Final = 1033
_F_GET_SEALS: Final = 1034
_ALL_SEALS: Final = 0x0F  # seal, shrink, grow, write

_PROBE: Final = b"self-test"


def seal(name: str, data: bytes) -> int:
    """
    Return the descriptor of a sealed file in memory; the caller closes it.

    Args:
        name: Name in ``/proc/PID/fd``.

        data: Its content.

    Raises:
        OSError: There is no room.
        ValueError: It is longer than `MAX_SEALED_BYTES`.
    """
    if len(data) > MAX_SEALED_BYTES:
        raise ValueError(f"The content exceeds {MAX_SEALED_BYTES} bytes.")
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with memoryview(data) as rest:
            written = 0
            while written < len(data):
                written += os.write(descriptor, rest[written:])
        fcntl.fcntl(descriptor, _F_ADD_SEALS, _ALL_SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_sealed(descriptor: int) -> bool:
    """Return whether a descriptor is such a file, of a length that is handed on."""
    try:
        seals = fcntl.fcntl(descriptor, _F_GET_SEALS)
    except OSError:
        return False
    return (
        seals & _ALL_SEALS == _ALL_SEALS
        and os.fstat(descriptor).st_size <= MAX_SEALED_BYTES
    )


def read_sealed(descriptor: int) -> bytes:
    """
    Return the content, wherever others have read up to.

    Raises:
        ValueError: It is no such file.
        OSError: It can't be read.
    """
    if not is_sealed(descriptor):
        raise ValueError("Not a sealed memory file.")
    length = os.fstat(descriptor).st_size
    pieces, at = [], 0
    while at < length:
        pieces.append(os.pread(descriptor, length - at, at))
        at += len(pieces[-1])
    return b"".join(pieces)


def self_test() -> None:
    """
    Seal a file in memory, read it, and try to change it.

    Raises:
        SelfTestFailedError: It holds something else, or can be changed.
    """
    try:
        descriptor = seal("ferrohsm-self-test", _PROBE)
    except OSError as error:
        raise _failure(f"seal raised {type(error).__name__}") from error
    try:
        if not is_sealed(descriptor) or read_sealed(descriptor) != _PROBE:
            raise _failure("wrong content")
        with contextlib.suppress(OSError):
            os.pwrite(descriptor, b"changed", 0)
            raise _failure("accepted a change")
    finally:
        os.close(descriptor)


def _failure(reason: str) -> SelfTestFailedError:
    return SelfTestFailedError(
        f"The self-test of sealed memory files failed: {reason}.", reason=reason
    )


TOKEN_SECRET: Final = "auth-jwt-secret"  # noqa: S105 (it is a flag's name)
"""Flag of the secret required only without other token keys."""

SECRET_LENGTHS: Final[Mapping[str, int | None]] = {
    "master-key": 32,
    "hmac-key": 32,
    TOKEN_SECRET: None,
}
"""Length of each secret in bytes, by flag; None is any from 32 on."""

_MINIMUM: Final = 32
_NEED_NOTHING: Final = {*KeyStoreKind, *ApprovalStoreKind} - {KeyStoreKind.POSTGRESQL}
_OTHERS: Final = ("FERROHSM_", "PYTHON", "LD_", "MALLOC_", "GLIBC_", "LISTEN_")
_PIPE_BYTES: Final = 1024 * 1024


class SecretBox(Record, frozen=True, kw_only=True):
    """
    Secrets for the vault only.

    Attributes:
        values: Secrets by flag.
        files: Paths of secrets by flag, relative to the server's working directory.
        environment: Variables for stores, such as ``AWS_…``.
    """

    values: dict[str, Annotated[bytes, Meta(extra={"secret": True})]]
    files: dict[str, str]
    environment: Annotated[dict[str, str], Meta(extra={"secret": True})]

    @classmethod
    def of(cls, given: Mapping[str, str], environment: Mapping[str, str]) -> SecretBox:
        """
        Take in secrets as they were given; see `hsm_core.secret_input`.

        Who calls has made sure that those are there which are needed.

        Raises:
            ConfigurationError: One can't be read, or is too short.
        """
        values, files = {}, {}
        for flag in filter(given.__contains__, SECRET_LENGTHS):
            if given[flag].startswith("@"):
                files[flag] = given[flag][1:]
            else:
                values[flag] = _read(flag, given[flag])
        return cls(values=values, files=files, environment=dict(environment))

    def secret(self, flag: str) -> bytes:
        """
        Return a secret; one in a file is read each time.

        Raises:
            ConfigurationError: The file can't be read, or is not valid.
        """
        if flag in self.files:
            return _read(flag, f"@{self.files[flag]}")
        return self.values[flag]

    @property
    def _has_token_secret(self) -> bool:
        return TOKEN_SECRET in self.files or TOKEN_SECRET in self.values

    def secrets(self) -> Secrets:
        """
        Return all secrets of the server.

        Raises:
            ConfigurationError: See `secret`.
        """
        return Secrets(
            master_key=self.secret("master-key"),
            hmac_key=self.secret("hmac-key"),
            jwt_secret=self.secret(TOKEN_SECRET) if self._has_token_secret else None,
        )


def for_stores(settings: Settings, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a store may look for which is not all on this disk."""
    places = (settings.key_store, settings.approval_store)
    if all(place.partition(":")[0] in _NEED_NOTHING for place in places):
        return {}
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(_OTHERS)
    }


def fill_box(box: SecretBox) -> int:
    """
    Return the descriptor of a sealed file in memory that holds a box.

    Raises:
        ConfigurationError: It is too large.
    """
    data = msgspec.msgpack.encode(box)
    if len(data) > _PIPE_BYTES // 2:
        raise ConfigurationError("The environment is too large to pass to the vault.")
    return seal("ferrohsm-secrets", data)


def pour(descriptor: int) -> int:
    """
    Return the reading end of a pipe that holds what is in the box.

    The kernel copies it; none of it passes through this process.

    Raises:
        OSError: There is no room for a pipe.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        length, moved = os.fstat(descriptor).st_size, 0
        # Not more than is needed: all pipes of a user share a limit (pipe(7)).
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, length)
        while moved < length:
            moved += os.splice(descriptor, writer, length - moved, offset_src=moved)
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    return reader


def empty_box(reader: int) -> SecretBox:
    """Read a box from its pipe, and close that."""
    with os.fdopen(reader, "rb") as pipe:
        return msgspec.msgpack.decode(pipe.read(), type=SecretBox)


def _read(flag: str, value: str) -> bytes:
    return read_secret(value, field=flag, minimum=_MINIMUM, exact=SECRET_LENGTHS[flag])
