# SPDX-License-Identifier: MIT
"""The command ``selftest``."""

from __future__ import annotations

import click

from hsm_cli.invocation import Invocation
from hsm_cli.options import HSMCommand
from hsm_core.errors import SelfTestFailedError
from hsm_core.operations import SelfTest

__all__ = ["command"]


@click.command("selftest", cls=HSMCommand)
@click.pass_obj
def command(invocation: Invocation) -> None:
    """Run all self-tests now. A failing algorithm is stopped: exit 8."""
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
