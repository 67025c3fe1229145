# SPDX-License-Identifier: MIT
"""The REST table: whole, unambiguous, and true to the operations."""

from __future__ import annotations

import string

import msgspec
import pytest

from hsm_core import rest
from hsm_core.operations import OPERATIONS, Effect, result_type


def test_every_operation_has_one_row() -> None:
    """Each operation can be reached, in one way."""
    assert sorted(op.__name__ for op in OPERATIONS) == sorted(
        route.operation.__name__ for route in rest.ROUTES
    )


def test_no_two_rows_are_the_same() -> None:
    """Method and path, whatever the parameters are called, name one row."""
    shapes = {
        (
            route.method,
            "/".join("{}" if p[:1] == "{" else p for p in route.path.split("/")),
        )
        for route in rest.ROUTES
    }

    assert len(rest.ROUTES) == len(shapes)


@pytest.mark.parametrize("route", rest.ROUTES, ids=lambda r: r.operation.__name__)
def test_a_row_is_true(route: rest.Route) -> None:
    """Its fields exist, and its method fits what the operation does."""
    fields = {field.name for field in msgspec.structs.fields(route.operation)}
    result = {f.name for f in msgspec.structs.fields(result_type(route.operation))}
    located = {name for _, name, *_ in string.Formatter().parse(route.location) if name}

    assert set(rest.path_fields(route.path)) <= fields
    assert located <= result
    assert {route.raw_request} - {""} <= fields
    assert {route.raw_response} - {""} <= result
    assert not route.events or {"follow", "start_seq"} <= fields
    assert (route.method == "GET") == (
        route.operation.effect is not Effect.MUTATION and not route.has_body
    )
