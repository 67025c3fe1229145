# SPDX-License-Identifier: MIT
"""OpenAPI schemas and parameters of the API's types."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from hsm_core.algorithms import Algorithm
from hsm_core.operations import DescribeKey, Effect, Operation, Route
from hsm_core.rest import APPROVAL_HEADER, INTERFACE_HEADER, REVISION_HEADER
from hsm_server.config.settings import HTTPLimits
from hsm_server.http.requests import takes_condition

Schema = dict[str, Any]

_BASE64: Final = (
    "^(?:[A-Za-z0-9+/]{4})*"
    "(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$"
)
"""Base64 in its one canonical form: RFC 4648, section 3.5, with padding."""

_ATTRIBUTE: Final = re.compile(r"^    (\w+): (.*)$")
_ALGORITHM_FIELDS: Final = ("CreateKey", "DeriveKey", "ImportKey", "ListKeys")
_PAYLOADS: Final = ("message", "digest", "mu")
"""Of which an operation has exactly one, where it has more than the first."""


def component_schemas(types: Iterable[type]) -> dict[str, Schema]:
    """Return the schemas of *types* and of all that they hold, by name."""
    _, found = msgspec.json.schema_components(
        list(types), ref_template="#/components/schemas/{name}"
    )
    schemas: dict[str, Schema] = {
        name: _portable(schema) for name, schema in sorted(found.items())
    }
    for schema in schemas.values():
        _spread_docstring(schema)
    for name in _ALGORITHM_FIELDS:
        if name in schemas:
            _name_algorithms(schemas[name]["properties"]["algorithm"])
    return schemas


def request_schema(
    schema: Schema, cls: type[Operation[Any]], limits: HTTPLimits
) -> Schema:
    """Return the schema of a JSON body: an operation without its path fields."""
    elsewhere = set(cls.route.path_fields)
    properties = {
        name: _bounded(field, limits.aad_bytes if name == "aad" else limits)
        for name, field in schema["properties"].items()
        if name not in elsewhere
    }
    body: Schema = {
        "title": f"{schema['title']}Request",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
    required = [
        name for name in schema["required"] if name != "type" and name not in elsewhere
    ]
    if required:
        body["required"] = required
    if set(_PAYLOADS) <= properties.keys():
        body["oneOf"] = [_only(name) for name in _PAYLOADS]
    return body


def bound_items(
    schemas: dict[str, Schema], operations: Iterable[str], limits: HTTPLimits
) -> None:
    """Add the limits of byte strings to the items that operations take."""
    for operation in operations:
        items = schemas[operation]["properties"].get("items", {}).get("items", {})
        name = str(items.get("$ref", "")).rpartition("/")[2]
        if name:
            properties = schemas[name]["properties"]
            schemas[name]["properties"] = {
                field: _bounded(kind, limits.aad_bytes if field == "aad" else limits)
                for field, kind in properties.items()
            }


def summary_of(operation: type[Operation[Any]]) -> str:
    """Return the first sentence of an operation's docstring."""
    text = (operation.__doc__ or "").strip().split("\n\n")[0]
    return " ".join(text.split())


def _only(present: str) -> Schema:
    absent = [name for name in _PAYLOADS if name != present]
    return {
        "required": [present],
        "properties": {
            present: {"type": "string"},
            **{name: {"type": "null"} for name in absent},
        },
    }


def _portable(value: Any) -> Any:
    """Rewrite what only Python understands, and tell what base64 looks like."""
    if isinstance(value, list):
        return [_portable(item) for item in value]
    if not isinstance(value, dict):
        return value
    changed = {name: _portable(item) for name, item in value.items()}
    if isinstance(changed.get("pattern"), str):
        changed["pattern"] = changed["pattern"].replace(r"\Z", "$")
    if changed.get("contentEncoding") == "base64":
        changed["pattern"] = _BASE64
    return changed


