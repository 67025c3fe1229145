# SPDX-License-Identifier: MIT
"""Input from arguments, files and standard input, its hashing, and written files."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import BinaryIO, Final, NamedTuple, Protocol

import msgspec

from hsm_cli.io.output import OutputError, Progress
from hsm_core.algorithms import Algorithm, HashAlgorithm
from hsm_core.errors import InvalidInputError, MalformedError, PayloadTooLargeError
from hsm_core.limits import CIPHERTEXT_OVERHEAD_BYTES, Limits

_CHUNK_BYTES: Final = 1024 * 1024
_MAX_BYTES: Final = Limits().payload_bytes + CIPHERTEXT_OVERHEAD_BYTES
"""Longest data that is read: the longest payload plus the envelope."""

STDIN: Final = "-"
"""Name of standard input on the command line."""


def encode_base64(data: bytes) -> str:
    """Return base64 (RFC 4648, section 4), with padding, in one line."""
    return base64.b64encode(data).decode()


def decode_base64(text: str | bytes, *, what: str) -> bytes:
    """
    Decode base64 (RFC 4648, section 4); white space is ignored.

    Raises:
        MalformedError: It is not canonical base64 with padding.
    """
    joined = b"".join(
        (text.encode("utf-8", "replace") if isinstance(text, str) else text).split()
    )
    try:
        data = base64.b64decode(joined, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedError(f"{what} must be base64 with padding.") from None
    if base64.b64encode(data) != joined:
        raise MalformedError(f"{what} must be canonical base64.")
    return data


def decode_pem(data: bytes, label: str) -> bytes:
    """
    Return the contents of a PEM block with this label; other data is returned as is.

    Raises:
        MalformedError: The PEM file has no block with this label, or is damaged.
    """
    if b"-----BEGIN " not in data:
        return data
    begin, end = (f"-----{word} {label}-----".encode() for word in ("BEGIN", "END"))
    _, found, rest = data.partition(begin)
    body, closed, _ = rest.partition(end)
    if not found or not closed:
        raise MalformedError(f"The PEM file has no {label} block.")
    return decode_base64(body, what=label)


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """
    Input of a command: an argument, a file or standard input.

    Attributes:
        what: Name of the data, for messages.
        text: The argument, or None.
        path: The file, ``-`` for standard input, or None. Exactly one of *text* and
            *path* is given.
        is_base64: Whether the data is base64-encoded.
    """

    what: str
    text: str | None = None
    path: str | None = None
    is_base64: bool = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def read(self) -> bytes:
        """
        Return all of the data.

        Raises:
            InvalidInputError: The file can't be read.
            MalformedError: It is not base64, although *is_base64* is set.
            PayloadTooLargeError: It is longer than any HSM accepts.
        """
        if self.text is not None:
            # Restores bytes of the command line that are not UTF-8.
            data = os.fsencode(self.text)
        else:
            data = b"".join(self._chunks(limit=2 * _MAX_BYTES))
        if self.is_base64:
            data = decode_base64(data, what=f"The {self.what}")
        if len(data) > _MAX_BYTES:
            raise PayloadTooLargeError(self.what, actual=len(data), maximum=_MAX_BYTES)
        return data

    def pieces(self) -> Iterator[bytes]:
        """Yield the data of a file of any size in pieces of up to 1 MiB."""
        if self.text is not None or self.is_base64:
            yield self.read()
        else:
            yield from self._chunks(limit=None)

    def lines(self) -> Iterator[bytes]:
        """
        Yield the lines of a file, without line ends.

        Raises:
            InvalidInputError: The file can't be read.
        """
        with self._opened() as stream:
            try:
                for line in stream:
                    yield line.rstrip(b"\r\n")
            except OSError as error:
                raise self._unreadable(error) from None

    @property
    def size(self) -> int | None:
        """Length of a regular file in bytes; None for anything else."""
        if self.path is None or self.path == STDIN:
            return None
        try:
            status = os.stat(os.fsencode(self.path))
        except (OSError, ValueError):
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    @property
    def is_shared(self) -> bool:
        """Whether it is a regular file that users other than its owner may read."""
        if self.size is None:
            return False
        return bool(stat.S_IMODE(os.stat(os.fsencode(self.path or "")).st_mode) & 0o044)

    def _chunks(self, *, limit: int | None) -> Iterator[bytes]:
        total = 0
        with self._opened() as stream:
            while True:
                try:
                    chunk = stream.read(_CHUNK_BYTES)
                except OSError as error:
                    raise self._unreadable(error) from None
                if not chunk:
                    return
                total += len(chunk)
                if limit is not None and total > limit:
                    raise self._too_long(total)
                yield chunk

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        if self.path == STDIN:
            if sys.stdin is None:
                raise InvalidInputError("Standard input is closed.", field=self.what)
            yield sys.stdin.buffer
            return
        try:
            stream = open(os.fsencode(self.path or ""), "rb")
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from None
        with stream:
            yield stream

    def _too_long(self, read: int) -> PayloadTooLargeError:
        size = self.size
        return PayloadTooLargeError.from_wire(
            f"{self.what} must be at most {_MAX_BYTES} bytes, got "
            f"{size or f'more than {_MAX_BYTES}'}.",
            {"field": self.what, "actual": size or read, "maximum": _MAX_BYTES},
        )

    def _unreadable(self, error: Exception) -> InvalidInputError:
        why = error.strerror if isinstance(error, OSError) else "not a file name"
        return InvalidInputError(
            f"Can't read the {self.what} from {self.path}: {why}.", field=self.what
        )


def write_file(path: str, data: bytes, *, private: bool) -> None:
    """
    Write a file atomically.

    Args:
        path: Destination; an existing file is replaced, also through a symbolic link.
            A special file, such as a pipe, is written to.

        data: Contents.

        private: Whether only the owner may read it (mode 0600); otherwise the umask
            applies.

    Raises:
        OutputError: It can't be written; an existing file is unchanged.
    """
    try:
        target = os.path.realpath(path)
        if os.path.exists(target) and not stat.S_ISREG(os.stat(target).st_mode):
            with open(target, "wb") as stream:
                stream.write(data)
            return
        _replace(target, data, mode=0o600 if private else 0o666 & ~_umask())
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a file name"
        raise OutputError(f"Can't write {path}: {why}.") from None


def _replace(target: str, data: bytes, *, mode: int) -> None:
    # It loads a dozen modules, and most commands write no file.
    import tempfile

    folder, name = os.path.split(target)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name[:64]}.", dir=folder)
    try:
        with open(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


class Candidate(NamedTuple):
    """Public key to compute mu for."""

    version: int
    algorithm: Algorithm
    public_der: bytes


class _Hasher(Protocol):
    def update(self, data: bytes, /) -> None: ...


def hash_digest(
    algorithm: HashAlgorithm, source: Source, head: list[bytes], rest: Iterator[bytes]
) -> bytes:
    """
    Return the digest of a payload.

    Args:
        algorithm: The hash.

        source: Source of the pieces.

        head: Pieces that are already read.

        rest: The remaining pieces.
    """
    hasher = hashlib.new(algorithm.value.replace("-", "").lower())
    _feed([hasher], source, head, rest)
    return hasher.digest()


def hash_mus(
    candidates: Sequence[Candidate],
    context: bytes,
    source: Source,
    head: list[bytes],
    rest: Iterator[bytes],
) -> list[bytes]:
    """
    Return mu of a payload for each of several ML-DSA keys, reading it once.

    Raises:
        InputSizeError: The context is longer than 255 bytes.
    """
    # Deferred: short payloads do not need the cryptography.
    from hsm_core.primitives import MuHasher

    hashers = [MuHasher(c.algorithm, c.public_der, context) for c in candidates]
    _feed(hashers, source, head, rest)
    return [hasher.digest() for hasher in hashers]


def _feed(
    hashers: Sequence[_Hasher], source: Source, head: list[bytes], rest: Iterator[bytes]
) -> None:
    done, total = 0, source.size
    with Progress("MiB hashed") as progress:
        for piece in chain(head, rest):
            for hasher in hashers:
                hasher.update(piece)
            done += len(piece)
            progress.show(done >> 20, total >> 20 if total is not None else None)
