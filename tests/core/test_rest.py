# SPDX-License-Identifier: MIT
"""Routes: unambiguous, and true to the operations."""

from __future__ import annotations

import string
from typing import Any

import msgspec
import pytest

from hsm_core.operations import OPERATIONS, Effect, Operation, result_type


def test_no_two_routes_are_the_same() -> None:
    """Method and path, whatever the parameters are called, name one route."""
    shapes = {
        (
            route.method,
            "/".join("{}" if p[:1] == "{" else p for p in route.path.split("/")),
        )
        for route in (kind.route for kind in OPERATIONS)
    }

    assert len(OPERATIONS) == len(shapes)


@pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.__name__)
def test_a_route_is_true(kind: type[Operation[Any]]) -> None:
    """Its fields exist, and its method fits what the operation does."""
    route = kind.route
    fields = {field.name for field in msgspec.structs.fields(kind)}
    result = {f.name for f in msgspec.structs.fields(result_type(kind))}
    located = {name for _, name, *_ in string.Formatter().parse(route.location) if name}

    assert set(route.path_fields) <= fields
    assert located <= result
    assert {route.raw_request} - {""} <= fields
    assert {route.raw_response} - {""} <= result
    assert not route.events or {"follow", "start_seq"} <= fields
    assert (route.method == "GET") == (
        kind.effect is not Effect.MUTATION and not route.has_body
    )
