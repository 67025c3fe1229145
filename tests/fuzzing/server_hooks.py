# SPDX-License-Identifier: MIT
"""
Hooks of schemathesis: tokens, existing keys, valid bodies, counts of responses.

Loaded by schemathesis itself. ``FUZZ_STATE`` names a JSON file with tokens and seeds,
``FUZZ_COUNTS`` the file for the responses: counts by operation and status, counts by
phase, and the slowest.
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

from tests.fuzzing.server_seeds import FRESH, GIVEN, choose

_STATE: Final[dict[str, Any]] = json.loads(Path(os.environ["FUZZ_STATE"]).read_text())
_COUNTS: Final[Counter[str]] = Counter()
_PHASES: Final[Counter[str]] = Counter()
_SLOWEST: Final[dict[str, float]] = {}
_REACHED: Final[Counter[str]] = Counter()
_SEEN: Final[set[str]] = set()
"""Ids that an answer has told, so that a link may have led to them."""
_LOCK: Final = threading.Lock()
_CHANCE: Final = random.Random(_STATE["seed"])
_REAL_KEY: Final = 0.7
_REAL_BODY: Final = 0.3
_EVERYTHING: Final = 0.7
_FITTING: Final = 0.9
_SLOW: Final = "SelfTest"
_ENOUGH: Final = 3
"""
How often what takes seconds is done, whatever the request says.

Afterwards somebody asks who may not.
"""
_UNMET: Final = ("FerroHSM-Approval", "If-Match", "Idempotency-Key")
"""Headers that, made up, name what is not there."""


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


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: dict[str, Any]) -> None:
    """
    Leave one operation whose 202 has links.

    What has links and is a POST is taken for a beginning; were that everything, hardly
    a step would follow a link.
    """
    for item in raw_schema["paths"].values():
        for operation in item.values():
            if operation["operationId"] != "DestroyKey":
                operation["responses"].get("202", {}).pop("links", None)


@schemathesis.hook
def filter_query(context: Any, query: Any) -> bool:
    """Leave out lists of one empty text: in a query that is an empty list."""
    return not query or query.get("tags") not in ("", [""])


@schemathesis.hook("before_call")
def use_seeds(
    context: Any, case: schemathesis.Case[Any], kwargs: dict[str, Any]
) -> None:
    """Put a real key, and now and then a valid body, where one is generated."""
    name = _operation(case)
    meta = case.meta
    if name == _SLOW and _COUNTS[f"{_SLOW} 200"] >= _ENOUGH:
        _let_nobody_ask(case)
    if _is_stateful(case) and _CHANCE.random() < _FITTING:
        for header in _UNMET:
            case.headers.pop(header, None)
        if _follows(case):
            _fit(case, name)
            return
    if name in _STATE["seeds"]["keyless"]:
        if _takes_seed(case, _FITTING if _is_stateful(case) else _REAL_BODY):
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


def _let_nobody_ask(case: schemathesis.Case[Any]) -> None:
    """Take a request from who may ask to who may not; leave alone a false token."""
    tokens: list[str] = _STATE["tokens"]
    if case.headers.get("Authorization", "").removeprefix("Bearer ") in tokens:
        case.headers["Authorization"] = f"Bearer {tokens[-1]}"


def _is_stateful(case: schemathesis.Case[Any]) -> bool:
    """Whether it is a step of a way along links, and not meant to be refused."""
    return (
        case.meta is not None
        and _phase(case) == "stateful"
        and not case.meta.generation.mode.is_negative
    )


def _follows(case: schemathesis.Case[Any]) -> bool:
    """Whether a link has led to the key or approval that it is about."""
    return bool(_SEEN.intersection(map(str, case.path_parameters.values())))


def _fit(case: schemathesis.Case[Any], name: str) -> None:
    """Take from a body, or put into it, what keeps it from being done."""
    if name in FRESH:
        case.body = dict(FRESH[name])
    elif name in GIVEN and isinstance(case.body, dict):
        case.body = {k: case.body[k] for k in GIVEN[name] if k in case.body}


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
        if _is_stateful(case):
            if response.status_code in {200, 201} and _follows(case):
                _REACHED[name] += 1
            _learn(response)


def _learn(response: Any) -> None:
    """Note the ids of keys and approvals that an answer holds."""
    try:
        told = response.json()
    except ValueError:
        return
    for item in [told, *told.get("items", [])] if isinstance(told, dict) else []:
        if isinstance(item, dict):
            _SEEN.update(str(item[k]) for k in ("key_id", "approval_id") if k in item)


def write_counts() -> None:
    """Write down what was counted."""
    found = {"answers": _COUNTS, "phases": _PHASES, "slowest": _SLOWEST}
    found["reached"] = _REACHED
    Path(os.environ["FUZZ_COUNTS"]).write_text(json.dumps(found))


def _phase(case: schemathesis.Case[Any]) -> str:
    return str(case.meta.phase.name) if case.meta is not None else "none"


def _operation(case: schemathesis.Case[Any]) -> str:
    return str(case.operation.definition.raw.get("operationId", case.path))


atexit.register(write_counts)
