# SPDX-License-Identifier: MIT
"""OpenAPI document: paths, bodies, responses, links."""

from __future__ import annotations

from typing import Any, Final

from hsm_core import operations as ops
from hsm_core import wire
from hsm_core.model import KeyInfo
from hsm_core.operations import (
    OPERATIONS,
    ApprovalInfo,
    DescribeKey,
    Operation,
    Route,
    result_type,
)
from hsm_core.rest import API_PREFIX
from hsm_server.__about__ import __version__
from hsm_server.api.openapi.schemas import (
    Schema,
    bound_items,
    component_schemas,
    parameters_of,
    request_schema,
    summary_of,
)
from hsm_server.config.settings import HTTPLimits
from hsm_server.http.problems import PROBLEM_TYPE, Problem
from hsm_server.http.requests import takes_condition
from hsm_server.http.state import Health

_Kind = type[Operation[Any]]

_MADE: Final = (
    *(ops.DescribeKey, ops.ListVersions, ops.GetPublicKey, ops.UpdateKey),
    *(ops.Sign, ops.SignBatch, ops.Encrypt, ops.EncryptBatch, ops.GenerateDataKey),
    *(ops.ComputeMac, ops.ComputeMacBatch, ops.Encapsulate, ops.Seal, ops.ExportKey),
    *(ops.RotateKey, ops.SetRotation, ops.ActivateKey, ops.SuspendKey, ops.HoldKey),
    *(ops.AttachCertificates, ops.GetCertificates),
    *(ops.RevokeKey, ops.DestroyKey),
)
_NEXT: Final[dict[_Kind, tuple[_Kind, ...]]] = {
    ops.CreateKey: _MADE,
    ops.ImportKey: _MADE,
    ops.DeriveKey: _MADE,
    ops.ActivateKey: (ops.DescribeKey, ops.RotateKey),
    ops.RotateKey: (ops.ListVersions, ops.Rollback, ops.RevokeKey),
    ops.Rollback: (ops.DescribeKey,),
    ops.SuspendKey: (ops.DescribeKey, ops.ResumeKey, ops.DestroyKey),
    ops.ResumeKey: (ops.DescribeKey,),
    ops.HoldKey: (ops.DestroyKey, ops.ReleaseKey),
    ops.UpdateKey: (ops.DescribeKey,),
    ops.DestroyKey: (ops.DescribeKey, ops.CancelDestroy),
}
"""Of an answer that shows a key: what is next for this key."""

_INVERSES: Final[dict[_Kind, tuple[_Kind, dict[str, str]]]] = {
    ops.Sign: (ops.Verify, {"message": "request", "signature": "response"}),
    ops.Encrypt: (ops.Decrypt, {"aad": "request", "ciphertext": "response"}),
    ops.Seal: (ops.Open, {"aad": "request", "ciphertext": "response"}),
    ops.GenerateDataKey: (
        ops.Rewrap,
        {"aad": "request", "ciphertext": "response"},
    ),
    ops.ComputeMac: (ops.VerifyMac, {"message": "request", "mac": "response"}),
    ops.Encapsulate: (ops.Decapsulate, {"ciphertext": "response"}),
}
"""Of an answer by a key: what the same key makes of it, with which fields of which."""

_FIRST: Final[dict[_Kind, tuple[_Kind, str]]] = {
    ops.ListKeys: (ops.DescribeKey, "key_id"),
    ops.ListApprovals: (ops.GetApproval, "approval_id"),
}
"""Of a list: what shows one item, by which field."""

_ASKED: Final = (
    ops.GetApproval,
    ops.Approve,
    ops.Deny,
    ops.Withdraw,
    ops.CancelApproval,
)
_WITH_DIGEST: Final = frozenset({ops.Approve})


def link_components() -> dict[str, Schema]:
    """Return the links that several answers share, by name."""
    made = {cls for group in _NEXT.values() for cls in group}
    found = {
        cls.__name__: _link(cls, {"key_id": "$response.body#/key_id"})
        for cls in sorted(made, key=lambda cls: cls.__name__)
    }
    for cls in _ASKED:
        link = _link(cls, {"approval_id": "$response.body#/approval_id"})
        if cls in _WITH_DIGEST:
            link["requestBody"] = {"digest": "$response.body#/digest"}
        found[cls.__name__] = link
    return found


