# SPDX-License-Identifier: MIT
"""OpenAPI parameters: path and query fields, and headers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from hsm_core.operations import DescribeKey, Effect
from hsm_core.rest import APPROVAL_HEADER, Route, path_fields
from hsm_server.api.openapi.examples import EXAMPLES
from hsm_server.api.openapi.schemas import Schema
from hsm_server.http.conditions import takes_condition

_EVENT_ID: Final[Schema] = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": (
        "Resume a live view after the event with this ID. Overrides start_seq."
    ),
    "schema": {"type": "string", "pattern": "^(0|[1-9][0-9]{0,15})$"},
}
_APPROVAL: Final[Schema] = {
    "name": APPROVAL_HEADER,
    "in": "header",
    "description": "ID of a granted approval. By default the server finds it.",
    "schema": {"type": "string", "format": "uuid"},
}
_IDEMPOTENCY_KEY: Final[Schema] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": (
        "Idempotency key. Repeating it with the same request returns the same "
        "response without executing again; with another request it is a conflict."
    ),
    "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
}
_IF_MATCH: Final[Schema] = {
    "name": "If-Match",
    "in": "header",
    "description": (
        "Execute only if the key is at this generation: an ETag of the key, or its "
        "generation in quotes."
    ),
    "schema": {
        "type": "string",
        "pattern": '^("[1-9][0-9]{0,14}(-[0-9a-f]{32})?"|[*])$',
    },
}
_IF_NONE_MATCH: Final[Schema] = {
    "name": "If-None-Match",
    "in": "header",
    "description": (
        "Comma-separated ETags that the client already has, or *. Other values are "
        "ignored."
    ),
    "schema": {"type": "string"},
}


def parameters_of(route: Route, schema: Schema) -> list[Schema]:
    """Return the parameters of a route, whose operation has this schema."""
    return [*_path(route, schema), *_query(route, schema), *_headers(route)]


def _path(route: Route, schema: Schema) -> Iterator[Schema]:
    for name in path_fields(route.path):
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "schema": schema["properties"][name],
            "example": EXAMPLES[route.operation][name],
        }


def _query(route: Route, schema: Schema) -> Iterator[Schema]:
    if route.has_body:
        return
    elsewhere = {"type", *path_fields(route.path)}
    example = EXAMPLES[route.operation]
    for name, field in schema["properties"].items():
        if name not in elsewhere:
            yield _query_parameter(name, field, example)


def _headers(route: Route) -> Iterator[Schema]:
    if route.events:
        yield _EVENT_ID
    if route.operation.effect is not Effect.CONSENT:
        yield _APPROVAL
    if route.operation.effect is Effect.MUTATION:
        yield _IDEMPOTENCY_KEY
    if takes_condition(route):
        yield _IF_MATCH
    if route.operation is DescribeKey:
        yield _IF_NONE_MATCH


def _query_parameter(name: str, field: Schema, example: Schema) -> Schema:
    field = dict(field)
    description = field.pop("description", "")
    if "anyOf" in field:
        # A query has no null; leaving the parameter out says the same.
        (kind,) = (k for k in field["anyOf"] if k != {"type": "null"})
        field = dict(kind)
    found: Schema = {"name": name, "in": "query", "schema": field}
    if description:
        found["description"] = description
    if field.get("type") == "array":
        found |= {"style": "form", "explode": False}
    if name in example:
        found["example"] = example[name]
    return found
