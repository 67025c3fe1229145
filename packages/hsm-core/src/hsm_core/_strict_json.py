# SPDX-License-Identifier: MIT
"""
Strict JSON: what msgspec alone lets pass is refused before it sees the text.

That is repeated names, deep nesting, NaN and Infinity, and lone surrogates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

from hsm_core.errors import MalformedError

Json: TypeAlias = Any
"""JSON value: dict, list, str, int, float, bool or None."""

MAX_DEPTH: Final = 16
"""Maximum nesting depth of arrays and objects."""

_DEEP: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def _refuse_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MalformedError("The JSON text has an object with a duplicate name.")
    return found


def _refuse_constant(name: str) -> Json:
    raise MalformedError(f"The JSON text contains {name}, which JSON does not allow.")


def _bounded_int(digits: str) -> int:
    if len(digits.lstrip("-")) > 20:
        raise MalformedError("The JSON text has a number of more than 20 digits.")
    return int(digits)


def _check_depth(data: bytes) -> None:
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for match in _DEEP.finditer(data):
        token = match[0]
        if token in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise MalformedError(
                    f"The JSON text is nested deeper than {MAX_DEPTH} levels.",
                    limit=MAX_DEPTH,
                )
        elif token in b"]}":
            depth -= 1


def scan_json(data: bytes) -> Json:
    """
    Parse JSON strictly (RFC 8259, and I-JSON of RFC 7493 for names).

    Raises:
        MalformedError: It is not UTF-8 or not JSON, repeats a name in an object, is
            nested deeper than ``MAX_DEPTH``, or holds NaN, Infinity or a lone
            surrogate.
    """
    _check_depth(data)
    try:
        text = data.decode("utf-8")
        tree = json.loads(
            text,
            object_pairs_hook=_refuse_duplicates,
            parse_constant=_refuse_constant,
            parse_int=_bounded_int,
        )
    except UnicodeDecodeError:
        raise MalformedError("The JSON text must be UTF-8.") from None
    except json.JSONDecodeError as error:
        raise MalformedError(
            f"Not valid JSON at character {error.pos}: {error.msg}."
        ) from None
    except RecursionError:
        raise MalformedError("The JSON text is nested too deeply.") from None
    if "\\u" in text:
        _refuse_surrogates(tree)
    return tree


def _strings(tree: Json) -> Iterable[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        for name, value in tree.items():
            yield name
            yield from _strings(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _strings(value)


def _refuse_surrogates(tree: Json) -> None:
    for text in _strings(tree):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise MalformedError("The JSON text contains a lone surrogate.") from None
