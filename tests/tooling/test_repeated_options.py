# SPDX-License-Identifier: MIT
"""Options that are given twice: lists collect the values, everything else refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import pytest
from click.testing import CliRunner

from hsm_cli.commands import cli
from hsm_cli.main import run
from hsm_core.session import Session
from hsm_core.testing import caller, memory_hsm
from hsm_server.main import main as server

VALUES = {
    "--acme-contact": ("a@example.com", "b@example.com", "c@example.com"),
    "--certificate-name": ("dns:a", "dns:b", "dns:c"),
    "--ip": ("192.0.2.1", "192.0.2.2", "192.0.2.3"),
    "--provider": ("ed25519=pyca", "x25519=pyca", "rsa-2048=pyca"),
    "--role": ("operator", "auditor", "service"),
    "--state": ("pending", "granted", "denied"),
    "--trusted-proxy": ("192.0.2.0/25", "192.0.2.128/25", "203.0.113.0/24"),
    "--uri": ("urn:a", "urn:b", "urn:c"),
    "--usage": ("sign", "verify", "decrypt"),
    "--usages": ("sign", "verify", "decrypt"),
}
"""Three values of list-valued options that don't take just any word."""

_SETTINGS = (
    *("--acme-contact", "--acme-domain", "--cert", "--client-crl", "--key"),
    *("--ocsp-response", "--provider", "--trusted-proxy"),
)
_NEW_KEY = ("--tags", "--usage")
LISTS = {
    "hsm-cli": ("--roles",),
    "hsm-cli approvals list": ("--state",),
    "hsm-cli audit events": ("--kind",),
    "hsm-cli audit follow": ("--kind",),
    "hsm-cli create": _NEW_KEY,
    "hsm-cli csr": ("--dns", "--ip", "--email", "--uri"),
    "hsm-cli derive": _NEW_KEY,
    "hsm-cli import": _NEW_KEY,
    "hsm-cli list": ("--tags",),
    "hsm-cli login": ("--scope",),
    "hsm-cli people add": ("--role",),
    "hsm-cli pkcs11 serve": ("--profile",),
    "hsm-cli pkcs11 stdio": ("--profile",),
    "hsm-cli ssh-agent": ("--certificate",),
    "hsm-cli policy explain": (
        *("--role", "--other-key", "--usages", "--tags", "--certificate-name"),
    ),
    "hsm-cli edit": ("--tags",),
    **dict.fromkeys(
        ("hsm-server serve", "hsm-server check", "hsm-server config"), _SETTINGS
    ),
}
"""The list-valued options of every command; there are no others."""


def commands(
    command: click.Command, words: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Give a command with its words, and every command below it."""
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, (*words, name))


COMMANDS = [*commands(cli, ("hsm-cli",)), *commands(server, ("hsm-server",))]


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Return the exit code of a program and what it said on standard error."""
    program, *arguments = words
    if program == "hsm-cli":
        return run(arguments), capsys.readouterr().err
    ended = CliRunner().invoke(server, arguments, prog_name=program)
    return ended.exit_code, ended.stderr


@pytest.mark.parametrize(
    ("words", "command"), COMMANDS, ids=[" ".join(words) for words, _ in COMMANDS]
)
def test_every_option(
    words: tuple[str, ...],
    command: click.Command,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An option is given once, or repeated and with commas; no value is dropped."""
    monkeypatch.delenv("FERROHSM_JSON", raising=False)
    context = click.Context(command, info_name=words[-1])
    options = [p for p in command.get_params(context) if isinstance(p, click.Option)]
    lists = LISTS.get(" ".join(words), ())
    assert set(lists) <= {flag for option in options for flag in option.opts}
    assert options

    for option in options:
        if set(option.opts) & set(lists):
            assert 3 == len(set(map(str, collected(command, option)))), option.opts
            continue
        spellings = [*option.opts, *option.secondary_opts]
        for again in spellings:
            twice = [
                part for flag in (spellings[0], again) for part in _given(option, flag)
            ]
            code, told = refusal(capsys, *words, *twice)
            assert 2 == code, twice
            assert f"'{spellings[0]}'" in told, twice
            assert "given 2 times" in told, twice


def _given(option: click.Option, flag: str) -> list[str]:
    return [flag] if option.is_flag else [flag, "1"]


def collected(command: click.Command, option: click.Option) -> Any:
    """Return the values of an option that is repeated, and has commas once."""
    flag = option.opts[0]
    first, second, third = VALUES.get(flag, ("a", "b", "c"))
    context = command.make_context(
        command.name,
        [flag, first, flag, f"{second}, {third}"],
        resilient_parsing=True,
    )
    assert option.name is not None
    return context.params[option.name]


def test_a_key_keeps_all_its_tags(capsys: pytest.CaptureFixture[str]) -> None:
    """A tag that asks for dual control is not lost beside a second one."""
    with memory_hsm() as gateway:
        hsm = gateway.act_as(caller())
        made = "create ed25519 --name k --tags dual --tags payments,eu --usage sign"
        assert 0 == run(made.split(), hsm=hsm), capsys.readouterr().err
        assert {"dual", "payments", "eu"} == set(Session(hsm).describe("k").tags)
        assert 0 == run(["update", "k", "--tags", "eu", "--tags", "dual"], hsm=hsm)
        assert {"dual", "eu"} == set(Session(hsm).describe("k").tags)
        assert 0 == run(["update", "k", "--owner", "ann"], hsm=hsm)
        assert {"dual", "eu"} == set(Session(hsm).describe("k").tags)


@pytest.mark.parametrize(
    "words",
    [
        ("hsm-cli", "create", "ed25519", "--usage", ""),
        ("hsm-cli", "approvals", "list", "--state", ","),
        ("hsm-cli", "policy", "explain", "Sign", "--role", ""),
        ("hsm-server", "--client-crl", ""),
        ("hsm-server", "--acme-domain", " ,"),
    ],
    ids=" ".join,
)
def test_an_empty_value(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """A variable that is not set does not pass for a list that was not given."""
    code, told = refusal(capsys, *words)

    assert (2, True) == (code, "empty" in told)


def test_before_and_after_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """A limit that is both a global option and the command's is given once, too."""
    words = "hsm-cli --wait-seconds 5 status --wait-seconds 6".split()

    code, told = refusal(capsys, *words)

    assert (2, True) == (code, "--wait-seconds was given 2 times" in told)
