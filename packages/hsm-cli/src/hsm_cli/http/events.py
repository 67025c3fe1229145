# SPDX-License-Identifier: MIT
"""Server-sent events (HTML, section 9.2): the subset that an HSM sends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from hsm_core.errors import TransportError

_LONGEST_BLOCK: Final = 4 * 1024 * 1024


@dataclass(slots=True)
class EventBlock:
    """
    Event or comment: the lines up to an empty line.

    Attributes:
        id: Position in the stream, or empty.
        event: Kind of the event; empty for a comment.
        data: Contents.
    """

    id: str = ""
    event: str = ""
    data: bytes = field(default=b"", repr=False)


def read_blocks(chunks: Iterable[bytes]) -> Iterator[EventBlock]:
    """
    Yield the blocks of a stream; an incomplete last one is dropped.

    Raises:
        TransportError: A block is longer than 4 MiB.
    """
    unread = bytearray()
    for chunk in chunks:
        unread += chunk
        *blocks, unread = unread.split(b"\n\n")
        yield from map(_parse, blocks)
        if len(unread) > _LONGEST_BLOCK:
            raise TransportError(
                f"An event is longer than {_LONGEST_BLOCK} bytes.",
                reason="answer",
                maximum=_LONGEST_BLOCK,
            )


def _parse(text: bytearray) -> EventBlock:
    block = EventBlock()
    for line in bytes(text).splitlines():
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"id":
            block.id = value.decode("ascii", "replace")
        elif name == b"event":
            block.event = value.decode("ascii", "replace")
        elif name == b"data":
            block.data += value
    return block
