# SPDX-License-Identifier: MIT
"""The API's description: valid, complete, and true."""

import json
import re
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from hsm_core import wire
from hsm_core.operations import OPERATIONS, DescribeKey, Effect, Operation
from hsm_core.rest import API_PREFIX
from hsm_server.api.openapi import openapi_document
from hsm_server.config.settings import HTTPLimits
from tests.server.support import API

DOCUMENT: dict[str, Any] = json.loads(openapi_document(HTTPLimits()))
NAMES = [kind.__name__ for kind in OPERATIONS]


def described(kind: type[Operation[Any]]) -> dict[str, Any]:
    """Return what the document says of an operation."""
    route = kind.route
    found: dict[str, Any] = DOCUMENT["paths"][API_PREFIX + route.path][
        route.method.lower()
    ]
    return found


def test_the_document_is_valid() -> None:
    """It is OpenAPI 3.1 by its published schema, and all references resolve."""
    OpenAPIV31SpecValidator(DOCUMENT).validate()

    assert "3.1.0" == DOCUMENT["openapi"]


async def test_it_is_served_to_everybody(api: API) -> None:
    """Whoever writes a client needs no token to read it."""
    answer = await api.send("GET", "/openapi.json", token="")

    assert 200 == answer.status
    assert DOCUMENT == answer.json


@pytest.mark.parametrize("kind", OPERATIONS, ids=NAMES)
def test_every_example_is_a_valid_request(kind: type[Operation[Any]]) -> None:
    """What is shown as an example can be read."""
    operation = wire.convert(dict(kind.route.example), kind)

    assert isinstance(operation, kind)


@pytest.mark.parametrize("kind", OPERATIONS, ids=NAMES)
def test_every_parameter_is_described(kind: type[Operation[Any]]) -> None:
    """Path, query, header and body hold every field once; there is a summary."""
    route, operation = kind.route, described(kind)
    assert operation["summary"]
    places = {"path": set(), "query": set(), "header": set()}  # type: dict[str, set[str]]
    for parameter in operation["parameters"]:
        places[parameter["in"]].add(parameter["name"])
    body = operation.get("requestBody", {"content": {}})["content"]
    schema = body.get("application/json", {"schema": {}})["schema"]
    in_body = set(schema.get("properties", {})) - {"type"}
    fields = set(kind.__struct_fields__)

    assert set(route.path_fields) == places["path"]
    assert fields == places["path"] | places["query"] | in_body
    assert not places["query"] & in_body
    mutates = kind.effect is Effect.MUTATION
    always = {"FerroHSM-Interface", "FerroHSM-Revision"}
    headers = always | ({"Idempotency-Key"} if mutates else set())
    if kind.effect is not Effect.CONSENT:
        headers |= {"FerroHSM-Approval"}
    if mutates and "key_id" in places["path"]:
        headers |= {"If-Match"}
    if kind is DescribeKey:
        headers |= {"If-None-Match"}
    assert headers | ({"Last-Event-ID"} if route.events else set()) == places["header"]
    assert bool(route.raw_request) == ("application/octet-stream" in body)


@pytest.mark.parametrize("kind", OPERATIONS, ids=NAMES)
def test_every_answer_is_described(kind: type[Operation[Any]]) -> None:
    """Success has the result's schema, everything else is a problem."""
    route, responses = kind.route, described(kind)["responses"]
    problems = set(responses) - {str(route.success), "202", "304"}
    waiting = responses["202"]

    assert str(route.success) in responses
    assert {"400", "401", "403", "409", "422", "503"} <= problems
    assert waiting["headers"]["Location"]["required"]
    assert ["application/json"] == list(waiting["content"])
    for status in problems:
        assert ["application/problem+json"] == list(responses[status]["content"])
    content = responses[str(route.success)]["content"]
    assert bool(route.raw_response) == ("application/octet-stream" in content)
    assert route.events == ("text/event-stream" in content)


def _schemas(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return [found for item in value for found in _schemas(item)]
    if not isinstance(value, dict):
        return []
    return [value, *(found for item in value.values() for found in _schemas(item))]


def test_patterns_are_those_of_json_schema() -> None:
    """What only Python understands is rewritten, and every pattern compiles."""
    patterns = [s["pattern"] for s in _schemas(DOCUMENT) if "pattern" in s]

    assert patterns
    assert not [p for p in patterns if r"\Z" in p]
    assert all(re.compile(p) for p in patterns)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("", True),
        ("aA==", True),
        ("aGk=", True),
        ("aGVs", True),
        ("aB==", False),
        ("aGl=", False),
        ("aA", False),
        ("a===", False),
        ("-_8=", False),
    ],
)
def test_base64_is_canonical_in_the_schema_too(text: str, good: bool) -> None:
    """Schema and codec agree on what a byte string is."""
    schema = DOCUMENT["components"]["schemas"]["PublicKey"]["properties"]["der"]

    assert good == bool(re.search(schema["pattern"], text))