def links_of(cls: _Kind) -> dict[str, Schema]:
    """Return the links of an operation's success, by name; there may be none."""
    found = {target.__name__: _link_reference(target) for target in _NEXT.get(cls, ())}
    if cls in _INVERSES:
        target, fields = _INVERSES[cls]
        link = _link(target, {"key_id": "$response.body#/key_id"})
        link["requestBody"] = {
            name: f"${whose}.body#/{name}" for name, whose in fields.items()
        }
        found[target.__name__] = link
    if cls in _FIRST:
        target, field = _FIRST[cls]
        found[target.__name__] = _link(
            target, {field: f"$response.body#/items/0/{field}"}
        )
    return found


def links_of_waiting() -> dict[str, Schema]:
    """Return the links of the answer that people must agree first, by name."""
    return {target.__name__: _link_reference(target) for target in _ASKED}


def _link(target: _Kind, parameters: dict[str, str]) -> Schema:
    return {"operationId": target.__name__, "parameters": parameters}


def _link_reference(target: _Kind) -> Schema:
    return {"$ref": f"#/components/links/{target.__name__}"}


_JSON: Final = "application/json"
_BYTES: Final = "application/octet-stream"
_EVENTS: Final = "text/event-stream"

_PROBLEMS: Final = {
    400: "Malformed request.",
    401: "No bearer token, or an invalid one. The response does not say which.",
    403: "The policy denies this request.",
    404: "The key or version does not exist, or the caller may not see it.",
    408: "The body did not arrive in time.",
    409: "Valid, but in conflict with the current state; or stored data was altered.",
    412: "The key is not at the generation in If-Match. Nothing was changed.",
    413: "Body or payload too large.",
    415: "The route does not accept this media type.",
    422: "A field is invalid, or a verification failed.",
    429: "The caller has too many open approval requests.",
    503: "The HSM is temporarily unavailable.",
}
_NO_KEY: Final = {404}
_NO_BODY: Final = {408, 413, 415}
_NO_CONDITION: Final = {412}

_BINARY: Final[Schema] = {"type": "string", "format": "binary"}


def openapi_document(limits: HTTPLimits) -> bytes:
    """Return the OpenAPI 3.1 document of a server with these limits, as JSON."""
    named = {cls.__name__ for cls in OPERATIONS}
    schemas = component_schemas(
        [*OPERATIONS, *map(result_type, OPERATIONS), Problem, Health]
    )
    bound_items(schemas, named, limits)
    paths: dict[str, dict[str, Any]] = {}
    for cls in OPERATIONS:
        item = paths.setdefault(API_PREFIX + cls.route.path, {})
        item[cls.route.method.lower()] = _operation(cls, schemas, limits)
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "FerroHSM",
            "version": __version__,
            "description": (
                "Software HSM: keys never leave the server. Byte strings are "
                "standard base64. Every response carries X-Request-Id; send one "
                "to set it. Responses of a cluster to authenticated requests carry "
                "FerroHSM-Revision. A key_id can also be the unique name of a key."
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
                    "description": "HS256 token with the claims sub, roles and exp.",
                }
            },
            "schemas": {k: v for k, v in schemas.items() if k not in named},
            "links": link_components(),
        },
    }
    return wire.encode_json(document)


def _operation(cls: _Kind, schemas: dict[str, Schema], limits: HTTPLimits) -> Schema:
    route, schema = cls.route, schemas[cls.__name__]
    found: Schema = {
        "operationId": cls.__name__,
        "summary": summary_of(cls),
        "tags": [route.path.split("/")[1]],
        "parameters": parameters_of(cls, schema),
        "responses": _responses(cls),
    }
    if description := _description(cls, schema):
        found["description"] = description
    if route.has_body:
        body = request_schema(schema, cls, limits)
        found["requestBody"] = _request_body(route, body)
    return found


def _description(cls: _Kind, schema: Schema) -> str:
    route, parts = cls.route, []
    text = str(schema.get("description", ""))
    if text != summary_of(cls):
        parts.append(text)
    if route.raw_request:
        parts.append(
            f"The body can also be {route.raw_request} alone, as {_BYTES}; the "
            "other fields are then query parameters."
        )
    if route.raw_response:
        parts.append(
            f"Accept: {_BYTES} returns {route.raw_response} alone; the other "
            "fields are then in the header FerroHSM-Result."
        )
    if route.events:
        parts.append(
            f"Accept: {_EVENTS} opens a live view from start_seq, by default "
            "from now, oldest first; limit, ascending and follow are not "
            "allowed. Each `entry` event holds one item of the list. A "
            "`problem` event holds a problem document and is the last event."
        )
    return "\n\n".join(parts)


