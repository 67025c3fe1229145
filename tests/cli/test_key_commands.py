# SPDX-License-Identifier: MIT
"""Tests of the commands that manage keys."""

import json
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.cli.support import Outcome, Shell


def key_id(shell: Shell, name: str) -> str:
    """Return the UUID of a key."""
    found: str = shell.ok("describe", name, "--json").json["key_id"]
    return found


class TestCreate:
    def test_pairs(self, shell: Shell) -> None:
        """A new key is shown as names with values, empty ones left out."""
        outcome = shell.ok("create", "p256", "--name", "release", "--tags", "a, b")
        shown = dict(line.split(maxsplit=1) for line in outcome.lines)

        assert ("EC-P256", "active", "1") == (
            shown["algorithm"],
            shown["state"],
            shown["version"],
        )
        assert ("a,b", "sign,verify") == (shown["tags"], shown["usages"])
        assert "description" not in shown

    def test_all_options(self, shell: Shell) -> None:
        """Every field of the operation can be given, and shows in the JSON result."""
        outcome = shell.ok(
            *("create", "--algorithm", "RSA-2048", "--name", "r", "--owner", "team"),
            *("--description", "A key", "--usage", "ENCRYPT,decrypt", "--json"),
        )

        assert ("RSA-2048", "team", "A key", ["decrypt", "encrypt"]) == tuple(
            outcome.json[name]
            for name in ("algorithm", "owner", "description", "usages")
        )

    def test_idempotency_key(self, shell: Shell) -> None:
        """The same command under the same key makes one key."""
        line = ("create", "aes", "--idempotency-key", "k1", "--json")

        assert shell.ok(*line).json == shell.ok(*line).json
        assert shell.ok("list", "--json").json["total"] == 1

    @pytest.mark.parametrize(
        ("line", "code", "word"),
        [
            (["create"], 2, "ALGORITHM"),
            (["create", "aes", "--algorithm", "aes"], 2, "not both"),
            (["create", "des"], 2, "unknown_algorithm"),
            (["create", "aes", "--usage", "fly"], 2, "not one of"),
            (["create", "aes", "--usage", "sign"], 2, "unsupported_operation"),
            (["create", "aes", "--name", "taken"], 5, "name_taken"),
        ],
    )
    def test_refused(self, shell: Shell, line: list[str], code: int, word: str) -> None:
        """What can't be made is told in one line, with its exit code."""
        shell.ok("create", "aes", "--name", "taken")
        outcome = shell(*line)

        assert (code, b"") == (outcome.code, outcome.out)
        assert word in outcome.err


class TestList:
    def test_table(self, shell: Shell) -> None:
        """A pipe gets aligned columns that programs can cut, newest key first."""
        shell.ok("create", "aes", "--name", "first")
        shell.ok("create", "ed25519", "--name", "second", "--tags", "x")
        lines = shell.ok("list").lines

        assert lines[0].split()[:3] == ["NAME", "ID", "ALGORITHM"]
        assert [line.split()[0] for line in lines[1:3]] == ["second", "first"]
        assert lines[-1] == "page 1 of 1, 2 keys in total"
        assert lines[1].index("Ed25519") == lines[2].index("AES-256-GCM")

    def test_filters(self, shell: Shell) -> None:
        """All filters of the original narrow the listing."""
        shell.ok("create", "aes", "--name", "a", "--tags", "x,y")
        shell.ok("create", "aes", "--name", "b", "--tags", "x")
        shell.ok("create", "p256", "--name", "c", "--tags", "x,y")
        shell.ok("destroy", "c", "--yes")

        def names(*options: str) -> list[str]:
            items = shell.ok("list", "--json", *options).json["items"]
            return [item["name"] for item in items]

        assert names("--tags", "x,y") == ["a"]
        assert names("--algorithm", "AES256GCM", "--state", "active") == ["b", "a"]
        assert names("--state", "Destroyed") == ["c"]
        assert names("--state", "purge-scheduled") == []
        assert names("--page", "2", "--per-page", "1") == ["a"]

    def test_walk_by_cursor(self, shell: Shell) -> None:
        """The last line of a page says how to get the next one."""
        for name in ("a", "b", "c"):
            shell.ok("create", "aes", "--name", name)
        first = shell.ok("list", "--per-page", "2").lines[-1]
        cursor = first.rpartition("--cursor ")[2]
        second = shell.ok("list", "--per-page", "2", "--cursor", cursor)

        assert first.startswith("page 1 of 2, 3 keys in total; next: --cursor ")
        assert [line.split()[0] for line in second.lines[1:2]] == ["a"]
        assert second.lines[-1] == "page by cursor, 3 keys in total"

    def test_terminal(self, shell: Shell) -> None:
        """A terminal gets a table with the same cells and a bold heading."""
        shell.ok("create", "aes", "--name", "box")
        outcome = shell("list", terminal=True)
        plain = shell("--no-color", "list", terminal=True)

        assert "box" in outcome.text
        assert "\x1b[1mNAME" in outcome.text
        assert b"\x1b" not in plain.out
        assert max(map(len, plain.lines)) <= 200

    @pytest.mark.parametrize(
        "options",
        [
            ["--per-page", "0"],
            ["--per-page", "1001"],
            ["--page", "0"],
            ["--state", "flying"],
            ["--algorithm", "des"],
            ["--cursor", "!"],
        ],
    )
    def test_refused(self, shell: Shell, options: list[str]) -> None:
        """A filter that means nothing is a usage error."""
        outcome = shell("list", *options)

        assert (2, b"") == (outcome.code, outcome.out)