def test_a_closed_object_stays_closed() -> None:
    """A client that misspells a field is told."""
    bodies = [
        operation["requestBody"]["content"]["application/json"]["schema"]
        for item in DOCUMENT["paths"].values()
        for operation in item.values()
        if "requestBody" in operation
    ]

    assert bodies
    assert all(body["additionalProperties"] is False for body in bodies)


def test_limits_stand_in_the_document() -> None:
    """Byte strings end where the server's limit is."""
    document = json.loads(openapi_document(HTTPLimits(payload_bytes=10, aad_bytes=4)))
    body = document["paths"]["/api/v1/keys/{key_id}/encrypt"]["post"]["requestBody"]
    properties = body["content"]["application/json"]["schema"]["properties"]

    item = document["components"]["schemas"]["EncryptItem"]["properties"]
    assert 16 == properties["plaintext"]["maxLength"] == item["plaintext"]["maxLength"]
    assert 8 == properties["aad"]["maxLength"] == item["aad"]["maxLength"]


@pytest.mark.parametrize("verb", ["sign", "verify"])
def test_one_payload_is_signed(verb: str) -> None:
    """A message, its digest or mu: of an item in a batch that is the item's error."""
    bodies = [
        DOCUMENT["paths"][f"{API_PREFIX}/keys/{{key_id}}/{verb}{suffix}"]["post"][
            "requestBody"
        ]["content"]["application/json"]["schema"]
        for suffix in ("", "/batch")
    ]

    assert [["message"], ["digest"], ["mu"]] == [
        kind["required"] for kind in bodies[0]["oneOf"]
    ]
    assert "oneOf" not in bodies[1]
    assert "oneOf" not in DOCUMENT["components"]["schemas"][f"{verb.title()}Item"]


def test_other_keys_may_be_missing_too() -> None:
    """A route that names a key in its body has the answer of a missing key."""
    with_404 = {
        kind.__name__ for kind in OPERATIONS if "404" in described(kind)["responses"]
    }

    assert {"ImportKey", "DeriveKey", "ExportKey", "Sign"} <= with_404
    assert not {"CreateKey", "ListKeys", "Status"} & with_404


def test_open_pages_need_no_token() -> None:
    """Only what is open says so."""
    open_pages = {
        path
        for path, item in DOCUMENT["paths"].items()
        for operation in item.values()
        if operation.get("security") == []
    }

    health = {"/healthz", "/livez", "/readyz"}
    others = {"/metrics", "/api/v1/openapi.json", "/.well-known/jwks.json"}
    assert health | others == open_pages
    assert [{"bearer": []}] == DOCUMENT["security"]


def _links() -> list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Return every link: where it stands, its operation, its answer, and itself."""
    return [
        (
            f"{operation['operationId']} {status} {name}",
            operation,
            answer,
            DOCUMENT["components"]["links"][link["$ref"].rpartition("/")[2]]
            if "$ref" in link
            else link,
        )
        for item in DOCUMENT["paths"].values()
        for operation in item.values()
        for status, answer in operation["responses"].items()
        for name, link in answer.get("links", {}).items()
    ]


def _fields_of_body(operation: dict[str, Any]) -> set[str]:
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    return set(body["properties"])


def _fields_of_answer(answer: dict[str, Any], path: list[str]) -> bool:
    """Whether the schema of an answer has what a JSON pointer leads to."""
    schemas = DOCUMENT["components"]["schemas"]
    schema = answer["content"]["application/json"]["schema"]
    for part in path:
        if "$ref" in schema:
            schema = schemas[schema["$ref"].rpartition("/")[2]]
        schema = schema["items"] if part == "0" else schema["properties"].get(part)
        if schema is None:
            return False
    return True


def test_links_lead_from_what_is_answered_to_what_can_be_asked() -> None:
    """Each names an operation, fields it takes, and places that the answer has."""
    by_id = {
        operation["operationId"]: operation
        for item in DOCUMENT["paths"].values()
        for operation in item.values()
    }
    links = _links()

    assert len(links) > 100
    for name, source, answer, link in links:
        target = by_id[link["operationId"]]
        parameters = {p["name"] for p in target["parameters"] if p["in"] == "path"}
        assert parameters == link["parameters"].keys(), name
        body = link.get("requestBody", {})
        assert not body or body.keys() <= _fields_of_body(target), name
        for expression in (*link["parameters"].values(), *body.values()):
            whose, _, pointer = expression.partition(".body#/")
            if whose == "$request":
                assert pointer in _fields_of_body(source), name
            else:
                assert "$response" == whose
                assert _fields_of_answer(answer, pointer.split("/")), name


def test_every_way_through_the_life_of_a_key_is_linked() -> None:
    """From its making to use and back, rotation, consent and destruction."""
    ways = {name for name, *_ in _links()}

    assert {
        "CreateKey 201 Sign",
        "Sign 200 Verify",
        "CreateKey 201 RotateKey",
        "RotateKey 200 RevokeKey",
        "CreateKey 201 DestroyKey",
        "DestroyKey 202 Approve",
        "ListKeys 200 DescribeKey",
        "ListApprovals 200 GetApproval",
    } <= ways
