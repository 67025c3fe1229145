# SPDX-License-Identifier: MIT
"""
Node of a cluster that makes random calls; run by `cluster_histories` as a process.

Arguments: URL of the database, name of the node, folder of its mark. Each line of input
is a JSON object: the keys, the seed, how many calls each thread makes, and how many
threads. Each line of output is one, too: ``begin`` of a call, its ``end``, or ``done``.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hsm_core import operations as ops
from hsm_core.errors import ConflictError, HSMError, KeyStateError
from hsm_core.factory import OpenHSM, open_hsm
from hsm_core.settings import Settings
from hsm_core.testing import caller
from tests.core.linearizability import UNKNOWN
from tests.faults import cluster_faults

_KINDS = ("sign", "sign", "sign", "rotate", "suspend", "resume", "resume")
_USES = ("sign",) * 30 + ("rotate", "suspend", "resume", "resume")
"""What a node does that learns of changes late: who changes keys learns of them."""


def _say(**facts: Any) -> None:
    os.write(1, json.dumps(facts).encode() + b"\n")


def _call(hsm: OpenHSM, kind: str, key_id: str) -> str:
    """Make a call, and return its answer."""
    act = hsm.act_as(caller())
    try:
        if kind == "sign":
            return str(act.execute(ops.Sign(key_id=key_id, message=b"m")).version)
        if kind == "rotate":
            act.execute(ops.RotateKey(key_id=key_id))
        elif kind == "suspend":
            act.execute(ops.SuspendKey(key_id=key_id, reason="test"))
        else:
            act.execute(ops.ResumeKey(key_id=key_id))
    except KeyStateError:
        return "refused"
    except ConflictError as error:
        return f"none: {error.code}"
    except HSMError as error:
        sys.stderr.write(f"{kind}: {error.code}: {error}\n")
        return UNKNOWN
    return "ok"


def _live(
    hsm: OpenHSM, kinds: Sequence[str], seed: str, keys: list[str], count: int
) -> None:
    choice = random.Random(seed)
    for number in range(count):
        kind, key_id = choice.choice(kinds), choice.choice(keys)
        name = f"{seed}/{number}"
        _say(begin=name, kind=kind, key=key_id, at=time.monotonic())
        answer = _call(hsm, kind, key_id)
        _say(end=name, answer=answer, at=time.monotonic())
        time.sleep(choice.random() * 0.004)


def main(arguments: list[str]) -> None:
    """Be a node until the input ends."""
    url, name, folder, *protections = arguments
    for protection in protections:
        cluster_faults.switch_off(protection)
    settings = Settings(store=url, node_name=name, node_mark=Path(folder) / name)
    hsm = open_hsm(settings, master_key=bytes(32), hmac_key=bytes(32), test_all=False)
    _say(open=name)
    kinds = _USES if "feed" in protections else _KINDS
    for line in sys.stdin:
        given = json.loads(line)
        if "create" in given:
            create = ops.CreateKey(algorithm="Ed25519")
            made = [
                hsm.act_as(caller()).execute(create).key_id
                for _ in range(given["create"])
            ]
            _say(created=made)
            continue
        threads = [
            threading.Thread(
                target=_live,
                args=(
                    hsm,
                    kinds,
                    f"{given['seed']}/{name}/{n}",
                    given["keys"],
                    given["calls"],
                ),
            )
            for n in range(given["threads"])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        _say(done=given["seed"])
    hsm.close()
    _say(closed=name)


if __name__ == "__main__":
    main(sys.argv[1:])