def _bounded(field: Schema, limits: HTTPLimits | int) -> Schema:
    """Add the longest base64 text that the server's limits allow."""
    most = limits if isinstance(limits, int) else limits.payload_bytes
    if "anyOf" in field:
        return {**field, "anyOf": [_bounded(kind, most) for kind in field["anyOf"]]}
    if field.get("contentEncoding") == "base64" and "maxLength" not in field:
        return {**field, "maxLength": -(-most // 3) * 4}
    return field


def _name_algorithms(field: Schema) -> None:
    for rule in ("minLength", "maxLength"):
        field.pop(rule, None)
    field["enum"] = [*Algorithm, *([""] if field.get("default") == "" else [])]
    field["description"] = "Common alternative spellings are accepted, in any case."


def _spread_docstring(schema: Schema) -> None:
    """Give each property its line of the docstring's attributes."""
    text = schema.pop("description", "").replace("``", "`")
    head, _, rest = text.partition("\n\nAttributes:\n")
    if head:
        schema["description"] = " ".join(head.split())
    name = ""
    lines: dict[str, list[str]] = {}
    for line in rest.partition("\n\n")[0].splitlines():
        found = _ATTRIBUTE.match(line)
        if found is not None:
            name = found[1]
            lines[name] = [found[2]]
        elif name:
            lines[name].append(line.strip())
    for field, words in lines.items():
        # A field beside a reference is allowed since OpenAPI 3.1.
        if field in schema.get("properties", {}):
            schema["properties"][field]["description"] = " ".join(words)


def _header(name: str, description: str, **rules: str) -> Schema:
    schema = {"type": "string", **rules}
    return {"name": name, "in": "header", "description": description, "schema": schema}


_EVENT_ID: Final = _header(
    "Last-Event-ID",
    "Resume a live view after the event with this ID. Overrides start_seq and cursor.",
    pattern="^(0|[1-9][0-9]{0,15}|[0-9a-f,]{33,4096})$",
)
_APPROVAL: Final = _header(
    APPROVAL_HEADER,
    "ID of a granted approval. By default the server finds it.",
    format="uuid",
)
_INTERFACE: Final = _header(
    INTERFACE_HEADER,
    "Name of the client's program and interface, for the audit log. Not verified, and "
    "no permission depends on it.",
    pattern="^[!-~]([ -~]{0,126}[!-~])?$",
)
_REVISION: Final = _header(
    REVISION_HEADER,
    "Highest value of this header in a response of the cluster so far. Another node "
    "applies that change first. A single machine ignores it.",
    pattern="^(0|[1-9][0-9]{0,14})$",
)
_IDEMPOTENCY_KEY: Final = _header(
    "Idempotency-Key",
    "Idempotency key. Repeating it with the same request returns the same "
    "response without executing again; with another request it is a conflict.",
    pattern="^[!-~]{1,128}$",
)
_IF_MATCH: Final = _header(
    "If-Match",
    "Execute only if the key is at this generation: an ETag of the key, or its "
    "generation in quotes.",
    pattern='^("[1-9][0-9]{0,14}(-[0-9a-f]{32})?"|[*])$',
)
_IF_NONE_MATCH: Final = _header(
    "If-None-Match",
    "Comma-separated ETags that the client already has, or *. Other values are "
    "ignored.",
)


def parameters_of(cls: type[Operation[Any]], schema: Schema) -> list[Schema]:
    """Return the parameters of an operation with this schema."""
    return [*_path(cls.route, schema), *_query(cls.route, schema), *_headers(cls)]


def _path(route: Route, schema: Schema) -> Iterator[Schema]:
    for name in route.path_fields:
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "schema": schema["properties"][name],
            "example": route.example[name],
        }


def _query(route: Route, schema: Schema) -> Iterator[Schema]:
    if route.has_body:
        return
    elsewhere = {"type", *route.path_fields}
    for name, field in schema["properties"].items():
        if name not in elsewhere:
            yield _query_parameter(name, field, route.example)


def _headers(cls: type[Operation[Any]]) -> Iterator[Schema]:
    yield _INTERFACE
    yield _REVISION
    if cls.route.events:
        yield _EVENT_ID
    if cls.effect is not Effect.CONSENT:
        yield _APPROVAL
    if cls.effect is Effect.MUTATION:
        yield _IDEMPOTENCY_KEY
    if takes_condition(cls):
        yield _IF_MATCH
    if cls is DescribeKey:
        yield _IF_NONE_MATCH


def _query_parameter(name: str, field: Schema, example: Mapping[str, Any]) -> Schema:
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
