# SPDX-License-Identifier: MIT
"""Keys that are not in memory yet: P10."""

from __future__ import annotations

import itertools

import msgspec

from hsm_core.algorithms import Algorithm
from tests.bench.figures import Finding, at_most
from tests.bench.harness import interleave, repeated
from tests.bench.peers import raw
from tests.bench.rig import Rig, told


def rsa(rig: Rig) -> list[Finding]:
    """Return what the first signature of an RSA key costs, beside a later one."""
    settings = msgspec.structs.replace(rig.settings_in("cold"), key_cache_entries=1)
    session = rig.open(settings)
    pair = [session.create_key(Algorithm.RSA_2048).key_id for _ in range(2)]
    turns = itertools.cycle(pair)  # There is room for one: each finds the other there.
    took = interleave(
        {
            "cold": repeated(lambda: session.sign(next(turns), raw.MESSAGE)),
            "warm": repeated(lambda: session.sign(pair[0], raw.MESSAGE)),
        }
    )
    cold, warm = took["cold"], took["warm"]
    return [
        at_most(2.2, "RSA-2048 cold ÷ warm", cold / warm, note=told(took)),
        at_most(1, "unseal and load of an RSA-2048 key", 1e3 * (cold - warm), "ms"),
    ]
