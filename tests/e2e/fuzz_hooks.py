# SPDX-License-Identifier: MIT
"""
What schemathesis is told about the server: tokens, real keys, valid bodies.

Loaded by schemathesis itself. ``FUZZ_STATE`` names a JSON file with tokens and seeds,
``FUZZ_COUNTS`` the file that gets the answers: counted by operation and status, and by
phase, and which took longest.
"""

import atexit
import json
import os
import random
import threading
from collections import Counter
from pathlib import Path
from typing import Any, Final

import schemathesis
from schemathesis.core.parameters import ParameterLocation

from tests.e2e.fuzz_seeds import choose

__all__ = ["RoleTokens", "count_answer", "use_seeds", "write_counts"]

_STATE: Final[dict[str, Any]] = json.loads(Path(os.environ["FUZZ_STATE"]).read_text())
_COUNTS: Final[Counter[str]] = Counter()
_PHASES: Final[Counter[str]] = Counter()
_SLOWEST: Final[dict[str, float]] = {}
_LOCK: Final = threading.Lock()
_CHANCE: Final = random.Random(_STATE["seed"])
_REAL_KEY: Final = 0.7
_REAL_BODY: Final = 0.3
_EVERYTHING: Final = 0.7


@schemathesis.auth(refresh_interval=None)
class RoleTokens:
    """Most requests come from somebody who may do everything, some from others."""

    def get(self, case: schemathesis.Case[Any], context: Any) -> str:
        """Return a token."""
        tokens: list[str] = _STATE["tokens"]
        if _CHANCE.random() < _EVERYTHING:
            return tokens[0]
        return _CHANCE.choice(tokens[1:])

    def set(self, case: schemathesis.Case[Any], data: str, context: Any) -> None:
        """Put it where the server looks for it."""
        case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.hook("before_call")
def use_seeds(
    context: Any, case: schemathesis.Case[Any], kwargs: dict[str, Any]
) -> None:
    """Put a real key, and now and then a valid body, where one is generated."""
    name = _operation(case)
    meta = case.meta
    if name in _STATE["seeds"]["keyless"]:
        if _takes_seed(case):
            case.body = dict(_CHANCE.choice(_STATE["seeds"]["keyless"][name]))
        return
    if name not in _STATE["seeds"]["keys"] or meta is None:
        return
    # What is put to rest serves nobody; so it is never a key that others need.
    real = 1.0 if name == "SuspendKey" else _REAL_KEY
    if meta.is_negative_at(ParameterLocation.PATH) or _CHANCE.random() > real:
        return
    with _LOCK:
        key, body = choose(_STATE["seeds"], name, _CHANCE)
    is_approval = "{approval_id}" in case.operation.path
    case.path_parameters["approval_id" if is_approval else "key_id"] = key
    # A digest that is made up is never that of what was asked for.
    if body is not None and _takes_seed(case, 0.8 if is_approval else _REAL_BODY):
        case.body = dict(body)


def _takes_seed(case: schemathesis.Case[Any], chance: float = _REAL_BODY) -> bool:
    """Whether a generated body, meant to be good, gives way to a valid one."""
    return (
        case.media_type == "application/json"
        and case.meta is not None
        and not case.meta.is_negative_at(ParameterLocation.BODY)
        and _CHANCE.random() < chance
    )


@schemathesis.hook("after_call")
def count_answer(context: Any, case: schemathesis.Case[Any], response: Any) -> None:
    """Count an answer, and note how long it took."""
    name = _operation(case)
    with _LOCK:
        _COUNTS[f"{name} {response.status_code}"] += 1
        _PHASES[_phase(case)] += 1
        _SLOWEST[name] = max(_SLOWEST.get(name, 0.0), response.elapsed)


def write_counts() -> None:
    """Write down what was counted."""
    found = {"answers": _COUNTS, "phases": _PHASES, "slowest": _SLOWEST}
    Path(os.environ["FUZZ_COUNTS"]).write_text(json.dumps(found))


def _phase(case: schemathesis.Case[Any]) -> str:
    return str(case.meta.phase.name) if case.meta is not None else "none"


def _operation(case: schemathesis.Case[Any]) -> str:
    return str(case.operation.definition.raw.get("operationId", case.path))


atexit.register(write_counts)
