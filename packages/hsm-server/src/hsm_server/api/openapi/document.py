# SPDX-License-Identifier: MIT
"""The document as a whole: paths, bodies, answers."""

from __future__ import annotations

from typing import Any, Final

from hsm_core import wire
from hsm_core.model import KeyInfo
from hsm_core.operations import ApprovalInfo, DescribeKey, Operation, result_type
from hsm_core.rest import API_PREFIX, ROUTES, Route, path_fields
from hsm_server.__about__ import __version__
from hsm_server.api.openapi.examples import EXAMPLES
from hsm_server.api.openapi.links import link_components, links_of, links_of_waiting
from hsm_server.api.openapi.parameters import parameters_of
from hsm_server.api.openapi.schemas import (
    Schema,
    bound_items,
    component_schemas,
    request_schema,
    summary_of,
)
from hsm_server.config.settings import HTTPLimits
from hsm_server.http.conditions import takes_condition
from hsm_server.http.health import Health
from hsm_server.http.problems import PROBLEM_TYPE, Problem

_JSON: Final = "application/json"
_BYTES: Final = "application/octet-stream"
_EVENTS: Final = "text/event-stream"

_PROBLEMS: Final = {
    400: "The request could not be read.",
    401: "No bearer token, or no good one; it is not said which.",
    403: "The policy does not allow this.",
    404: "There is no such key or version, or the caller may not know of it.",
    408: "The body did not arrive in time.",
    409: "Valid, but not in the present state of things; or stored data was changed.",
    412: "The key is not at the generation that If-Match names; nothing was done.",
    413: "Body or payload is too large.",
    415: "The body is of a type that this route does not take.",
    422: "A field breaks a rule, or a check was made and its answer is no.",
    429: "The caller has too many open requests for approval.",
    503: "The HSM can't do this now.",
}
_NO_KEY: Final = {404}
_NO_BODY: Final = {408, 413, 415}
_NO_CONDITION: Final = {412}

_BINARY: Final[Schema] = {"type": "string", "format": "binary"}


def openapi_document(limits: HTTPLimits) -> bytes:
    """Return the OpenAPI 3.1 document of a server with these limits, as JSON."""
    operations = [route.operation for route in ROUTES]
    named = {cls.__name__ for cls in operations}
    schemas = component_schemas(
        [*operations, *map(result_type, operations), Problem, Health]
    )
    bound_items(schemas, named, limits)
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        item = paths.setdefault(API_PREFIX + route.path, {})
        item[route.method.lower()] = _operation(route, schemas, limits)
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "FerroHSM",
            "version": __version__,
            "description": (
                "Keys that never leave the server. Byte strings are standard base64. "
                "Every answer carries X-Request-Id; send one to have it used. Wherever "
                "a key_id is asked for, the unique name of a key does too."
            ),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "security": [{"bearer": []}],
        "paths": {**paths, **_service_paths()},
        "components": {
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "HS256 with the claims sub, roles and exp.",
                }
            },
            "schemas": {k: v for k, v in schemas.items() if k not in named},
            "links": link_components(),
        },
    }
    return wire.encode_json(document)


def _operation(route: Route, schemas: dict[str, Schema], limits: HTTPLimits) -> Schema:
    cls = route.operation
    schema = schemas[cls.__name__]
    found: Schema = {
        "operationId": cls.__name__,
        "summary": summary_of(cls),
        "tags": [route.path.split("/")[1]],
        "parameters": parameters_of(route, schema),
        "responses": _responses(route),
    }
    if description := _description(route, schema):
        found["description"] = description
    if route.has_body:
        body = request_schema(schema, route, limits)
        found["requestBody"] = _request_body(route, body)
    return found


def _description(route: Route, schema: Schema) -> str:
    parts = []
    text = str(schema.get("description", ""))
    if text != summary_of(route.operation):
        parts.append(text)
    if route.raw_request:
        parts.append(
            f"The body may also be {route.raw_request} alone, as {_BYTES}; the other "
            "fields are then query parameters."
        )
    if route.raw_response:
        parts.append(
            f"Accept: {_BYTES} asks for {route.raw_response} alone; the other fields "
            "then stand in the header FerroHSM-Result."
        )
    if route.events:
        parts.append(
            f"Accept: {_EVENTS} asks for a live view, from start_seq or else from now "
            "on, oldest first, which takes neither limit nor ascending nor follow. "
            "Each `entry` event holds one item of the list; a `problem` event holds a "
            "problem document, and is the last."
        )
    return "\n\n".join(parts)


