# SPDX-License-Identifier: MIT
"""Tests of the table of exit codes."""

import json
import os
from unittest.mock import Mock

import pytest

from hsm_cli import main
from hsm_cli.exit_codes import EXIT_CODES, ExitCode, exit_code
from hsm_core import errors
from tests.cli.support import Answering, Shell

PUBLIC = list(errors.error_classes().values())
EXPECTED = {
    "internal": 1,
    "invalid_input": 2,
    "configuration": 2,
    "authentication_failed": 3,
    "access_denied": 3,
    "key_not_found": 4,
    "conflict": 5,
    "verification_failed": 6,
    "decryption_failed": 6,
    "integrity": 7,
    "unavailable": 8,
    "transport": 9,
    "outcome_unknown": 10,
    "approval_required": 11,
    "approval_not_found": 4,
    "batch_failed": 12,
    "approval_ended": 13,
}


@pytest.mark.parametrize("error", PUBLIC, ids=lambda error: error.code)
def test_every_error_has_a_code(error: type[errors.HSMError]) -> None:
    """No public error but the root falls through to the code of everything else."""
    code = exit_code(error.from_wire("", {}))

    assert (error is errors.HSMError) == (code is ExitCode.OTHER)


def test_table() -> None:
    """The codes of the families are those that scripts rely on."""
    assert EXPECTED == {cls.code: int(code) for cls, code in EXIT_CODES.items()}


def test_every_code_has_a_meaning() -> None:
    """Every code is explained in a sentence."""
    assert all(code.meaning.endswith(".") for code in ExitCode)


def test_codes_of_the_program() -> None:
    """The program's own codes, which it knows without the table, are in the table."""
    source = vars(main)
    own = {source[f"_{name}"] for name in ("OK", "OTHER", "USAGE", "INTERRUPTED")}

    assert own | {source["_OUTPUT_CLOSED"]} <= set(ExitCode)


def raising(error: BaseException) -> Answering:
    """Return an HSM that raises an error."""
    return Answering(Mock(side_effect=error))


@pytest.mark.parametrize("error", PUBLIC, ids=lambda error: error.code)
def test_one_line(shell: Shell, error: type[errors.HSMError]) -> None:
    """An error is one line with its code, however many lines its message has."""
    raised = error.from_wire("What\nhappened\x1b[31m.", {"field": "x"})
    shell.hsm = raising(raised)
    outcome = shell("status")

    assert (exit_code(raised), b"") == (outcome.code, outcome.out)
    assert (
        f"hsm-cli: What\\x0ahappened\\x1b[31m. [{error.code}]\n"
        == outcome.err.splitlines(keepends=True)[0]
    )


def test_names_that_are_not_unicode(shell: Shell) -> None:
    """An error about a file name that is not UTF-8 is told as JSON like any other."""
    path = os.fsdecode(b"absent-\xff")
    outcome = shell("sign", "k", "--in", path, "--json")

    assert 2 == outcome.code
    assert "absent-\\udcff" in json.loads(outcome.err)["message"]


def test_unexpected_error(shell: Shell) -> None:
    """A fault of ours is told by its kind alone, without traceback or data."""
    shell.hsm = raising(RuntimeError("secret detail"))
    outcome = shell("status")

    assert (1, "hsm-cli: unexpected error: RuntimeError\n") == (
        outcome.code,
        outcome.err,
    )


def test_interrupted_mutation(shell: Shell) -> None:
    """Ctrl-C in a mutation says how to repeat it safely."""
    shell.hsm = raising(KeyboardInterrupt())
    outcome = shell("create", "aes", "--idempotency-key", "the-key")

    assert 130 == outcome.code
    assert "--idempotency-key the-key" in outcome.err
    assert outcome.err.endswith("hsm-cli: interrupted\n")


def test_interrupted_read(shell: Shell) -> None:
    """Ctrl-C in a read is told in one line."""
    shell.hsm = raising(KeyboardInterrupt())
    outcome = shell("list")

    assert (130, "hsm-cli: interrupted\n") == (outcome.code, outcome.err)
