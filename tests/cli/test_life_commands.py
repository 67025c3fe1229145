# SPDX-License-Identifier: MIT
"""Tests of the commands for the life of a key."""

from __future__ import annotations

import pytest

from tests.cli.support import Shell


def shown(shell: Shell, *line: str) -> dict[str, str]:
    """Run a command that shows names with values, and return them."""
    pairs = {}
    for text in shell.ok(*line).lines:
        name, _, value = text.partition("  ")
        pairs[name.strip()] = value.strip()
    return pairs


def states(shell: Shell, name: str) -> list[str]:
    """Return the state of each version."""
    found = shell.ok("versions", name, "--json").json["items"]
    return [version["state"] for version in found]


class TestStaging:
    def test_of_a_key(self, shell: Shell) -> None:
        """A staged key signs when it is activated, and not before."""
        shell.ok("create", "ed25519", "--name", "s", "--staged")

        assert 5 == shell("sign", "s", "--in", "-", stdin=b"m").code
        assert "active" == shown(shell, "activate", "s")["state"]
        shell.ok("sign", "s", "--in", "-", stdin=b"m")

    def test_of_a_version(self, shell: Shell) -> None:
        """A staged version takes the place of the current one."""
        shell.ok("create", "ed25519", "--name", "s")
        shell.ok("rotate", "s", "--staged")
        assert ["active", "staged"] == states(shell, "s")

        shell.ok("activate", "s", "--version", "2")
        assert ["retired", "active"] == states(shell, "s")
        (head, _, second) = shell.ok("versions", "s", "--format", "wide").lines[:3]
        begun = shell.ok("versions", "s", "--json").json["items"][1]["activated_at"]
        assert "ACTIVATED" in head
        assert begun[:19] in second

    def test_rest(self, shell: Shell) -> None:
        """A version is suspended for a reason, and resumed."""
        shell.ok("create", "ed25519", "--name", "s")

        assert "suspended" == shown(shell, "suspend", "s", "--reason", "audit")["state"]
        assert "audit" in shell.ok("versions", "s", "--format", "wide").text
        assert "active" == shown(shell, "resume", "s")["state"]


class TestRevoke:
    def test_since_when(self, shell: Shell) -> None:
        """The instant of a compromise is kept and shown, in UTC."""
        shell.ok("create", "ed25519", "--name", "s")
        shell.ok("revoke", "s", "--compromised-at", "2026-01-31T13:00:00+01:00")

        assert (
            "2026-01-31T12:00:00Z" in shell.ok("versions", "s", "--format", "wide").text
        )

    @pytest.mark.parametrize(
        ("value", "word"),
        [
            ("yesterday", "is not a time"),
            ("2026-01-31T12:00:00", "offset"),
            ("", "is not a time"),
        ],
    )
    def test_wrong_times(self, shell: Shell, value: str, word: str) -> None:
        """A time that does not say which instant it is is refused."""
        outcome = shell("revoke", "s", "--compromised-at", value)

        assert 2 == outcome.code
        assert word in outcome.err

    def test_future(self, shell: Shell) -> None:
        """What the HSM refuses is told by its field."""
        shell.ok("create", "ed25519", "--name", "s")
        outcome = shell("revoke", "s", "--compromised-at", "2999-01-01T00:00:00Z")

        assert 2 == outcome.code
        assert "compromised_at" in outcome.err


class TestDestroy:
    def test_waits_and_comes_back(self, shell: Shell) -> None:
        """A key that waits shows when it goes, and is as before when it is back."""
        shell.ok("create", "aes", "--name", "box")
        waiting = shown(shell, "destroy", "box", "--waiting-days", "7", "--yes")

        assert "purge_scheduled" == waiting["state"]
        assert waiting["destroyed at"].endswith("Z")
        back = shown(shell, "cancel-destroy", "box")
        assert ("active", None) == (back["state"], back.get("destroyed at"))

    def test_at_once(self, shell: Shell) -> None:
        """Without a waiting time it is destroyed at once."""
        shell.ok("create", "aes", "--name", "box")

        assert "destroyed" == shown(shell, "destroy", "box", "--yes")["state"]


class TestUpdate:
    def test_each(self, shell: Shell) -> None:
        """What is given is changed, and nothing else."""
        shell.ok("create", "aes", "--name", "box", "--tags", "a,b", "--owner", "o")
        shell.ok("update", "box", "--description", "d")
        found = shown(shell, "update", "box", "--name", "chest", "--tags", "c")

        assert ("chest", "c", "o", "d") == tuple(
            found[name] for name in ("name", "tags", "owner", "description")
        )

    def test_taken_away(self, shell: Shell) -> None:
        """Empty values take a name and tags away."""
        shell.ok("create", "aes", "--name", "box", "--tags", "a")
        found = shell.ok("update", "box", "--name", "", "--tags", "", "--json").json

        assert "name" not in found
        assert [] == found["tags"]

    def test_of_nothing(self, shell: Shell) -> None:
        """Something must be given."""
        shell.ok("create", "aes", "--name", "box")
        outcome = shell("update", "box")

        assert 2 == outcome.code
        assert "at least one" in outcome.err


class TestRotation:
    def test_set_and_taken_back(self, shell: Shell) -> None:
        """The limits show with the key, and are taken back together."""
        shell.ok("create", "aes", "--name", "box")
        both = ("--max-age-days", "90", "--max-uses", "5")

        assert (
            "every 90 days or 5 uses"
            == shown(shell, "set-rotation", "box", *both)["rotation"]
        )
        assert "rotation" not in shown(shell, "set-rotation", "box", "--off")

    @pytest.mark.parametrize("line", [(), ("--off", "--max-uses", "5")])
    def test_contradictions(self, shell: Shell, line: tuple[str, ...]) -> None:
        """Either there is a limit or there is none."""
        outcome = shell("set-rotation", "box", *line)

        assert 2 == outcome.code
        assert "--off" in outcome.err