def _request_body(route: Route, body: Schema) -> Schema:
    in_path = path_fields(route.path)
    example = {
        name: value
        for name, value in EXAMPLES[route.operation].items()
        if name not in in_path
    }
    content: Schema = {_JSON: {"schema": body, "example": example}}
    if route.raw_request:
        content[_BYTES] = {"schema": _BINARY}
    return {"required": "required" in body or "oneOf" in body, "content": content}


def _responses(route: Route) -> Schema:
    cls: type[Operation[Any]] = route.operation
    content: Schema = {_JSON: {"schema": _reference(result_type(cls))}}
    headers: Schema = {}
    if route.raw_response:
        content[_BYTES] = {"schema": _BINARY}
        headers["FerroHSM-Result"] = {
            "description": f"The other fields, as JSON; only beside {_BYTES}.",
            "schema": {"type": "string"},
        }
    if route.events:
        content[_EVENTS] = {"schema": {"type": "string"}}
    if route.location:
        headers["Location"] = {
            "description": "Path of what was made.",
            "required": True,
            "schema": {"type": "string"},
        }
    if result_type(cls) is KeyInfo:
        headers["ETag"] = {
            "description": (
                "The generation of the key, and where it is described a digest of "
                "what is shown; none of a key that was tampered with."
            ),
            "schema": {"type": "string"},
        }
    success: Schema = {"description": "Done.", "content": content}
    if headers:
        success["headers"] = headers
    if links := links_of(cls):
        success["links"] = links
    names_keys = bool(path_fields(route.path) or cls.other_keys)
    names_keys = names_keys or "key_id" in cls.__struct_fields__
    left_out = set() if names_keys else _NO_KEY
    left_out = left_out if route.has_body else left_out | _NO_BODY
    if not takes_condition(route):
        left_out = left_out | _NO_CONDITION
    problems = {
        str(status): _problem_answer(words)
        for status, words in _PROBLEMS.items()
        if status not in left_out
    }
    known: Schema = {}
    if cls is DescribeKey:
        known["304"] = {"description": "It is what If-None-Match names."}
    return {str(route.success): success, "202": _waiting(), **known, **problems}


def _waiting() -> Schema:
    return {
        "description": (
            "Other people must agree first: this approval was asked for, or still is. "
            "Send the same request again when they have."
        ),
        "content": {_JSON: {"schema": _reference(ApprovalInfo)}},
        "headers": {
            "Location": {
                "description": "Path of the approval.",
                "required": True,
                "schema": {"type": "string"},
            }
        },
        "links": links_of_waiting(),
    }


def _reference(cls: type) -> Schema:
    return {"$ref": f"#/components/schemas/{cls.__name__}"}


def _problem_answer(description: str) -> Schema:
    return {
        "description": description,
        "content": {PROBLEM_TYPE: {"schema": _reference(Problem)}},
    }


def _service_paths() -> dict[str, Schema]:
    health = {_JSON: {"schema": _reference(Health)}}
    text = {"text/plain": {"schema": {"type": "string"}}}
    anything = {_JSON: {"schema": {"type": "object"}}}
    key_set = {"application/jwk-set+json": {"schema": {"type": "object"}}}
    return {
        "/healthz": _page(
            "Healthz",
            "Whether requests can be served.",
            {
                "200": {"description": "They can.", "content": health},
                "503": {"description": "They can't.", "content": health},
            },
        ),
        "/livez": _page(
            "Livez",
            "Whether this process answers, whatever the one with the keys does.",
            {"200": {"description": "It does.", "content": health}},
        ),
        "/readyz": _page(
            "Readyz",
            "Whether requests can be served, for who distributes them.",
            {
                "200": {"description": "They can.", "content": health},
                "503": {"description": "They can't.", "content": health},
            },
        ),
        "/metrics": _page(
            "Metrics",
            "Counters in the Prometheus text format.",
            {
                "200": {"description": "All counters.", "content": text},
                "401": _problem_answer("They are not open, and the token is not good."),
            },
        ),
        "/.well-known/jwks.json": _page(
            "TokenKeys",
            "The public keys that tokens are verified with (RFC 7517).",
            {
                "200": {"description": "They.", "content": key_set},
                "304": {"description": "They are those of If-None-Match."},
            },
        ),
        f"{API_PREFIX}/openapi.json": _page(
            "OpenAPI",
            "This document.",
            {"200": {"description": "OpenAPI 3.1.", "content": anything}},
        ),
    }


def _page(name: str, summary: str, responses: Schema) -> Schema:
    refused = {
        "400": _problem_answer(_PROBLEMS[400]),
        "422": _problem_answer(_PROBLEMS[422]),
    }
    return {
        "get": {
            "operationId": name,
            "summary": summary,
            "tags": ["service"],
            "security": [],
            "responses": {**responses, **refused},
        }
    }
