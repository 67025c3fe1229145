# SPDX-License-Identifier: MIT
"""Forms of output: tables within 80 columns, JSON, and single fields."""

import json

import pytest
from msgspec import structs

from hsm_core import wire
from hsm_core.model import KeyId
from hsm_core.operations import KeyPage, ListKeys
from tests.cli.support import Answering, Shell

LONG = "a-rather-long-name-of-a-key-for-documents-of-customers-2026"


@pytest.fixture
def filled(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Give a shell on a terminal of 80 columns, over three keys."""
    monkeypatch.setenv("COLUMNS", "80")
    shell.ok("create", "aes", "--name", "box")
    shell.ok("create", "MLKEM1024-ECDH-P384-SHA3-256", "--name", LONG)
    shell.ok("create", "ed25519", "--name", "login", "--tags", "x,y")
    shell.ok("sign", "login", "--text", "hello")
    shell("sign", "login", "--text", "hello", "--version", "9")
    return shell


@pytest.mark.parametrize(
    "words",
    [
        "list",
        "versions box",
        "audit events",
        "approvals list",
        "algorithms",
        "algorithms --offline",
        "retention status",
        "policy explain Sign --key login --principal p --role operator",
        "list --format wide",
        "audit events --format wide",
        "versions box --format wide",
        "algorithms --format wide",
    ],
)
def test_fits_a_terminal(filled: Shell, words: str) -> None:
    """No table is wider than the terminal, and none wraps a row."""
    outcome = filled("--no-color", *words.split(), terminal=True)
    footer = outcome.lines[-1]

    assert 0 == outcome.code
    for line in outcome.lines:
        assert len(line) <= 80 or line is footer or "wide" in words, line


class TestTable:
    def test_list(self, filled: Shell) -> None:
        """Names come first, IDs are short, and a name is cut before anything else."""
        lines = filled("--no-color", "list", terminal=True).lines
        whole = filled.ok("list").text
        box = filled.ok("describe", "box", "--field", "key_id").text

        assert ["NAME", "ID", "ALGORITHM", "STATE", "VERSION", "TAGS"] == lines[
            0
        ].split()
        assert ["box", box[:8], "AES-256-GCM", "active", "1", "-"] == lines[3].split()
        assert "a-rather-long" in lines[2]
        assert "\N{HORIZONTAL ELLIPSIS}" in lines[2]
        assert "MLKEM1024-ECDH-P384-SHA3-256" in lines[2]
        assert LONG in whole

    def test_wide(self, filled: Shell) -> None:
        """The wide table has whole IDs, tags, owner and usages."""
        uuid = filled.ok("describe", "login", "--field", "key_id").text.strip()
        line = filled.ok("list", "--format", "wide").lines[1]

        assert ["login", uuid, "Ed25519"] == line.split()[:3]
        assert {"sign,verify", "tester", "x,y"} <= set(line.split())

    def test_wide_as_blocks(self, filled: Shell) -> None:
        """Where the wide table has no room, nothing is cut."""
        text = filled("--no-color", "list", "--format", "wide", terminal=True).text

        assert LONG in text
        assert 3 == text.count("algorithm ")


class TestJson:
    def test_forms(self, filled: Shell) -> None:
        """All spellings of JSON are one; jsonl has one item a line."""
        record = filled.ok("list", "--json")
        forms = [
            filled.ok("list", "--format", "json"),
            filled.ok("--json", "list"),
            filled.ok("--format=json", "list"),
        ]
        lines = filled.ok("list", "--format", "jsonl").lines

        assert [record] * 3 == forms
        assert record.json["items"] == [json.loads(line) for line in lines]

    def test_local_before_global(self, filled: Shell) -> None:
        """The form after the command takes precedence."""
        assert filled.ok("--json", "list", "--format", "table") == filled.ok("list")

    def test_contradiction(self, filled: Shell) -> None:
        """Two forms for one command are refused."""
        outcome = filled("list", "--json", "--format", "wide")

        assert (2, b"") == (outcome.code, outcome.out)
        assert "--json can't be used with --format wide" in outcome.err

    def test_lists_are_present(self, shell: Shell) -> None:
        """Empty lists are there, so that a program needs no special case."""
        empty = shell.ok("list", "--json").json
        shell.ok("create", "aes", "--name", "k")
        found = shell.ok("list", "--json")

        assert [] == empty["items"]
        assert [] == found.json["items"][0]["tags"]
        assert [] == shell.ok("describe", "k", "--json").json["tags"]
        assert "k" == wire.decode_json(found.out, KeyPage).items[0].name

    def test_errors(self, shell: Shell) -> None:
        """An error is JSON in both forms."""
        for words in (["--format", "jsonl"], ["--format=json"]):
            outcome = shell("describe", "nope", *words)

            assert "key_not_found" == json.loads(outcome.err)["code"]

    def test_as(self, filled: Shell) -> None:
        """A command whose --format is of keys has --as for the output."""
        outcome = filled.ok("public-key", "login", "--format", "ssh", "--as", "json")
        refused = filled("public-key", "login", "--as", "pem")

        assert {"der", "pem", "jwk"} <= outcome.json.keys()
        assert 2 == refused.code


class TestField:
    @pytest.mark.parametrize(
        ("words", "text"),
        [
            ("describe login --field name", "login\n"),
            ("describe login --field version", "1\n"),
            ("describe login --field exportable", "false\n"),
            ("describe login --field tags", "x\ny\n"),
            ("describe login --field description", "\n"),
            ("describe login --field use.uses", "1\n"),
            ("describe login --field use.last-used-at --json", None),
            ("list --field name", f"login\n{LONG}\nbox\n"),
            ("list --field total", "3\n"),
            ("audit events --kind Sign --code ok --field event.kind", "Sign\n"),
            ("approvals list --field approval_id", ""),
        ],
    )
    def test_values(self, filled: Shell, words: str, text: str | None) -> None:
        """A field is printed bare: lists one a line, other records as JSON."""
        outcome = filled.ok(*words.split())

        assert text is None or text == outcome.text

    def test_bytes(self, filled: Shell) -> None:
        """Bytes are base64, as in JSON."""
        shown = filled.ok(
            "sign", "login", "--text", "x", "--field", "signature"
        ).text.strip()

        assert filled.ok("sign", "login", "--text", "x").text.strip() == shown

    def test_unknown(self, filled: Shell) -> None:
        """A field that is not there is refused, with those that are."""
        outcome = filled("describe", "login", "--field", "nmae")

        assert 2 == outcome.code
        assert "Fields: key_id, algorithm," in outcome.err


class TestShortIds:
    def test_taken(self, filled: Shell) -> None:
        """What a table shows is taken by every command, also twice in one."""
        shown = filled.ok("list").lines[1].split()[1]
        signature = filled.ok("sign", shown, "--text", "x").text.strip()
        filled.ok("verify", shown, "--text", "x", "--signature-base64", signature)
        rotated = filled.ok("rotate", "--key-id", shown, "--idempotency-key", "k1")
        again = filled.ok("rotate", shown, "--idempotency-key", "k1")
        filled.ok("destroy", shown, "--yes")

        assert 8 == len(shown)
        assert rotated == again
        assert "login\n" == filled.ok("describe", shown, "--field", "name").text
        assert len(filled.ok("audit", "events", "--key-id", shown).lines) > 3

    def test_names_first(self, filled: Shell) -> None:
        """A key with such a name is meant before one with such an ID."""
        shown = filled.ok("list").lines[1].split()[1]
        filled.ok("create", "aes", "--name", shown)

        assert (
            "AES-256-GCM\n" == filled.ok("describe", shown, "--field", "algorithm").text
        )

    @pytest.mark.parametrize("length", [7, 4, 1])
    def test_too_short(self, filled: Shell, length: int) -> None:
        """Less than a table shows names no key."""
        shown = filled.ok("list").lines[1].split()[1]

        assert 4 == filled("describe", shown[:length]).code

    def test_ambiguous(self, filled: Shell) -> None:
        """A start of several IDs is refused, with the candidates."""
        assert filled.hsm is not None
        inner = filled.hsm
        page = inner.execute(ListKeys())
        start = "01234567"
        keys = tuple(
            structs.replace(key, key_id=KeyId(start + key.key_id[8:]))
            for key in page.items
        )
        twins = structs.replace(page, items=keys)
        filled.hsm = Answering(
            lambda asked: (
                twins
                if asked == ListKeys(search=start, per_page=1000)
                else inner.execute(asked)
            )
        )
        outcome = filled("destroy", start, "--yes")

        assert (2, b"") == (outcome.code, outcome.out)
        assert "is the start of 3 key IDs" in outcome.err
        assert keys[0].key_id in outcome.err
        assert "(box)" in outcome.err
