# SPDX-License-Identifier: MIT
"""The command ``algorithms``."""

from __future__ import annotations

import click

from hsm_cli.actions.options import HSMCommand
from hsm_cli.invocation import Invocation
from hsm_cli.io.views import words
from hsm_cli.options.parameter_types import choice
from hsm_core.algorithms import ALGORITHMS, Algorithm, AlgorithmSpec, Family, KeyUsage
from hsm_core.model import Record
from hsm_core.operations import AlgorithmInfo, AlgorithmList, ListAlgorithms

_HEADER = (
    "Algorithm",
    "Standard",
    "Category",
    "Public",
    "Private",
    "Signature",
    "Ciphertext",
    "Usages",
    "Provider",
    "Version",
    "Status",
)
"""Sizes are in bytes."""

_LEAST_COLUMNS = 180
"""Narrowest terminal for a table of so many columns."""


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
def command(
    invocation: Invocation, family: Family | None, available: bool, offline: bool
) -> None:
    """List algorithms, their providers and availability, or what to install."""
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
        and (not available or item.status == "available")
    )
    invocation.output.table(
        AlgorithmList(items=items),
        _HEADER,
        list(map(_cells, items)),
        least_columns=_LEAST_COLUMNS,
    )


def _cells(item: AlgorithmInfo) -> tuple[str, ...]:
    return (
        item.algorithm,
        item.standard,
        str(item.category or ""),
        str(item.public_key_bytes or ""),
        str(item.private_key_bytes or ""),
        str(item.signature_bytes or ""),
        str(item.ciphertext_bytes or ""),
        words(item.usages),
        item.provider,
        item.provider_version,
        f"{item.status}: {item.hint}" if item.hint else item.status,
    )


def _show_table(invocation: Invocation, family: Family | None) -> None:
    rows = [_row(spec) for spec in ALGORITHMS.values() if family in {None, spec.family}]
    invocation.output.table(
        AlgorithmTable(items=tuple(rows)),
        ("Algorithm", "Standard", "Category", "Usages", "Aliases"),
        [
            (
                row.algorithm,
                row.standard,
                str(row.category or ""),
                words(row.usages),
                words(row.aliases),
            )
            for row in rows
        ],
        least_columns=_LEAST_COLUMNS,
    )


def _row(spec: AlgorithmSpec) -> AlgorithmRow:
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
