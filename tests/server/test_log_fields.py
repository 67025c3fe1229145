# SPDX-License-Identifier: MIT
"""A line of the log holds known fields with plain values, whatever it is given."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hsm_server
from hsm_server.config.settings import LogFormat, LogLevel
from hsm_server.observability.logs import FIELDS, MASK, MOST_CHARACTERS, make_logger
from tests.server.support import mint

METHODS = {"debug", "info", "warning", "error", "_warn"}
PEM = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw\n-----END PRIVATE KEY-----"
PLANTED = "PLANTED-7f3a9c"


class Telling:
    """Something whose every form tells a secret."""

    def __repr__(self) -> str:
        return PLANTED

    __str__ = __repr__


def _written(form: LogFormat = LogFormat.JSON, **fields: Any) -> str:
    stream = StringIO()
    make_logger(stream, LogLevel.DEBUG, form).info("event", **fields)
    return stream.getvalue()


def _calls() -> Iterator[tuple[str, ast.Call]]:
    """Give every call of a logger in the server."""
    folder = Path(hsm_server.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = node.func
            if isinstance(called, ast.Attribute) and called.attr in METHODS:
                whom = ast.unparse(called.value).lower()
                if called.attr == "_warn" or "logger" in whom:
                    yield f"{path.name}:{node.lineno}", node


def test_everything_that_is_logged_is_known() -> None:
    """No call of a logger has a field that would be left out."""
    unknown = {
        (place, keyword.arg)
        for place, call in _calls()
        for keyword in call.keywords
        if keyword.arg is not None and keyword.arg not in FIELDS
    }

    assert not unknown
    assert 20 < sum(1 for _ in _calls())


def test_an_unknown_field_is_left_out() -> None:
    """Its name is told, so that somebody adds it to the table; its value is lost."""
    line = json.loads(_written(token=PLANTED, body={"a": PLANTED}, code="ok"))

    assert ["body", "token"] == line["left_out"]
    assert "ok" == line["code"]
    assert PLANTED not in json.dumps(line)


@pytest.mark.parametrize("form", list(LogFormat), ids=lambda form: str(form.value))
@pytest.mark.parametrize(
    "value",
    [
        *(Telling(), PLANTED.encode(), {"a": PLANTED}, [Telling()], (b"x",)),
        *(ValueError(PLANTED), {PLANTED}, bytearray(PLANTED.encode())),
    ],
    ids=["object", "bytes", "dict", "list", "tuple", "error", "set", "bytearray"],
)
def test_objects_are_shown_as_their_type(form: LogFormat, value: object) -> None:
    """Nobody knows what they say of themselves."""
    assert PLANTED not in _written(form, reason=value)


@pytest.mark.parametrize("form", list(LogFormat), ids=lambda form: str(form.value))
def test_what_looks_like_a_secret_is_masked(form: LogFormat) -> None:
    """Tokens and private keys are, wherever in a sentence they stand."""
    token = mint()
    header, payload, signature = token.split(".")
    for secret in (f"got {token}, sorry", f"Authorization: Bearer {token}", PEM):
        text = _written(form, reason=secret, principal=secret)

        assert MASK in text
        for part in (header, payload, signature, "MC4CAQAwBQYDK2Vw"):
            assert part not in text


def test_a_token_beyond_the_cut_is_masked_first() -> None:
    """A value is cut after it was looked at, so no half of a token remains."""
    payload = mint().split(".")[1]
    text = _written(reason="x" * (MOST_CHARACTERS - 60) + f" {mint()}")

    assert payload[:20] not in text


@given(
    st.dictionaries(
        st.sampled_from(sorted(FIELDS.keys() - {"event", "level", "timestamp"})),
        st.one_of(
            st.text(),
            st.integers(),
            st.floats(),
            st.booleans(),
            st.none(),
            st.binary(),
            st.lists(st.text()),
            st.text().map(lambda text: text + PEM),
        ),
    )
)
def test_each_event_is_one_line(fields: dict[str, Any]) -> None:
    """Whatever a value is, JSON stays JSON and nobody forges a line."""
    for form in LogFormat:
        text = _written(form, **fields)

        assert 1 == len(text.splitlines())
        assert text.endswith("\n")
        assert text[:-1].isprintable()
        assert "MC4CAQ" not in text
    line = json.loads(_written(**fields), parse_constant=pytest.fail)
    assert {"event", "level", "timestamp", *fields} == set(line)


@pytest.mark.parametrize("name", ["principal", "reason"])
def test_long_text_is_cut(name: str) -> None:
    """A line can't fill the disk."""
    fields: dict[str, Any] = {name: "ä" * 100_000}
    line = json.loads(_written(**fields))

    assert MOST_CHARACTERS + 1 == len(line[name])


def test_the_event_itself_is_cleaned_too() -> None:
    """Some of our phrases have a part that comes from elsewhere."""
    stream = StringIO()
    logger = make_logger(stream, LogLevel.DEBUG, LogFormat.CONSOLE)
    logger.warning(f"lost\nlevel=error event=forged {mint()}")
    text = stream.getvalue()

    assert 1 == len(text.splitlines())
    assert mint().split(".")[0] not in text


PROGRAM = """
import logging, sys, warnings
from hsm_server.observability.logs import capture_foreign, make_logger
from hsm_server.config.settings import (LogFormat, LogLevel)
capture_foreign(make_logger(sys.stderr, LogLevel.INFO, LogFormat.JSON))
logging.getLogger("x").error("of %s", "somebody")
warnings.warn("of somebody")
"""


def test_warnings_are_lines_of_the_log() -> None:
    """Libraries warn of strange certificates, and anybody may show one."""
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", PROGRAM],
        check=True,
        capture_output=True,
        text=True,
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]

    assert ["x", "py.warnings"] == [line["library"] for line in lines]
    assert "somebody" not in done.stderr
