# SPDX-License-Identifier: MIT
"""The command ``selftest``."""

from __future__ import annotations

from typing import Final

import click

from hsm_cli.actions.options import HSMCommand
from hsm_cli.invocation import Invocation
from hsm_core.errors import SelfTestFailedError
from hsm_core.operations import SelfTest

_SECONDS: Final = 60.0
"""Signing once with every SLH-DSA parameter set takes 4 to 11 s on an idle machine."""


@click.command("selftest", cls=HSMCommand)
@click.pass_obj
def command(invocation: Invocation) -> None:
    """
    Run all self-tests now. Takes up to a minute.

    Exit code 8: an algorithm failed and is disabled (its row says FAILED), or the HSM
    ran no self-tests, because it is closing or others are running already.
    """
    invocation.raise_timeout(_SECONDS)
    report = invocation.execute(SelfTest())
    invocation.output.table(
        report,
        ("Algorithm", "Provider", "Result", "Reason"),
        [
            (row.algorithm, row.provider, _verdict(row.passed), row.reason)
            for row in report.results
        ],
    )
    if not report.passed:
        failed = [row.algorithm for row in report.results if not row.passed]
        raise SelfTestFailedError(f"Self-tests failed: {', '.join(failed)}.")


def _verdict(passed: bool) -> str:
    return "passed" if passed else "FAILED"
