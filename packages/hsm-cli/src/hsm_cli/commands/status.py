# SPDX-License-Identifier: MIT
"""Commands about the HSM: health, self-tests, algorithms and random bytes."""

from __future__ import annotations

from collections import Counter
from typing import Final

import click

from hsm_cli.invocation import Invocation
from hsm_cli.io.files import encode_base64
from hsm_cli.io.output import Form
from hsm_cli.io.results import deliver, instant, words
from hsm_cli.io.tables import Column
from hsm_cli.options import choice
from hsm_cli.parameters import HSMCommand, out_option
from hsm_core.algorithms import ALGORITHMS, Algorithm, AlgorithmSpec, Family, KeyUsage
from hsm_core.errors import SelfTestFailedError
from hsm_core.model import Record
from hsm_core.operations.audit import AuditStatus
from hsm_core.operations.cluster import ClusterStatus
from hsm_core.operations.service import (
    AlgorithmList,
    AlgorithmStatus,
    GenerateRandom,
    HSMStatus,
    ListAlgorithms,
    ScheduleStatus,
    SelfTest,
    Status,
    StoreStatus,
)


@click.command("status", cls=HSMCommand)
@click.pass_obj
def status(invocation: Invocation) -> None:
    """
    Show the health of the HSM, and algorithms that are not available.

    --format wide shows all algorithms with their providers.
    """
    status = invocation.execute(Status())
    is_wide = invocation.output.form is Form.WIDE
    invocation.output.pairs(status, _status_pairs(status, is_wide=is_wide))


def _status_pairs(status: HSMStatus, *, is_wide: bool) -> list[tuple[str, str]]:
    trail = status.audit
    pairs = [
        ("state", status.state),
        ("version", status.version),
        ("started", instant(status.started_at)),
        ("uptime", f"{status.uptime_seconds} s"),
        ("keys", str(status.keys)),
        ("tampered keys", str(status.tampered_keys)),
        ("store", _store(status.store)),
        *((finding.key_id, finding.problem) for finding in status.store.findings),
        ("audit", _audit(trail)),
        ("audit sync", trail.sync),
        ("audit log id", trail.log_id),
        ("audit head", f"{trail.head_seq} {trail.head_hash}"),
        ("audit starts at", str(trail.first_seq) if trail.first_seq else ""),
        *_schedules(status.schedules),
        *_cluster(status.cluster),
    ]
    shown = [row for row in status.algorithms if is_wide or row.status != _AVAILABLE]
    return pairs + _providers(status) + [_algorithm(row) for row in shown]


_AVAILABLE: Final = "available"


def _store(store: StoreStatus) -> str:
    if store.locked:
        return f"LOCKED: {store.locked}"
    if not store.available:
        return "not available"
    if store.compared < store.to_compare:
        return f"available; verified {store.compared} of {store.to_compare} keys"
    when = f" at {instant(store.compared_at)}" if store.compared_at else ""
    return f"available; verified all keys{when}" if when else "available"


def _schedules(found: ScheduleStatus) -> list[tuple[str, str]]:
    """Return scheduled rotations and destructions, and the state of the clock."""
    rotations = f"{found.rotations_due} of {found.rotating} keys due"
    ends = f"{found.destructions} pending, {found.destructions_due} due"
    held = f"; ON HOLD: {found.held}, because the clock jumped" if found.held else ""
    leapt = f"ignored {found.left_out_seconds} s of clock jumps"
    return [
        ("rotation", rotations if found.rotating else ""),
        ("destruction", f"{ends}{held}" if found.destructions else ""),
        ("clock", leapt if found.left_out_seconds else ""),
    ]


def _cluster(found: ClusterStatus) -> list[tuple[str, str]]:
    """Return what concerns a node of a cluster; nothing on a single machine."""
    if not found.node:
        return []
    standby = (
        "yes"
        if found.has_standby
        else "NONE: a failover can lose acknowledged changes; the HSM then locks"
    )
    differ = "; POLICIES DIFFER" if found.policies > 1 else ""
    ahead = found.clock_difference_seconds
    apart = f"{ahead:+.1f} s compared with the database's" if abs(ahead) > 1 else ""
    return [
        ("node", found.node if found.decides else f"{found.node}: NOT SERVING"),
        ("live nodes", f"{found.nodes_live}{differ}"),
        ("revision", f"{found.revision}, read {found.feed_lag_seconds:.1f} s ago"),
        ("synchronous standby", standby),
        ("node's clock", apart),
    ]


def _audit(trail: AuditStatus) -> str:
    happened = (
        f"; failed {trail.failures} times, recovered {trail.resumes} times"
        if trail.failures
        else ""
    )
    if trail.state == "ok" and trail.available:
        return f"available{happened}"
    if trail.state == "reserve":
        return f"DISK FULL: accepts administrative records only{happened}"
    return f"NOT AVAILABLE ({trail.cause or 'closed'}){happened}"


def _providers(status: HSMStatus) -> list[tuple[str, str]]:
    """Return each provider with its version and its number of algorithms."""
    served = Counter(
        (row.provider, row.provider_version)
        for row in status.algorithms
        if row.provider
    )
    return [
        (f"provider {name}", f"{version}; algorithms: {count}")
        for (name, version), count in served.items()
    ]


def _algorithm(row: AlgorithmStatus) -> tuple[str, str]:
    if row.hint:
        return row.algorithm, f"{row.status}: {row.hint}"
    return row.algorithm, f"{row.status} ({row.provider})"


