# SPDX-License-Identifier: MIT
"""
Merkle tree over the audit log (RFC 6962), kept as a compact range.

A compact range is the roots of the largest complete subtrees that cover the first
records: as many as the size has bits set. With it, the tree can grow and prove
inclusion after those records were pruned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from hsm_core.errors import MalformedError

_HASH_BYTES = 32


class CompactRange:
    """
    Subtree roots of the leaves [0, *size*).

    Args:
        size: How many leaves they cover.

        roots: Hex, from the largest subtree to the smallest.

    Raises:
        MalformedError: There can't be just these roots for that size.

    Standard:
        RFC 6962, section 2.1.
    """

    __slots__ = ("_roots", "size")

    def __init__(self, size: int = 0, roots: Iterable[str] = ()) -> None:
        self.size = size
        self._roots = [_hash_of(root) for root in roots]
        if size < 0 or len(self._roots) != size.bit_count():
            raise MalformedError(
                "The number of subtree roots does not match the number of records."
            )

    @property
    def roots(self) -> tuple[str, ...]:
        """The subtree roots from the largest to the smallest, hex."""
        return tuple(root.hex() for root in self._roots)

    def append(self, leaf_hash: str) -> None:
        """Add the next leaf, given its hash in hex."""
        node, size = bytes.fromhex(leaf_hash), self.size
        while size & 1:
            node = _node(self._roots.pop(), node)
            size >>= 1
        self._roots.append(node)
        self.size += 1


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def _hash_of(text: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != _HASH_BYTES or found.hex() != text:
        raise MalformedError("Each subtree root must be 64 lower-case hex digits.")
    return found
