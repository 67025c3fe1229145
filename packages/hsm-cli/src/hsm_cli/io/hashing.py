# SPDX-License-Identifier: MIT
"""Client-side hashing of payloads of any size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple, Protocol

from hsm_cli.io.files import Source
from hsm_cli.io.progress import Progress
from hsm_core.algorithms import Algorithm, HashAlgorithm


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
    hashers: Sequence[_Hasher],
    source: Source,
    head: list[bytes],
    rest: Iterator[bytes],
) -> None:
    done, total = 0, source.size
    with Progress("MiB hashed") as progress:
        for piece in chain(head, rest):
            for hasher in hashers:
                hasher.update(piece)
            done += len(piece)
            progress.show(done >> 20, total >> 20 if total is not None else None)
