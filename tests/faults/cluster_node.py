# SPDX-License-Identifier: MIT
"""
Node of a cluster that makes random calls; a process that `cluster_histories` forks.

What it is given names the keys, the seed, how many calls each thread makes, and changes
that are asked of other nodes, too. It writes lines of JSON: ``begin`` of a call, its
``end``, or ``done``.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from hsm_core import operations as ops
from hsm_core.errors import HSMError, KeyStateError, OutcomeUnknownError
from hsm_core.factory import OpenHSM, open_hsm
from hsm_core.settings import Settings
from hsm_core.testing import caller
from tests.core.linearizability import UNKNOWN
from tests.faults import cluster_faults

CHANGES: Final = ("rotate", "suspend", "resume", "resume")
_KINDS = ("sign", "sign", "sign", *CHANGES)
_USES = ("sign",) * 30 + CHANGES
"""What a node does that learns of changes late: who changes keys learns of them."""

_REPEATED: Final = 0.1
"""Share of calls that are a change which other nodes are asked for, too."""


class Node:
    """
    A node at work.

    Args:
        hsm: The HSM.

        output: Where lines are written.
    """

    def __init__(self, hsm: OpenHSM, output: int) -> None:
        self._hsm = hsm
        self._output = output

    def say(self, **facts: Any) -> None:
        """Write a line, in one write."""
        os.write(self._output, json.dumps(facts).encode() + b"\n")

    def create(self, count: int) -> None:
        """Create keys, or end if the HSM is locked."""
        create = ops.CreateKey(algorithm="Ed25519")
        act = self._hsm.act_as(caller())
        self.say(created=[act.execute(create).key_id for _ in range(count)])

    def live(self, kinds: Sequence[str], seed: str, given: dict[str, Any]) -> None:
        """Make as many calls as were asked for."""
        choice = random.Random(seed)
        for number in range(given["calls"]):
            kind, key_id = choice.choice(kinds), choice.choice(given["keys"])
            name = repeated = f"{seed}/{number}"
            if given["repeated"] and choice.random() < _REPEATED:
                repeated, kind, key_id = choice.choice(given["repeated"])
            at = time.monotonic()
            self.say(begin=name, once=repeated, kind=kind, key=key_id, at=at)
            answer = self._call(kind, key_id, repeated)
            self.say(end=name, answer=answer, at=time.monotonic())
            time.sleep(choice.random() * 0.004)

    def _call(self, kind: str, key_id: str, once: str) -> str:
        """Make a call, and return its answer."""
        act = self._hsm.act_as(caller())
        try:
            if kind == "sign":
                return str(act.execute(ops.Sign(key_id=key_id, message=b"m")).version)
            change: Any = ops.ResumeKey(key_id=key_id)
            if kind == "rotate":
                change = ops.RotateKey(key_id=key_id)
            elif kind == "suspend":
                change = ops.SuspendKey(key_id=key_id, reason="test")
            act.execute(change, idempotency_key=once)
        except KeyStateError:
            return "refused"
        except HSMError as error:
            sys.stderr.write(f"{kind}: {error.code}: {error}\n")
            # Every other error promises that nothing was done.
            is_unknown = isinstance(error, OutcomeUnknownError)
            return UNKNOWN if is_unknown else f"none: {error.code}"
        return "ok"


def main(
    lines: Connection,
    output: Connection,
    url: str,
    name: str,
    folder: Path,
    protections: Sequence[str],
) -> None:
    """Be a node until the input ends."""
    sys.stderr = (folder / f"{name}.err").open("w", encoding="utf-8", buffering=1)
    for protection in protections:
        cluster_faults.switch_off(protection)
    settings = Settings(store=url, node_name=name, node_mark=folder / name)
    hsm = open_hsm(settings, master_key=bytes(32), hmac_key=bytes(32), test_all=False)
    node = Node(hsm, output.fileno())
    node.say(open=name)
    kinds = _USES if "feed" in protections else _KINDS
    with contextlib.suppress(EOFError, HSMError):
        while True:
            given = lines.recv()
            if "create" in given:
                node.create(given["create"])
                continue
            threads = [
                threading.Thread(
                    target=node.live, args=(kinds, f"{given['seed']}/{name}/{n}", given)
                )
                for n in range(given["threads"])
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            node.say(done=given["seed"])
    with contextlib.suppress(HSMError):
        hsm.close()
