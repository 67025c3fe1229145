# SPDX-License-Identifier: MIT
"""
From the text of a policy file to a plain tree, with the line of every place in it.

YAML is read by its events, and nothing of it is constructed: a tag, an anchor or an
alias is refused, so that a text makes no object of a class it chose and can't grow. A
plain scalar is true, false, null, a whole number or a text, as in JSON: none turns into
a date, an octal or a sexagesimal number. The parser that is written in Python alone is
used, because it runs where the keys are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import yaml

from hsm_core._strict_json import Json, scan_json
from hsm_core.errors import InvalidInputError, MalformedError

MAX_BYTES: Final = 256 * 1024
"""Maximum size of a policy file, in bytes."""

_MAX_DEPTH: Final = 16
_MAX_NODES: Final = 50_000
_INT: Final = re.compile(r"0|-?[1-9][0-9]{0,17}")
_NUMBER_LIKE: Final = re.compile(r"[-+]?[0-9][0-9_]*")
_WORDS: Final[dict[str, bool | None]] = {
    "true": True,
    "false": False,
    "null": None,
    "~": None,
    "": None,
}

Path = tuple[str | int, ...]
"""Path of a value in a file: field names and list positions."""

Lines = dict[Path, int]
"""Line of each path in a file, from 1."""


def policy_fault(message: str, path: Path = (), line: int = 0) -> InvalidInputError:
    """Return the error that a policy file is refused with; it names the place."""
    where = f"line {line}: " if line else ""
    at = shown(path)
    facts: dict[str, str | int] = {"field": at or "policy"}
    if line:
        facts["line"] = line
    return InvalidInputError(f"{where}{at}{': ' if at else ''}{message}", **facts)


def shown(path: Path) -> str:
    """Return a place as people write it: ``rules[2].match.roles``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def read_tree(text: str, what: str = "policy") -> tuple[Json, Lines]:
    """
    Read a text as JSON if it begins with ``{``, and as YAML otherwise.

    Args:
        text: All of it.

        what: What messages call it.

    Returns:
        Its tree, and the lines of a YAML text.

    Raises:
        InvalidInputError: It is too long or not well-formed, repeats a name, or uses
            what is refused here; ``facts`` name the ``line`` where it is known.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise policy_fault("The text contains a lone surrogate.") from None
    if size > MAX_BYTES:
        raise policy_fault(f"A {what} must be at most {MAX_BYTES} bytes, got {size}.")
    if text.lstrip().startswith("{"):
        try:
            return scan_json(text.encode()), {}
        except MalformedError as error:
            raise policy_fault(str(error)) from None
    try:
        return _Tree(text, what).read()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise policy_fault(f"Not valid YAML: {error.problem}.", (), line) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise policy_fault("Not valid YAML.") from None


class _Tree:
    """Builds the tree of one YAML document."""

    def __init__(self, text: str, what: str) -> None:
        self._what = what
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._nodes = 0
        self.lines: Lines = {}

    def read(self) -> tuple[Json, Lines]:
        """Read the one document that there must be."""
        self._next()  # the beginning of the stream
        if isinstance(self._next(), yaml.StreamEndEvent):
            raise policy_fault(f"The {self._what} is empty.")
        tree = self._node(self._next(), ())
        self._next()  # the end of the document
        last = self._next()
        if not isinstance(last, yaml.StreamEndEvent):
            raise policy_fault(
                f"A {self._what} must be a single YAML document.", (), _line(last)
            )
        return tree, self.lines

    def _next(self) -> yaml.Event:
        return next(self._events)

    def _node(self, event: yaml.Event, path: Path) -> Json:
        line = _line(event)
        self._nodes += 1
        if len(path) > _MAX_DEPTH:
            raise policy_fault(
                f"Nesting must be at most {_MAX_DEPTH} levels deep.", (), line
            )
        if self._nodes > _MAX_NODES:
            raise policy_fault(
                f"A {self._what} must have at most {_MAX_NODES} values.", (), line
            )
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise policy_fault("Anchors and aliases are not supported.", path, line)
        if event.tag is not None:
            raise policy_fault("Tags (!…) are not supported.", path, line)
        self.lines[path] = line
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path, line)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path)
        return self._mapping(path)

    def _scalar(self, event: yaml.ScalarEvent, path: Path, line: int) -> Json:
        text = str(event.value)
        _check_text(text, path, line)
        if event.style is not None:
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INT.fullmatch(text):
            return int(text)
        if _NUMBER_LIKE.fullmatch(text):
            raise policy_fault("Numbers must be written as in JSON.", path, line)
        return text

    def _sequence(self, path: Path) -> list[Json]:
        found: list[Json] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            found.append(self._node(event, (*path, len(found))))
        return found

    def _mapping(self, path: Path) -> dict[str, Json]:
        found: dict[str, Json] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            line = _line(event)
            if not isinstance(event, yaml.ScalarEvent):
                raise policy_fault("A field name must be a string.", path, line)
            if event.anchor is not None or event.tag is not None:
                raise policy_fault("Anchors and tags are not supported.", path, line)
            name = str(event.value)
            _check_text(name, path, line)
            if name in found:
                raise policy_fault("Duplicate field name.", (*path, name), line)
            found[name] = self._node(self._next(), (*path, name))
        return found


def _line(event: yaml.Event) -> int:
    return int(event.start_mark.line) + 1


def _check_text(text: str, path: Path, line: int) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise policy_fault("The value contains a lone surrogate.", path, line) from None
