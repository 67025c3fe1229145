# SPDX-License-Identifier: MIT
"""What was found, as a table for a terminal and for the page *Benchmarks*."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tests.bench.figures import Absent, Figure, Finding
from tests.bench.goals import Goal

_HEAD: Final = (
    "| Row | Measured | Goal | Today | Met | Seen |\n|---|---|---|---|---|---|\n"
)

METHOD: Final = """## How it is measured

- A figure is the median **processor time** of one operation, over all threads of the
  process, unless *Seen* says wall time. Rivals take turns in one run, round after
  round, so that a busy machine slows them alike: ratios carry over to other machines,
  absolute figures don't.
- *FerroHSM* is `hsm-core` in the same process, called through `Session`, with the
  built-in policy and with the tamper-evident trail; records are synced within 20
  milliseconds, or before the answer where a row says *strict* or *durable*.
- *raw* is the library `cryptography` in a loop of Python, with nothing around it.
- *OpenSSL in C* and *SoftHSM2* are loops of C over the system's libcrypto and over
  SoftHSM2's PKCS #11 module, whose keys are token objects. Neither checks a policy nor
  writes a trail. For ECDSA SoftHSM2 is given a digest, and so spared a hash.
- Messages that are signed have 32 bytes. RSA signs with PSS and SHA-256.
- A ratio *of raw* is raw ÷ own: 1.0 is as quick as raw. *SoftHSM2 ÷ own* says how many
  times as long SoftHSM2 takes, and *OpenSSL in C ÷ own* the same of OpenSSL.
- Over HTTPS the server's processor time is measured and not the client's, but for the
  commands of `hsm-cli` (P15). Unless a row speaks of workers or of slow signatures,
  keys and connections are in one process. The listing of keys is never shown from
  memory. The vault's and the front ends' shares are taken while 16 connections sign as
  fast as they can.
- Quick requests beside slow signatures (P14) are timed by a client on the same machine,
  which needs a processor too.
- P16 takes 1,000,000 keys in SQLite, and 1,000,000 records in files, or as many as
  `FERROHSM_BENCH_KEYS` and `FERROHSM_BENCH_RECORDS` say.
- liboqs (P13) is measured where it is installed; see
  [choose providers](../how-to/choose-providers.md).
- Ratios suffer, too, where the machine has more to do than cores: what waits for
  another thread, as a record does for the trail's, pays for each change of threads, and
  a loop of C does not.
- That a batch is many times as cheap as single requests (P12) says as much of the
  single request as of the batch.
- A row without a figure says why it has none. Nothing here is a test: no run fails
  because something was slow.
"""
"""The part of the page that says how figures come about."""

_PAGE: Final = """# Benchmarks

What FerroHSM costs, beside the goals that it is built for, on one machine on one day.
`nox -s bench` measures all of it and writes this page; `nox -s bench -- P4 P5` measures
some rows, and only prints them.

Measured on {date}: {machine}.

{summary}

{table}
{method}"""


def table(found: Mapping[Goal, Sequence[Finding]]) -> str:
    """Return the table, a line for each figure."""
    return _HEAD + "".join(
        f"| {goal.number} | {_line(finding)} |\n"
        for goal, findings in found.items()
        for finding in findings
    )


def summary(found: Mapping[Goal, Sequence[Finding]]) -> str:
    """Return how many of the figures reach their goals, and how many are absent."""
    every = [finding for findings in found.values() for finding in findings]
    figures = [finding for finding in every if isinstance(finding, Figure)]
    met = sum(figure.is_met for figure in figures)
    return (
        f"{met} of {len(figures)} figures reach their goal; "
        f"{len(every) - len(figures)} could not be measured."
    )


def page(found: Mapping[Goal, Sequence[Finding]], *, date: str, machine: str) -> str:
    """Return the whole page in Markdown."""
    return _PAGE.format(
        date=date,
        machine=machine,
        summary=summary(found),
        table=table(found),
        method=METHOD,
    )


def _line(finding: Finding) -> str:
    if isinstance(finding, Absent):
        return f"{finding.what} | | | | not measured: {finding.why}"
    sign = "≥" if finding.is_floor else "≤"
    met = "yes" if finding.is_met else "**no**"
    return (
        f"{finding.what} | {sign} {finding.goal:g} {finding.unit} "
        f"| {_number(finding.value)} {finding.unit} | {met} | {finding.note}"
    )


def _number(value: float) -> str:
    """Return three digits that count, without an exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
