# SPDX-License-Identifier: MIT
"""Output to a terminal or a pipe."""

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from hsm_cli.io.output import neutral, neutral_json
from hsm_cli.io.tables import render_table
from hsm_core.model import KeyInfo
from hsm_core.operations import DescribeKey, ListKeys, Operation
from hsm_core.protocols import HSM
from tests.cli.support import Answering, Shell

HOSTILE = "a\x1b]0;t\x07\x1b[2J\r\x9b31m\u202egnp\u2066\u200f\u2028[red]b[/red]\x00\n"


def acts(character: str) -> bool:
    """Return whether a character is a control, or a format that reorders or hides."""
    return unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} or (
        unicodedata.bidirectional(character)
        in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    )


@given(st.text())
def test_neutral(text: str) -> None:
    """Whatever the text, nothing in what is shown acts on a terminal."""
    assert not any(map(acts, neutral(text)))


@given(
    st.text(alphabet=st.characters(exclude_categories=["Cc", "Cs", "Cf", "Zl", "Zp"]))
)
def test_neutral_leaves_ordinary_text(text: str) -> None:
    """Letters, signs and spaces of any script stay as they are."""
    if not any(0xE0000 <= ord(character) <= 0xE0FFF for character in text):
        assert text == neutral(text)


@given(st.text(), st.text())
def test_neutral_json(name: str, value: str) -> None:
    """JSON stays the same value, and nothing in it acts on a terminal."""
    text = json.dumps({name: value}, ensure_ascii=False)
    shown = neutral_json(text)

    assert {name: value} == json.loads(shown)
    assert not any(map(acts, shown))


def hostile(hsm: HSM) -> Answering:
    """Return an HSM whose keys have such descriptions, as a bad server may send."""

    def answer(operation: Operation[Any]) -> Any:
        result = hsm.execute(operation)
        if isinstance(operation, DescribeKey):
            return _spoilt(result)
        if isinstance(operation, ListKeys):
            return structs.replace(result, items=tuple(map(_spoilt, result.items)))
        return result

    return Answering(answer)


def _spoilt(key: KeyInfo) -> KeyInfo:
    return structs.replace(key, description=HOSTILE, name=HOSTILE, tags=(HOSTILE,))


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
@pytest.mark.parametrize(
    "line",
    [["describe", "k"], ["describe", "k", "--json"], ["list"], ["list", "--json"]],
    ids=" ".join,
)
def test_hostile_server(shell: Shell, line: list[str], terminal: bool) -> None:
    """Escapes in a server's text are shown, not obeyed, and markup is just text."""
    shell.ok("create", "aes", "--name", "k")
    assert shell.hsm is not None
    shell.hsm = hostile(shell.hsm)
    outcome = shell("--no-color", *line, terminal=terminal)

    assert 0 == outcome.code
    assert not any(acts(c) for c in outcome.text if c != "\n")
    assert "[red]" in outcome.text.replace("\n", "")


class TestTable:
    def test_plain(self) -> None:
        """Columns are as wide as their widest cell, and no line ends in spaces."""
        text = render_table(
            ("A", "Bee"), [("long cell", ""), ("x", "y")], width=0, colour=True
        )

        assert "A          BEE\nlong cell\nx          y" == text

    def test_drawn(self) -> None:
        """On a narrow terminal long cells are cut, or folded, which loses nothing."""
        rows = [("x" * 40, "[bold]y[/bold]")]
        cut, folded = (
            render_table(("A", "B"), rows, width=30, colour=False, fold=fold)
            for fold in (False, True)
        )

        assert 2 == len(cut.splitlines())
        assert "\N{HORIZONTAL ELLIPSIS}" in cut
        assert 40 == folded.count("x")
        assert max(map(len, [*cut.splitlines(), *folded.splitlines()])) <= 30
        assert "\x1b" not in cut

    def test_colours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Colours come only where they are allowed."""
        monkeypatch.setenv("TERM", "xterm")
        coloured = render_table(("A",), [("x",)], width=80, colour=True)
        plain = render_table(("A",), [("x",)], width=80, colour=False)

        assert "\x1b[" in coloured
        assert "\x1b" not in plain


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colour_by_environment(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """The environment can forbid colours."""
    monkeypatch.setenv(variable, value)
    outcome = shell("list", terminal=True)

    assert b"\x1b" not in outcome.out
