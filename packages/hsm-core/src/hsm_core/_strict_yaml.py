# SPDX-License-Identifier: MIT
"""
Strict YAML and JSON for files that a person writes: plain values and nothing else.

The tree is built here from the parser's events, so that no tag can construct anything
and every bound holds while the text is read. Refused are repeated names, anchors and
aliases (and with them every text that grows when it is read), tags, a second document,
deep nesting and long texts.

A word without quotes is a value by the core schema of YAML 1.2, or else text. So
``22:00`` is text and not a number of base 60, ``on`` and ``no`` are text, and so is a
date.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from hsm_core._strict_json import Json, scan_json
from hsm_core.errors import MalformedError

__all__ = ["MAX_YAML_BYTES", "MAX_YAML_DEPTH", "load_strictly"]

MAX_YAML_BYTES: Final = 128 * 1024
"""How long a text may be."""

MAX_YAML_DEPTH: Final = 16
"""How deep lists and mappings may be nested."""

_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_FLOAT: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,17}")
_WORDS: Final[dict[str, Json]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_strictly(data: bytes, *, max_bytes: int = MAX_YAML_BYTES) -> Json:
    r"""
    Read a YAML or JSON text; one that begins with ``{`` is JSON.

    Args:
        data: The text, in UTF-8.

        max_bytes: How long it may be.

    Returns:
        A tree of dict with names of text, list, str, int, float, bool and None.

    Raises:
        MalformedError: It is empty, too long, not UTF-8, broken, or holds something
            that is refused here. The message names the line where there is one.

    Example:
        >>> load_strictly(b"from: 22:00\ndays: [mon, 7]")
        {'from': '22:00', 'days': ['mon', 7]}
    """
    if len(data) > max_bytes:
        raise MalformedError(
            f"The text is longer than {max_bytes} bytes.", limit=max_bytes
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedError("The text is not UTF-8.") from None
    if text.lstrip()[:1] == "{":
        return scan_json(data)
    try:
        return _tree(yaml.parse(text, Loader=_LOADER))
    except MalformedError:
        raise
    except yaml.MarkedYAMLError as error:
        where = _where(error.problem_mark or error.context_mark)
        raise MalformedError(f"The YAML text is broken{where}.") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise MalformedError("The text is not YAML.") from None


def _where(mark: Any) -> str:
    return f" in line {mark.line + 1}" if mark is not None else ""


def _refused(event: yaml.Event, what: str) -> MalformedError:
    return MalformedError(f"The YAML text {what}{_where(event.start_mark)}.")


def _tree(events: Iterator[yaml.Event]) -> Json:
    """Build the one document of a text."""
    found: list[Json] = []
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            if found:
                raise _refused(event, "holds a second document")
            found.append(_value(next(events), events, MAX_YAML_DEPTH))
    if not found or found == [None]:
        raise MalformedError("The text is empty.")
    return found[0]


def _value(event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Json:
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
        raise _refused(event, "holds an anchor or an alias")
    if getattr(event, "tag", None) is not None:
        raise _refused(event, "holds a tag")
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event)
    if not depth:
        raise _refused(event, f"is nested deeper than {MAX_YAML_DEPTH} levels")
    if isinstance(event, yaml.SequenceStartEvent):
        return [
            _value(item, events, depth - 1)
            for item in _until(yaml.SequenceEndEvent, events)
        ]
    mapping: dict[str, Json] = {}
    for item in _until(yaml.MappingEndEvent, events):
        name = _name(item)
        if name in mapping:
            raise _refused(item, "repeats a name")
        mapping[name] = _value(next(events), events, depth - 1)
    return mapping


def _until(end: type[yaml.Event], events: Iterator[yaml.Event]) -> Iterator[yaml.Event]:
    for event in events:
        if isinstance(event, end):
            return
        yield event


def _name(event: yaml.Event) -> str:
    if not isinstance(event, yaml.ScalarEvent):
        raise _refused(event, "has a name that is not text")
    if event.anchor or event.tag is not None:
        raise _refused(event, "holds an anchor or a tag")
    return str(event.value)


def _scalar(event: yaml.ScalarEvent) -> Json:
    text = str(event.value)
    if not event.implicit[0]:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