class TestKeyOperand:
    @pytest.mark.parametrize("command", ["describe", "versions", "rotate"])
    def test_three_ways(self, shell: Shell, command: str) -> None:
        """A key is named by position or option, with its name or its UUID."""
        shell.ok("create", "aes", "--name", "box")
        uuid = key_id(shell, "box")
        for words in (["box"], [uuid], ["--key-id", "box"], ["--key-id", uuid]):
            outcome = shell.ok(command, *words, "--json")

            assert outcome.json["key_id"] == uuid

    @pytest.mark.parametrize(
        "command", ["describe", "versions", "rotate", "public-key"]
    )
    @pytest.mark.parametrize("words", [[], ["a", "--key-id", "b"], ["a", "b"], [""]])
    def test_none_or_both(self, shell: Shell, command: str, words: list[str]) -> None:
        """No key, or two, is a usage error that points to the help."""
        outcome = shell(command, *words)

        assert (2, b"") == (outcome.code, outcome.out)
        assert f"see hsm-cli {command} --help" in outcome.err

    def test_unknown(self, shell: Shell) -> None:
        """A key that is not there has its own exit code."""
        outcome = shell("describe", "nope")

        assert (4, "hsm-cli: There is no such key. [key_not_found]\n") == (
            outcome.code,
            outcome.err,
        )

    def test_similar(self, shell: Shell) -> None:
        """A person is told similar names; a program gets the error alone."""
        shell.ok("create", "aes", "--name", "release")
        seen = shell("describe", "relase", terminal=True)
        program = shell("describe", "relase")

        assert (4, 4) == (seen.code, program.code)
        assert "hsm-cli: did you mean release?" in seen.err
        assert "did you mean" not in program.err


def pairs(outcome: Outcome) -> dict[str, str]:
    """Return names and values of what was printed."""
    found = (line.partition("  ") for line in outcome.lines)
    return {name: value.strip() for name, _, value in found}


class TestVersions:
    def test_life(self, shell: Shell) -> None:
        """Rotation, rollback and revocation show in the table of versions."""
        shell.ok("create", "p256", "--name", "k")
        shell.ok("rotate", "k")
        shell.ok("rollback", "k", "--version", "1")
        shell.ok("revoke", "k", "--version", "2", "--reason", "it was lost")
        rows = [line.split() for line in shell.ok("versions", "k").lines[1:]]

        assert [row[:2] for row in rows] == [
            ["1", "retired"],
            ["2", "revoked"],
            ["3", "active"],
        ]
        assert rows[1][-3:] == ["it", "was", "lost"]
        assert rows[2][3] == "1"

    def test_uses(self, shell: Shell) -> None:
        """What a key protected is counted, and shown where there is a limit."""
        shell.ok("create", "aes", "--name", "box", "--exportable")
        for _ in range(3):
            shell.ok("encrypt", "box", "--text", "hello")
        shell.ok("rotate", "box")
        shell.ok("encrypt", "box", "--text", "hello")
        described = pairs(shell.ok("describe", "box"))
        first, second = shell.ok("versions", "box", "--json").json["items"]
        made = pairs(shell.ok("create", "P-256 + ML-DSA", "--name", "hybrid"))
        hybrid = pairs(shell.ok("describe", "hybrid"))

        assert (3, 1) == (first["use"]["uses"], second["use"]["uses"])
        assert "1 of 3865470566 (0 %)" == described["uses"]
        assert ("5", "yes") == (described["bytes"], described["exportable"])
        assert "generated" == described["origin"]
        assert "draft" not in described
        assert hybrid["draft"].startswith("draft-ietf-lamps-pq-composite-sigs-")
        assert ("0", "never") == (hybrid["uses"], hybrid["last used"])
        assert "uses" not in made

    def test_refused(self, shell: Shell) -> None:
        """A move that the life cycle does not know is a conflict."""
        shell.ok("create", "p256", "--name", "k")
        unknown = shell("rollback", "k", "--version", "9")
        shell.ok("revoke", "k")

        assert unknown.code == 4
        assert shell("rollback", "k", "--version", "1").code == 5
        assert shell("rollback", "k").code == 2
        assert shell("rollback", "k", "--version", "0").code == 2


