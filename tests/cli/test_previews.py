# SPDX-License-Identifier: MIT
"""Requests that are shown as curl or as a policy rule, and not sent."""

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from hsm_core.factory import OpenHSM
from hsm_core.model import Role
from hsm_core.testing import caller
from tests.cli.support import Shell
from tests.client.stub import TOKEN, Stub
from tests.support import require_program


@pytest.fixture
def online(online: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Give hsm-cli over the stub."""
    monkeypatch.setenv("FERROHSM_AUTH_TOKEN", TOKEN)
    return online


def curl(command: str) -> bytes:
    """Return what a shown command prints."""
    done = subprocess.run(
        ["sh", "-ec", f"{command.strip()} --silent --show-error"],
        check=True,
        capture_output=True,
        env={**os.environ, "TOKEN": TOKEN},
    )
    return done.stdout


class TestCurl:
    def test_runs(self, online: Shell, stub: Stub) -> None:
        """The shown command does what the command would, and nothing was sent."""
        require_program("curl")
        create = "create", "ed25519", "--name", "k", "--description", "it's $HOME \x85"
        shown = online.ok(*create, "--show-curl").text
        assert TOKEN == online.ok("token", "show").text.strip()
        sent = len(stub.received)
        made = json.loads(curl(shown))
        signed = online.ok("sign", "k", "--text", "hello", "--show-curl").text
        signature = json.loads(curl(signed))["signature"]
        verify = "verify", "k", "--text", "hello", "--signature-base64", signature

        assert 0 == sent
        assert TOKEN not in shown + signed
        assert ("k", "it's $HOME \x85") == (made["name"], made["description"])
        assert "Valid signature" in online.ok(*verify).text

    def test_headers(self, online: Shell) -> None:
        """Generation, idempotency key and approval are headers, as when sent."""
        approval = "5b1c9a52-7a0e-4d0c-8a35-0c7f0e9b1d24"
        shown = online.ok(
            *("destroy", "k", "--show-curl", "--if-generation", "3"),
            *("--idempotency-key", "once", "--approval-id", approval),
        ).text
        words = shlex.split(shown)

        assert ["curl", "--request", "DELETE"] == words[:3]
        assert {'If-Match: "3"', "Idempotency-Key: once"} <= set(words)
        assert any(approval in word for word in words)

    def test_no_credential(self, bare_shell: Shell, tmp_path: Path) -> None:
        """Without a credential the request is shown too; certificates are named."""
        plain = bare_shell.ok("list", "--show-curl").text
        bound = bare_shell.ok(
            *("--client-cert", "ada.p12", "--ca-bundle", "my ca.pem"),
            *("list", "--show-curl"),
        ).text
        stream = bare_shell.ok("audit", "follow", "--show-curl").text

        assert '--oauth2-bearer "$TOKEN"' in plain
        assert "--cacert 'my ca.pem'" in bound
        assert '--cert-type P12 --cert ada.p12:"$PASSWORD"' in bound
        assert "TOKEN" not in bound
        assert "--no-buffer" in stream

    def test_what_it_depends_on(self, online: Shell, stub: Stub) -> None:
        """Reads before the request are sent: a short ID becomes a whole one."""
        made = online.ok("create", "aes", "--name", "k", "--json").json
        shown = online.ok("rotate", made["key_id"][:8], "--show-curl").text

        assert f"/keys/{made['key_id']}/rotate" in shown
        assert 1 == online.ok("describe", "k", "--json").json["version"]


class TestRule:
    @pytest.mark.parametrize(
        ("words", "conditions"),
        [
            ("sign k --text x", ['["Sign"]', '["k"]', '["tester"]']),
            ("create aes --name n", ['["CreateKey"]', '["aes"]', '["n"]']),
            ("export k --wrapping-key w", ['["ExportKey"]', '["k", "w"]']),
            ("audit events", ['["ListAuditEvents"]']),
            ("destroy k", ['["DestroyKey"]', '["k"]']),
        ],
    )
    def test_is_a_policy(
        self, shell: Shell, tmp_path: Path, words: str, conditions: list[str]
    ) -> None:
        """The rule is a valid policy about this operation, key and caller."""
        shell.ok("create", "ed25519", "--name", "k", "--exportable")
        shell.ok("create", "AES-256-KW", "--name", "w")
        outcome = shell.ok(*words.split(), "--show-rule")
        path = tmp_path / "policy.yaml"
        path.write_text(outcome.text)
        checked = shell("policy", "check", str(path))

        assert 0 == checked.code, checked.err
        assert all(condition in outcome.text for condition in conditions)
        assert "active" in shell.ok("describe", "k").text

    def test_for_who_may_not(
        self, shell: Shell, gateway: OpenHSM, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who is refused is told how to see the rule, and sees it."""
        shell.ok("create", "ed25519", "--name", "k")
        eve = Shell(
            monkeypatch, gateway.act_as(caller(Role.AUDITOR, principal="eve@b.example"))
        )
        refused = eve("sign", "k", "--text", "x")
        shown = eve.ok("sign", "k", "--text", "x", "--show-rule").text

        assert 3 == refused.code
        assert "add --show-rule" in refused.err
        assert 'principals: ["eve@b.example"]' in shown

    def test_both(self, shell: Shell) -> None:
        """One of both is shown."""
        outcome = shell("list", "--show-rule", "--show-curl")

        assert (2, b"") == (outcome.code, outcome.out)
