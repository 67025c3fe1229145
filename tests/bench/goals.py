# SPDX-License-Identifier: MIT
"""The goals P1 to P18, and what measures each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.bench.figures import Finding
from tests.bench.rig import Rig
from tests.bench.rows import (
    batches,
    cluster,
    cold,
    commands,
    durable,
    encryption,
    growth,
    https,
    many_keys,
    post_quantum,
    programs,
    signing,
    trail,
)


@dataclass(frozen=True)
class Goal:
    """One row: its number, what it is about, and how it is measured."""

    number: str
    about: str
    measure: Callable[[Rig], list[Finding]]


GOALS: Final = (
    Goal("P1", "P-256 signatures", signing.p256),
    Goal("P2", "Ed25519 signatures", signing.ed25519),
    Goal("P3", "RSA signatures", signing.rsa),
    Goal("P4", "small encryptions", encryption.small),
    Goal("P5", "large encryptions", encryption.large),
    Goal("P6", "batches", batches.hundred),
    Goal("P7", "audit trail", trail.records),
    Goal("P8", "durable records of use", durable.strict),
    Goal("P9", "durable keys", durable.new_keys),
    Goal("P10", "cold keys", cold.rsa),
    Goal("P11", "many keys", many_keys.listings),
    Goal("P12", "HTTPS", https.requests),
    Goal("P13", "ML-DSA and ML-KEM", post_quantum.lattices),
    Goal("P14", "SLH-DSA", post_quantum.slh_dsa),
    Goal("P15", "starts", commands.starts),
    Goal("P16", "cost as an HSM grows", growth.flatness),
    Goal("P17", "PKCS#11", programs.pkcs11),
    Goal("P18", "nodes on one database", cluster.nodes),
)


def chosen(numbers: list[str]) -> tuple[Goal, ...]:
    """
    Return the goals of these numbers in their order, or all.

    Raises:
        ValueError: There is no such goal.
    """
    known = {goal.number: goal for goal in GOALS}
    unknown = [number for number in numbers if number not in known]
    if unknown:
        raise ValueError(f"There is no goal {', '.join(unknown)}.")
    return tuple(goal for goal in GOALS if not numbers or goal.number in numbers)