def _request_body(route: Route, body: Schema) -> Schema:
    example = {
        name: value
        for name, value in route.example.items()
        if name not in route.path_fields
    }
    content: Schema = {_JSON: {"schema": body, "example": example}}
    if route.raw_request:
        content[_BYTES] = {"schema": _BINARY}
    return {"required": "required" in body or "oneOf" in body, "content": content}


def _responses(cls: _Kind) -> Schema:
    route = cls.route
    content: Schema = {_JSON: {"schema": _reference(result_type(cls))}}
    headers: Schema = {}
    if route.raw_response:
        content[_BYTES] = {"schema": _BINARY}
        headers["FerroHSM-Result"] = {
            "description": f"The other fields, as JSON; only with {_BYTES}.",
            "schema": {"type": "string"},
        }
    if route.events:
        content[_EVENTS] = {"schema": {"type": "string"}}
    if route.location:
        headers["Location"] = {
            "description": "Path of the new resource.",
            "required": True,
            "schema": {"type": "string"},
        }
    if result_type(cls) is KeyInfo:
        headers["ETag"] = {
            "description": (
                "The generation of the key; in descriptions of a key also a "
                "digest of the content. Absent for a tampered key."
            ),
            "schema": {"type": "string"},
        }
    success: Schema = {"description": "Success.", "content": content}
    if headers:
        success["headers"] = headers
    if links := links_of(cls):
        success["links"] = links
    names_keys = bool(route.path_fields or cls.other_keys)
    names_keys = names_keys or "key_id" in cls.__struct_fields__
    left_out = set() if names_keys else _NO_KEY
    left_out = left_out if route.has_body else left_out | _NO_BODY
    if not takes_condition(cls):
        left_out = left_out | _NO_CONDITION
    problems = {
        str(status): _answer(words, _PROBLEM)
        for status, words in _PROBLEMS.items()
        if status not in left_out
    }
    known: Schema = {}
    if cls is DescribeKey:
        known["304"] = {"description": "Not modified: it matches If-None-Match."}
    return {str(route.success): success, "202": _waiting(), **known, **problems}


def _waiting() -> Schema:
    return {
        "description": (
            "Approval required. The approval request is open; send the same "
            "request again after it is granted."
        ),
        "content": {_JSON: {"schema": _reference(ApprovalInfo)}},
        "headers": {
            "Location": {
                "description": "Path of the approval request.",
                "required": True,
                "schema": {"type": "string"},
            }
        },
        "links": links_of_waiting(),
    }


def _reference(cls: type) -> Schema:
    return {"$ref": f"#/components/schemas/{cls.__name__}"}


_PROBLEM: Final[Schema] = {PROBLEM_TYPE: {"schema": _reference(Problem)}}


def _answer(description: str, content: Schema) -> Schema:
    found: Schema = {"description": description}
    return {**found, "content": content} if content else found


def _service_paths() -> dict[str, Schema]:
    health = {_JSON: {"schema": _reference(Health)}}
    text = {"text/plain": {"schema": {"type": "string"}}}
    anything = {_JSON: {"schema": {"type": "object"}}}
    key_set = {"application/jwk-set+json": {"schema": {"type": "object"}}}
    ready = {"200": ("Ready.", health), "503": ("Not ready.", health)}
    rows: tuple[tuple[str, str, str, dict[str, tuple[str, Schema]]], ...] = (
        ("/healthz", "Healthz", "Readiness of the server.", ready),
        (
            "/livez",
            "Livez",
            "Liveness of this process, independent of the vault process.",
            {"200": ("Alive.", health)},
        ),
        ("/readyz", "Readyz", "Readiness, for load balancers.", ready),
        (
            "/metrics",
            "Metrics",
            "Metrics in the Prometheus text format.",
            {
                "200": ("All metrics.", text),
                "401": ("A token is required, and it is missing or invalid.", _PROBLEM),
            },
        ),
        (
            "/.well-known/jwks.json",
            "TokenKeys",
            "Public keys that verify tokens (RFC 7517).",
            {
                "200": ("The key set.", key_set),
                "304": ("Not modified: it matches If-None-Match.", {}),
            },
        ),
        (
            f"{API_PREFIX}/openapi.json",
            "OpenAPI",
            "This document.",
            {"200": ("OpenAPI 3.1.", anything)},
        ),
    )
    refused = {str(status): (_PROBLEMS[status], _PROBLEM) for status in (400, 422)}
    return {
        path: {
            "get": {
                "operationId": name,
                "summary": summary,
                "tags": ["service"],
                "security": [],
                "responses": {
                    status: _answer(*answer)
                    for status, answer in {**answers, **refused}.items()
                },
            }
        }
        for path, name, summary, answers in rows
    }
