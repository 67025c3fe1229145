# SPDX-License-Identifier: MIT
"""Files that a person writes: only plain values, and no text that surprises."""

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_core._strict_yaml import MAX_YAML_BYTES, MAX_YAML_DEPTH, load_strictly
from hsm_core.errors import MalformedError

BOMB = b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n"

REFUSED = {
    "nothing": (b"", "empty"),
    "a comment alone": (b"# days\n", "empty"),
    "a repeated name": (b"a: 1\nb: 2\na: 3\n", "repeats a name in line 3"),
    "a repeated name of JSON": (b'{"a": 1, "a": 2}', "repeats a name"),
    "a bomb": (BOMB, "anchor or an alias in line 1"),
    "an alias as a name": (b"*a : 1", "not text in line 1"),
    "an anchor at a name": (b"&a b: 1", "anchor or a tag in line 1"),
    "a constructor": (b"a: !!python/name:os.system", "tag in line 1"),
    "a harmless tag": (b"a: 1\nb: !!int 2", "tag in line 2"),
    "a list as a name": (b"? [a]\n: 1", "not text"),
    "two documents": (b"---\na: 1\n---\nb: 1\n", "second document in line 3"),
    "half a text": (b"a: [1, 2", "broken in line"),
    "half a quotation": (b"a: 'x", "broken in line"),
    "Latin 1": (b"a: \xe4", "UTF-8"),
    "a control character": (b"a: \x00", "not YAML"),
    "half of a surrogate pair": (b'a: "\\ud800"', "broken"),
    "deep lists": (b"[" * 100, "nested deeper than 16 levels in line 1"),
    "deep mappings": (b'{"a":' * 100, "nested deeper than 16"),
    "a long text": (b"#" * (MAX_YAML_BYTES + 1), "longer than 131072 bytes"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_a_text_that_surprises_is_refused(text: bytes, message: str) -> None:
    """The error says what is wrong, and in which line."""
    with pytest.raises(MalformedError, match=message):
        load_strictly(text)


def test_plain_values_are_read() -> None:
    """Text, numbers, truth and nothing, in lists and mappings."""
    text = b"a: [x, 1, -2, 1.5, true, null]\nb: {c: 'true', 'd e': \"1\"}\n"

    assert load_strictly(text) == {
        "a": ["x", 1, -2, 1.5, True, None],
        "b": {"c": "true", "d e": "1"},
    }


@pytest.mark.parametrize(
    "word", ["22:00", "on", "no", "y", "010", "0x10", "1_000", "2026-01-01", "<<", "="]
)
def test_a_word_that_looks_like_something_else_is_text(word: str) -> None:
    """What YAML 1.1 makes a number of base 60, a truth value or a date stays text."""
    assert load_strictly(f"a: {word}\n".encode()) == {"a": word}


def test_the_deepest_nesting_is_read() -> None:
    """The bound itself is allowed."""
    deepest = b"[" * MAX_YAML_DEPTH + b"]" * MAX_YAML_DEPTH

    assert load_strictly(deepest) == load_strictly(b" " + deepest)


@given(st.binary(max_size=300) | st.text("[]{}:,-?&*!|>'\"#% \nab01~", max_size=300))
def test_any_text_is_read_or_refused(text: bytes | str) -> None:
    """No text ends in another error."""
    data = text if isinstance(text, bytes) else text.encode()
    with suppress(MalformedError):
        load_strictly(data)


@pytest.mark.parametrize(
    "part",
    [b"[a, ", b"? ", b"- ", b"a,", b"- a\n", b"? a\n", b"x: b: ", b"\t", b'"\\n'],
)
def test_the_longest_texts_take_no_time(part: bytes) -> None:
    """Nothing that is written can hold up whoever reads it."""
    began = time.process_time()
    with suppress(MalformedError):
        load_strictly((part * MAX_YAML_BYTES)[:MAX_YAML_BYTES])

    assert time.process_time() - began < 2
