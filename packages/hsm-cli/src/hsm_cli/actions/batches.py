# SPDX-License-Identifier: MIT
"""
Batches: items as JSON lines in, results as JSON lines out, in the same order.

A file of any length is split into requests within the default limits of servers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, Protocol, TypeVar

from hsm_cli.exit_codes import BatchFailedError
from hsm_cli.invocation import Invocation
from hsm_cli.io.files import Source, write_file
from hsm_cli.io.output import Output, Progress
from hsm_cli.io.records import encode_record
from hsm_core import wire
from hsm_core.algorithms import Cost, spec
from hsm_core.errors import InvalidInputError, PayloadTooLargeError
from hsm_core.model import Record
from hsm_core.operations.base import ItemError, Operation
from hsm_core.operations.keys import DescribeKey

_MAX_ITEMS: Final = 1000
_SLOW_ITEMS: Final = 10
"""For signatures that take up to a second, so that a request meets its time-out."""

_MAX_REQUEST_CHARACTERS: Final = 1536 * 1024
"""Servers accept JSON bodies of 2 MiB by default; items of 1 MiB fit as base64."""

_ITEM: Final = re.compile(r"items\[([0-9]{1,4})\]\.?")
"""Beginning of the field of an error about an item of a request."""


class _Answer(Protocol):
    @property
    def error(self) -> ItemError | None: ...


class _Answers(Protocol):
    @property
    def items(self) -> tuple[_Answer, ...]: ...


Item = TypeVar("Item", bound=Record)
Found = TypeVar("Found", bound=_Answers)


def most_signatures(invocation: Invocation, key_id: str) -> int:
    """Return the maximum number of signatures in a request."""
    algorithm = invocation.prepare(DescribeKey(key_id=key_id)).algorithm
    is_slow = algorithm is not None and spec(algorithm).use_cost is Cost.SLOW
    return _SLOW_ITEMS if is_slow else _MAX_ITEMS


def run_batch(
    invocation: Invocation,
    source: Source,
    item_type: type[Item],
    request: Callable[..., Operation[Found]],
    out: str | None = None,
    *,
    private: bool = False,
    most_items: int = _MAX_ITEMS,
) -> None:
    """
    Send the items of a file, and write a result for each.

    Args:
        invocation: Executes.

        source: One item per line; empty lines are skipped.

        item_type: Type of an item.

        request: Creates an operation with up to *most_items* as its *items*.

        out: File for the results; None and ``-`` are standard output.

        private: Whether only the owner may read the results.

        most_items: Maximum number of items in a request.

    Raises:
        BatchFailedError: Some items failed; all results are written.
        InvalidInputError: A line is not such an item. The results of earlier requests
            are written.
    """
    sink = _Sink(invocation.output, out, private=private)
    failed = total = 0
    try:
        with Progress("items done") as progress:
            for lines, items in _requests(source, item_type, most_items):
                try:
                    found = invocation.execute(request(items=items))
                except InvalidInputError as error:
                    raise _at_line(error, lines) from None
                for answer in found.items:
                    sink.write(answer)
                    failed += answer.error is not None
                total += len(items)
                if out not in {None, "-"}:
                    progress.show(total)
    finally:
        sink.close()
    if failed:
        raise BatchFailedError(
            f"{failed} of {total} items failed. See the error in their output lines.",
            failed=failed,
            items=total,
        )


class _Sink:
    """Output of results: immediately to standard output, or to a file at the end."""

    def __init__(self, output: Output, out: str | None, *, private: bool) -> None:
        self._output = output
        self._path = None if out == "-" else out
        self._private = private
        self._lines: list[str] = []

    def write(self, answer: object) -> None:
        if self._path is None:
            self._output.line(encode_record(answer))
        else:
            self._lines.append(encode_record(answer))

    def close(self) -> None:
        if self._path is not None:
            data = "".join(f"{line}\n" for line in self._lines).encode()
            write_file(self._path, data, private=self._private)


def _requests(
    source: Source, item_type: type[Item], most_items: int
) -> Iterator[tuple[list[int], tuple[Item, ...]]]:
    """Yield items of the file, as many as one request takes, with their lines."""
    items: list[Item] = []
    lines: list[int] = []
    size = 0
    for number, line in enumerate(source.lines(), 1):
        if not line.strip():
            continue
        if len(line) > _MAX_REQUEST_CHARACTERS:
            raise PayloadTooLargeError(
                f"line {number}", actual=len(line), maximum=_MAX_REQUEST_CHARACTERS
            )
        if items and (
            len(items) == most_items or size + len(line) > _MAX_REQUEST_CHARACTERS
        ):
            yield lines, tuple(items)
            items, lines, size = [], [], 0
        items.append(_item(number, line, item_type))
        lines.append(number)
        size += len(line)
    if items:
        yield lines, tuple(items)


def _item(number: int, line: bytes, item_type: type[Item]) -> Item:
    try:
        return wire.decode_json(line, item_type)
    except InvalidInputError as error:
        raise _with_line(error, number, str(error)) from None


def _at_line(error: InvalidInputError, lines: list[int]) -> InvalidInputError:
    """Return a fault of a request with the line of the item that it names, if any."""
    named = _ITEM.match(str(error.facts.get("field", "")))
    if named is None or int(named[1]) >= len(lines):
        return error
    return _with_line(error, lines[int(named[1])], str(error).removeprefix(named[0]))


def _with_line(
    error: InvalidInputError, number: int, problem: str
) -> InvalidInputError:
    return type(error).from_wire(
        f"line {number} of the batch: {problem}", {**error.facts, "line": number}
    )
