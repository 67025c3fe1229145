# SPDX-License-Identifier: MIT
"""The command ``algorithms``."""

from __future__ import annotations

import click

from hsm_cli.invocation import Invocation
from hsm_cli.options import HSMCommand
from hsm_cli.views import words
from hsm_core.algorithms import ALGORITHMS, Algorithm, AlgorithmSpec, KeyUsage
from hsm_core.model import Record

__all__ = ["command"]


class AlgorithmRow(Record, frozen=True, kw_only=True):
    """One algorithm, as JSON shows it."""

    algorithm: Algorithm
    family: str
    standard: str
    strength_bits: int
    usages: tuple[KeyUsage, ...]
    default_usages: tuple[KeyUsage, ...]
    aliases: tuple[str, ...]


class AlgorithmTable(Record, frozen=True, kw_only=True):
    """All algorithms."""

    items: tuple[AlgorithmRow, ...]


@click.command("algorithms", cls=HSMCommand)
@click.pass_obj
def command(invocation: Invocation) -> None:
    """Show the algorithms that keys can have. Asks no server."""
    rows = [_row(spec) for spec in ALGORITHMS.values()]
    invocation.output.table(
        AlgorithmTable(items=tuple(rows)),
        ("Algorithm", "Standard", "Strength", "Usages", "Also written"),
        [
            (
                row.algorithm,
                row.standard,
                f"{row.strength_bits} bits",
                words(row.usages),
                words(row.aliases),
            )
            for row in rows
        ],
    )


def _row(spec: AlgorithmSpec) -> AlgorithmRow:
    return AlgorithmRow(
        algorithm=spec.algorithm,
        family=spec.family,
        standard=spec.standard,
        strength_bits=spec.strength_bits,
        usages=_ordered(spec.usages),
        default_usages=_ordered(spec.default_usages),
        aliases=tuple(dict.fromkeys(spec.aliases)),
    )


def _ordered(usages: frozenset[KeyUsage]) -> tuple[KeyUsage, ...]:
    return tuple(usage for usage in KeyUsage if usage in usages)