_SELFTEST_SECONDS: Final = 60.0
"""Signing once with every SLH-DSA parameter set takes 4 to 11 s on an idle machine."""


@click.command("selftest", cls=HSMCommand)
@click.pass_obj
def selftest(invocation: Invocation) -> None:
    """
    Run all self-tests now. Takes up to a minute.

    Exit code 8: an algorithm failed and is disabled (its row says FAILED), or the HSM
    ran no self-tests, because it is shutting down or others are running already.
    """
    invocation.raise_timeout(_SELFTEST_SECONDS)
    report = invocation.execute(SelfTest())
    invocation.output.table(
        report,
        report.results,
        (
            Column("Algorithm", lambda row: row.algorithm),
            Column("Provider", lambda row: row.provider),
            Column("Result", lambda row: "passed" if row.passed else "FAILED"),
            Column("Reason", lambda row: row.reason),
        ),
    )
    if not report.passed:
        failed = [row.algorithm for row in report.results if not row.passed]
        raise SelfTestFailedError(f"Self-tests failed: {', '.join(failed)}.")


_COLUMNS: Final = (
    Column("Algorithm", lambda row: row.algorithm),
    Column("Category", lambda row: str(row.category or "")),
    Column("Standard", None, lambda row: row.standard),
    Column("Public", None, lambda row: str(row.public_key_bytes or "")),
    Column("Private", None, lambda row: str(row.private_key_bytes or "")),
    Column("Signature", None, lambda row: str(row.signature_bytes or "")),
    Column("Ciphertext", None, lambda row: str(row.ciphertext_bytes or "")),
    Column("Usages", None, lambda row: words(row.usages)),
    Column("Provider", lambda row: row.provider),
    Column("Version", None, lambda row: row.provider_version),
    Column(
        "Status", lambda row: f"{row.status}: {row.hint}" if row.hint else row.status
    ),
)
"""Columns of a table of `AlgorithmInfo`; sizes are in bytes."""

_OFFLINE_COLUMNS: Final = (
    Column("Algorithm", lambda row: row.algorithm),
    Column("Category", lambda row: str(row.category or "")),
    Column("Standard", None, lambda row: row.standard),
    Column("Usages", None, lambda row: words(row.usages)),
    Column("Aliases", lambda row: words(row.aliases)),
)


class AlgorithmRow(Record, frozen=True, kw_only=True):
    """Algorithm in the JSON output of ``--offline``."""

    algorithm: Algorithm
    family: str
    standard: str
    category: int
    strength_bits: int
    usages: tuple[KeyUsage, ...]
    default_usages: tuple[KeyUsage, ...]
    aliases: tuple[str, ...]


class AlgorithmTable(Record, frozen=True, kw_only=True):
    """List of algorithms in the JSON output of ``--offline``."""

    items: tuple[AlgorithmRow, ...]


@click.command("algorithms", cls=HSMCommand)
@click.option(
    "--family",
    type=choice(Family),
    metavar="NAME",
    help="Only this family, such as ML-KEM.",
)
@click.option(
    "--available", is_flag=True, help="Only algorithms that are available now."
)
@click.option(
    "--offline",
    is_flag=True,
    help="List the algorithms known to this client, with aliases, without a server.",
)
@click.pass_obj
def algorithms(
    invocation: Invocation, family: Family | None, available: bool, offline: bool
) -> None:
    """List algorithms with provider and availability, or what to install for them."""
    if offline and available:
        raise click.UsageError("--available and --offline are mutually exclusive.")
    if offline:
        _show_table(invocation, family)
        return
    found = invocation.execute(ListAlgorithms())
    items = tuple(
        item
        for item in found.items
        if (family is None or item.family == family)
        and (not available or item.status == _AVAILABLE)
    )
    invocation.output.table(
        AlgorithmList(items=items),
        items,
        _COLUMNS,
        "--format wide adds standards, usages and sizes in bytes.",
    )


def _show_table(invocation: Invocation, family: Family | None) -> None:
    rows = [
        _offline_row(spec)
        for spec in ALGORITHMS.values()
        if family in {None, spec.family}
    ]
    invocation.output.table(AlgorithmTable(items=tuple(rows)), rows, _OFFLINE_COLUMNS)


def _offline_row(spec: AlgorithmSpec) -> AlgorithmRow:
    return AlgorithmRow(
        algorithm=spec.algorithm,
        family=spec.family,
        standard=spec.standard,
        category=spec.category,
        strength_bits=spec.strength_bits,
        usages=_ordered(spec.usages),
        default_usages=_ordered(spec.default_usages),
        aliases=tuple(dict.fromkeys(spec.aliases)),
    )


def _ordered(usages: frozenset[KeyUsage]) -> tuple[KeyUsage, ...]:
    return tuple(usage for usage in KeyUsage if usage in usages)


@click.command("random", cls=HSMCommand)
@click.argument("length", type=click.IntRange(1, 1_048_576))
@click.option(
    "--format",
    "form",
    type=click.Choice(["base64", "hex"]),
    default="base64",
    show_default=True,
    help="Output format.",
)
@out_option
@click.pass_obj
def random_bytes(
    invocation: Invocation, length: int, form: str, out: str | None
) -> None:
    """Generate LENGTH random bytes, 1 to 1048576."""
    found = invocation.execute(GenerateRandom(length=length))
    data = found.random
    text = encode_base64(data) if form == "base64" else data.hex()
    deliver(invocation.output, found, data, out, private=True, text=text)