class TestGeneration:
    def test_a_key_that_was_changed_meanwhile(self, shell: Shell) -> None:
        """A change that expects another generation is refused, with exit code 5."""
        shell.ok("create", "aes", "--name", "k")
        seen = str(shell.ok("describe", "k", "--json").json["generation"])
        shell.ok("rotate", "k", "--if-generation", seen)

        for command in (("rotate", "k"), ("destroy", "k", "--yes"), ("suspend", "k")):
            assert 5 == shell(*command, "--if-generation", seen).code

        found = shell.ok("describe", "k", "--json").json
        assert (2, "active") == (found["version"], found["state"])


class TestDestroy:
    def test_asks(self, shell: Shell) -> None:
        """Only the key's own name, typed, lets a destruction begin."""
        shell.ok("create", "aes", "--name", "box")
        refused = shell("destroy", "box", stdin=b"bux\n")
        silent = shell("destroy", "box")
        states = [shell.ok("describe", "box", "--json").json["state"]]
        agreed = shell("destroy", "box", "--json", stdin=b"box\n")

        assert (2, 2, ["active"]) == (refused.code, silent.code, states)
        assert "Nothing was destroyed" in refused.err
        assert "Use --yes" in silent.err
        assert (
            "The AES-256-GCM key box will be destroyed, with 1 version." in agreed.err
        )
        assert (0, "destroyed") == (agreed.code, agreed.json["state"])

    def test_asks_for_uuid_of_a_nameless_key(self, shell: Shell) -> None:
        """A key without a name is confirmed with its UUID."""
        uuid = shell.ok("create", "aes", "--json").json["key_id"]
        outcome = shell("destroy", uuid, "--json", stdin=f"{uuid}\n".encode())

        assert (0, "destroyed") == (outcome.code, outcome.json["state"])

    def test_yes(self, shell: Shell) -> None:
        """With --yes nothing is asked."""
        shell.ok("create", "aes", "--name", "box")
        outcome = shell.ok("destroy", "box", "--yes")

        assert "destroyed" in outcome.text


class TestPublicKey:
    def test_formats(self, shell: Shell, tmp_path: Path) -> None:
        """PEM, DER and JWK hold the same key, printed or in a file."""
        shell.ok("create", "p384", "--name", "k")
        pem = shell.ok("public-key", "k")
        der = shell.ok("public-key", "k", "--format", "der")
        jwk = shell.ok("public-key", "k", "--format", "jwk", "--version", "1")
        path = tmp_path / "k.pem"
        written = shell.ok("public-key", "k", "--out", str(path))
        key = serialization.load_pem_public_key(pem.out)

        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert key == serialization.load_der_public_key(der.out)
        assert ("EC", "P-384") == (jwk.json["kty"], jwk.json["crv"])
        assert (b"", pem.out) == (written.out, path.read_bytes())
        assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600

    def test_json(self, shell: Shell) -> None:
        """--json prints all forms in one record."""
        shell.ok("create", "p256", "--name", "k")
        outcome = shell.ok("public-key", "k", "--json")

        assert {"der", "pem", "jwk"} <= outcome.json.keys()

    def test_symmetric(self, shell: Shell) -> None:
        """A symmetric key has no public key, which is a usage error."""
        shell.ok("create", "aes", "--name", "box")
        outcome = shell("public-key", "box")

        assert 2 == outcome.code
        assert "unsupported_operation" in outcome.err


def test_errors_as_json(shell: Shell) -> None:
    """With --json, before or after the command, an error is JSON too."""
    expected = {"code": "key_not_found", "message": "There is no such key."}
    for line in (["--json", "describe", "nope"], ["describe", "nope", "--json"]):
        outcome = shell(*line)

        assert (4, expected) == (outcome.code, json.loads(outcome.err))


def test_usage_errors_as_json(shell: Shell) -> None:
    """A command line that can't be read is told as JSON where that was asked for."""
    outcome = shell("describe", "--json", "--frob")
    error = json.loads(outcome.err)

    assert (2, "invalid_input") == (outcome.code, error["code"])
    assert "--frob" in error["message"]
