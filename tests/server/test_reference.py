# SPDX-License-Identifier: MIT
"""The reference says what the server does."""

import json
import re
from pathlib import Path

import pytest

from hsm_core import wire
from hsm_core.errors import SignatureMismatchError
from hsm_core.operations import VerifiedBatch
from hsm_server.config.settings import HTTPLimits, TokenRules
from hsm_server.ipc import frames
from tests.server.reference import BLOCKS, PAGES, render
from tests.support import REPOSITORY


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_are_up_to_date(page: Path) -> None:
    """If this fails, run ``python -m tests.server.reference``."""
    text = page.read_text()

    assert render(text) == text


def test_every_table_has_its_place() -> None:
    """No table is lost from the pages."""
    text = "".join(page.read_text() for page in PAGES)

    assert BLOCKS.keys() == set(re.findall(r"<!-- begin: (\w+) -->", text))


def test_the_numbers_of_the_text_are_those_of_the_settings() -> None:
    """Fixed limits stand in the text, so they are compared here."""
    page = " ".join("".join(page.read_text() for page in PAGES).split())
    limits, rules = HTTPLimits(), TokenRules()

    assert f"{limits.line_bytes // 1024} KiB" in page
    assert f"a header field {limits.header_bytes // 1024} KiB" in page
    assert f"must arrive within {limits.body_timeout_seconds:.0f} seconds" in page
    assert f"closed after {limits.keepalive_seconds:.0f} seconds" in page
    assert f"A leeway ({rules.leeway_seconds} s)" in page
    assert f"at most {rules.max_lifetime_seconds // 3600} hours" in page


def test_the_limits_between_processes_are_those_of_the_code() -> None:
    """So are what the page says of frames, requests and the version."""
    page = (REPOSITORY / "docs" / "reference" / "ipc.md").read_text()

    assert f"its header | {frames.MAX_FRAME_BYTES // 1024**2} MiB |" in page
    assert f"| piece | {frames.CHUNK_BYTES // 1024} KiB |" in page
    assert f"that wait | {frames.MAX_WAITING};" in page
    assert f"`protocol` is {frames.PROTOCOL} and" in page
    assert f"its length, {frames.HEADER_BYTES} bytes, big endian" in page
    purposes = [f"`{purpose}`" for purpose in frames.Purpose]
    assert f"{', '.join(purposes[:-1])} or {purposes[-1]}" in page


def test_the_examples_are_json() -> None:
    """What is shown can be read, as what it is said to be."""
    examples = re.findall(r"```json\n(.*?)```", PAGES[0].read_text(), re.DOTALL)
    batch, problem = map(json.loads, examples)

    assert "payload_too_large" == problem["code"]
    good, bad = wire.convert(batch, VerifiedBatch).items
    assert (1, None) == (good.version, good.error)
    assert bad.error is not None
    assert SignatureMismatchError.code == bad.error.code
