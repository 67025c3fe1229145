# SPDX-License-Identifier: MIT
"""Bad input: a documented error with its code and status, and never a 500."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from hsm_server.config.settings import HTTPLimits, ServerSettings
from tests.server.support import API, b64, mint, open_api

SMALL = ServerSettings(
    limits=HTTPLimits(json_bytes=4096, payload_bytes=1024, raw_bytes=8192),
)
JSON = {"Content-Type": "application/json"}
BYTES = {"Content-Type": "application/octet-stream"}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def small() -> AsyncIterator[API]:
    """Give a client of a server with low limits, and a key of each family."""
    async with open_api(SMALL) as api:
        for algorithm, name in [
            ("Ed25519", "signer"),
            ("AES-256-GCM", "cipher"),
            ("HMAC-SHA-256", "mac"),
        ]:
            await api.create(algorithm, name=name)
        yield api
        assert 0 == api.unexpected


async def refusal(api: API, *args: Any, **more: Any) -> tuple[int, str]:
    """Send a request and return status and code of the problem."""
    answer = await api.send(*args, **more)
    problem = answer.json
    assert answer.status == problem["status"]
    assert f"urn:ferrohsm:error:{answer.code}" == problem["type"]
    assert answer.headers["X-Request-Id"] == problem["request_id"]
    return answer.status, answer.code


BODIES: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 422, "invalid_input"),
    "not JSON": (b"hello", 400, "malformed"),
    "broken": (b'{"message": "aGVsbG8="', 400, "malformed"),
    "two values": (b'{"message": "aGVsbG8="}{}', 400, "malformed"),
    "array": (b"[]", 422, "invalid_input"),
    "null": (b"null", 422, "invalid_input"),
    "number": (b"7", 422, "invalid_input"),
    "not UTF-8": (b'{"message": "\xff"}', 400, "malformed"),
    "UTF-16": ('{"message": ""}'.encode("utf-16"), 400, "malformed"),
    "byte order mark": (b'\xef\xbb\xbf{"message": ""}', 400, "malformed"),
    "lone surrogate": (b'{"message": "\\ud800"}', 400, "malformed"),
    "duplicate name": (b'{"message": "aA==", "message": "aQ=="}', 400, "malformed"),
    "deep nesting": (b'{"message": ' + b"[" * 50 + b"]" * 50 + b"}", 400, "malformed"),
    "NaN": (b'{"message": NaN}', 400, "malformed"),
    "huge number": (b'{"message": ' + b"9" * 2000 + b"}", 400, "malformed"),
    "unknown field": (b'{"message": "aA==", "x": 1}', 422, "invalid_input"),
    "path field": (b'{"message": "aA==", "key_id": "a"}', 422, "invalid_input"),
    "wrong kind": (b'{"message": 7}', 422, "invalid_input"),
    "bad base64": (b'{"message": "a"}', 400, "malformed"),
    "no padding": (b'{"message": "aA"}', 400, "malformed"),
    "url alphabet": (b'{"message": "-_8="}', 400, "malformed"),
    "unused bits": (b'{"message": "aB=="}', 400, "malformed"),
    "line in base64": (b'{"message": "aA==\\n"}', 400, "malformed"),
    "message and digest": (
        b'{"message": "aA==", "digest": "aA=="}',
        422,
        "invalid_input",
    ),
    "neither": (b"{}", 422, "invalid_input"),
    "unknown hash": (b'{"message": "aA==", "hash": "MD5"}', 422, "invalid_input"),
    "scheme of others": (
        b'{"message": "aA==", "scheme": "RSASSA-PSS"}',
        422,
        "unsupported_operation",
    ),
}


@pytest.mark.parametrize("case", BODIES)
async def test_a_bad_body_is_refused_and_recorded(small: API, case: str) -> None:
    """What can't be read of a request about a key stands in the trail."""
    data, status, code = BODIES[case]
    name = case.replace(" ", "-")
    headers = {**JSON, "X-Request-Id": name}
    got = await refusal(small, "POST", "/keys/signer/sign", data=data, headers=headers)

    assert (status, code) == got
    (event,) = [e for e in await small.events() if e.get("request_id") == name]
    assert ("Sign", code) == (event["kind"], event["code"])
    assert "alice" == event["caller"]["principal"]
    assert event["key_id"]


CREATE: dict[str, tuple[dict[str, Any], int, str]] = {
    "unknown algorithm": ({"algorithm": "rot13"}, 422, "unknown_algorithm"),
    "empty algorithm": ({"algorithm": ""}, 422, "invalid_input"),
    "no such ML-DSA": ({"algorithm": "ML-DSA-135"}, 422, "unknown_algorithm"),
    "wrong usage": (
        {"algorithm": "AES-256-GCM", "usages": ["sign"]},
        422,
        "unsupported_operation",
    ),
    "unknown usage": (
        {"algorithm": "AES-256-GCM", "usages": ["bake"]},
        422,
        "invalid_input",
    ),
    "path as name": (
        {"algorithm": "Ed25519", "name": "../etc"},
        422,
        "invalid_input",
    ),
    "taken name": ({"algorithm": "Ed25519", "name": "signer"}, 409, "name_taken"),
    "long description": (
        {"algorithm": "Ed25519", "description": "x" * 1025},
        422,
        "invalid_input",
    ),
    "many tags": ({"algorithm": "Ed25519", "tags": ["t"] * 33}, 422, "invalid_input"),
    "bad tag": ({"algorithm": "Ed25519", "tags": ["a,b"]}, 422, "invalid_input"),
}


@pytest.mark.parametrize("case", CREATE)
async def test_a_bad_key_is_not_made(small: API, case: str) -> None:
    """Every rule of a new key has its error."""
    body, status, code = CREATE[case]
    before = await small.send("GET", "/keys")
    got = await refusal(small, "POST", "/keys", body=body)

    assert (status, code) == got
    listing = await small.send("GET", "/keys")
    assert before.json["total"] == listing.json["total"]


QUERIES: dict[str, tuple[str, str, int]] = {
    "unknown": ("/keys", "colour=red", 422),
    "twice": ("/keys", "page=1&page=1", 422),
    "not a number": ("/keys", "page=one", 422),
    "empty number": ("/keys", "page=", 422),
    "signed number": ("/keys", "page=%2B1", 422),
    "padded number": ("/keys", "page=01", 422),
    "spaced number": ("/keys", "page=%201", 422),
    "null": ("/keys", "state=null", 422),
    "too small": ("/keys", "page=0", 422),
    "too large": ("/keys", "per_page=1001", 422),
    "huge number": ("/keys", f"page={'9' * 400}", 422),
    "unknown state": ("/keys", "state=asleep", 422),
    "unknown algorithm": ("/keys", "algorithm=rot13", 422),
    "bad cursor": ("/keys", "cursor=%2e%2e", 422),
    "page and cursor": ("/keys", "page=2&cursor=x", 422),
    "no value": ("/keys", "page", 400),
    "not UTF-8": ("/keys", "algorithm=%ff", 400),
    "empty pair": ("/keys", "page=1&&per_page=1", 400),
    "many": ("/keys", "&".join(f"a{n}=1" for n in range(99)), 400),
    "yes": ("/audit/events", "ascending=yes", 422),
    "one": ("/audit/events", "ascending=1", 422),
    "before all years": ("/audit/events", "since=0001-01-01T00:00:00%2B23:59", 422),
    "after all years": ("/audit/events", "until=9999-12-31T23:59:59-23:59", 422),
    "beside JSON": ("/keys/signer/sign", "hash=SHA-256", 422),
    "path field": ("/keys/signer", "key_id=signer", 422),
}


@pytest.mark.parametrize("case", QUERIES)
async def test_a_bad_query_is_refused(small: API, case: str) -> None:
    """A parameter is known, single and well formed, or the request is refused."""
    path, query, status = QUERIES[case]
    more: dict[str, Any] = {"query": query}
    method = "GET"
    if path.endswith("/sign"):
        method, more["body"] = "POST", {"message": ""}
    got = await refusal(small, method, path, **more)

    assert status == got[0]
    assert got[1] in {"invalid_input", "malformed", "unknown_algorithm"}


async def test_a_number_that_is_too_large_is_told_its_limit(small: API) -> None:
    """However long it is, it is an integer."""
    answer = await small.send("GET", "/keys", query=f"page={'9' * 20}")

    assert ("page", "page: Expected `int` <= 10000000.") == (
        answer.json["facts"]["field"],
        answer.json["detail"],
    )


@pytest.mark.parametrize(
    "place",
    [
        "1:",
        "1:d9428888-122b-11e1-b85c",
        f"{2**63}:d9428888-122b-41e1-b85c-61cd3cbb3210",
    ],
)
async def test_a_bad_cursor_is_named(small: API, place: str) -> None:
    """The field is the one that was sent, also if only the place in it is wrong."""
    cursor = base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")
    answer = await small.send("GET", "/keys", query=f"cursor={cursor}")

    assert (422, "cursor") == (answer.status, answer.json["facts"]["field"])
    assert "cursor must be the next_cursor value" in answer.json["detail"]


@pytest.mark.parametrize(
    "key_id",
    [
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e%2f%2e%2e%2fkey.json",
        "..%5c..%5cwindows",
        "..;",
        "%00",
        "a%00b",
        "a%0ab",
        "%ff",
        "%c0%ae%c0%ae",
        "Signer",
        "signer%20",
        "%252e%252e%252f",
        "x" * 65,
        "x" * 5000,
        "-",
        "a%2Fb",
    ],
)
async def test_a_key_id_that_is_a_path_is_refused(small: API, key_id: str) -> None:
    """An id is looked up, never joined to a path."""
    got = await refusal(small, "GET", f"/keys/{key_id}")

    assert (422, "invalid_input") == got


@pytest.mark.parametrize("path", ["/keys/../status", "/keys/.", "/keys/..", "/keys//"])
async def test_a_path_is_not_tidied_up(small: API, path: str) -> None:
    """Dots and empty parts are no other route's name."""
    head, body = await spoken(small, f"GET /api/v1{path} HTTP/1.1")

    assert head.startswith(("HTTP/1.1 404", "HTTP/1.1 422"))
    assert body["code"] in {"route_not_found", "invalid_input"}


@pytest.mark.parametrize(
    "lines",
    [
        "BREW /api/v1/keys HTTP/1.1",
        "GET /api/v1/keys HTTP/9.9",
        "\x16\x03\x01\x02",
        "GET /api/v1/keys HTTP/1.1\r\nBad Header: 1",
        "GET /api/v1/keys HTTP/1.1\r\nHost : x",
        "GET /api/v1/keys HTTP/1.1\r\nX: \x00",
        "GET /api/v1/keys HTTP/1.1\r\nContent-Length: -1",
        "GET /api/v1/keys HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        f"GET /api/v1/keys?{'a' * 140_000} HTTP/1.1",
        f"GET /api/v1/keys HTTP/1.1\r\nAuthorization: Bearer {'a' * 70_000}",
    ],
)
async def test_what_is_not_http_is_a_problem_too(small: API, lines: str) -> None:
    """A message that can't be read is answered in our form, and repeats nothing."""
    head, body = await spoken(small, lines)

    assert " 400 Bad Request" in head.splitlines()[0]
    assert "Server: ferrohsm" in head
    assert "application/problem+json" in head
    assert ("malformed", 400) == (body["code"], body["status"])
    assert "a" * 24 not in json.dumps(small.log)


async def spoken(api: API, lines: str) -> tuple[str, Any]:
    """Send these very bytes, and return the head and the body of the answer."""
    reader, writer = await asyncio.open_connection(*api.address)
    writer.write(f"{lines}\r\nHost: x\r\nConnection: close\r\n".encode("latin-1"))
    writer.write(f"Authorization: Bearer {mint()}\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.decode(), json.loads(body)


@pytest.mark.parametrize("name", ["nothing", "3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11"])
async def test_a_key_that_is_not_there_is_not_found(small: API, name: str) -> None:
    """404 has its code."""
    assert (404, "key_not_found") == await refusal(small, "GET", f"/keys/{name}")


TYPES = [
    {"Content-Type": "text/plain"},
    {"Content-Type": "application/x-www-form-urlencoded"},
    {"Content-Type": "multipart/form-data; boundary=x"},
    {"Content-Type": "application/json; charset=utf-16"},
    {"Content-Type": "application/json; charset=latin-1"},
    {"Content-Type": "application/json; version=2"},
    {"Content-Type": "application/jsonx"},
    {"Content-Type": "application/problem+json"},
    {"Content-Type": ""},
    {"Content-Type": "application/octet-stream; x=y"},
    {**JSON, "Content-Encoding": "gzip"},
    {**JSON, "Content-Encoding": "deflate"},
    {**JSON, "Content-Encoding": "identity, br"},
    {},
]


@pytest.mark.parametrize("headers", TYPES, ids=str)
async def test_another_type_is_refused(small: API, headers: dict[str, str]) -> None:
    """A body is JSON, or bytes where the route takes them."""
    got = await refusal(
        small, "POST", "/keys/signer/sign", data=b'{"message":""}', headers=headers
    )

    assert (415, "unsupported_media_type") == got


async def test_bytes_are_refused_where_they_mean_nothing(small: API) -> None:
    """Not every route has a bare form."""
    got = await refusal(small, "POST", "/keys/signer/rotate", data=b"x", headers=BYTES)

    assert (415, "unsupported_media_type") == got


@pytest.mark.parametrize("charset", ["", ";charset=utf-8", '; charset="UTF-8"'])
async def test_utf8_may_be_said(small: API, charset: str) -> None:
    """JSON is UTF-8, whether that is said or not."""
    answer = await small.send(
        "POST",
        "/random",
        data=b'{"length":1}',
        headers={"Content-Type": f"application/json{charset}"},
    )

    assert 200 == answer.status


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_body_where_none_belongs_is_refused(small: API, method: str) -> None:
    """A body that nobody reads may hide something."""
    got = await refusal(small, method, "/keys/signer", data=b"{}", headers=JSON)

    assert (400, "malformed") == got


async def test_an_unknown_route_is_a_problem(small: API) -> None:
    """Even what is not ours is answered in our form."""
    assert (404, "route_not_found") == await refusal(small, "GET", "/nothing")
    assert (404, "route_not_found") == await refusal(small, "GET", "//nothing")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE"])
async def test_another_method_is_told_the_right_ones(small: API, method: str) -> None:
    """405 says what the route takes."""
    answer = await small.send(method, "/keys")

    assert 405 == answer.status
    assert "GET,HEAD,POST" == answer.headers["Allow"]


async def test_a_large_json_body_names_its_limit(small: API) -> None:
    """413 tells which limit, and what it is."""
    answer = await small.send("POST", "/keys/signer/sign", body={"message": "A" * 5000})

    assert (413, "payload_too_large") == (answer.status, answer.code)
    assert "body" == answer.json["facts"]["field"]
    assert 4096 == answer.json["facts"]["maximum"]


async def test_a_large_payload_names_its_limit(small: API) -> None:
    """A body within its limit may still hold too much."""
    answer = await small.send(
        "POST", "/keys/signer/sign", body={"message": b64(bytes(1025))}
    )

    assert (413, "payload_too_large") == (answer.status, answer.code)
    assert ("message", 1024) == (
        answer.json["facts"]["field"],
        answer.json["facts"]["maximum"],
    )


async def test_a_large_raw_body_names_its_limit(small: API) -> None:
    """Bytes have their own limit."""
    answer = await small.send(
        "POST", "/keys/signer/sign", data=bytes(8193), headers=BYTES
    )

    assert (413, 8192) == (answer.status, answer.json["facts"]["maximum"])
    fits = await small.send(
        "POST", "/keys/signer/sign", data=bytes(8192), headers=BYTES
    )
    assert 200 == fits.status


async def test_large_additional_data_names_its_limit() -> None:
    """AAD is limited too."""
    body = {"plaintext": b64(b"x"), "aad": b64(bytes(65_537))}
    async with open_api() as api:
        await api.create("AES-256-GCM", name="cipher")
        answer = await api.send("POST", "/keys/cipher/encrypt", body=body)

    assert (413, "payload_too_large") == (answer.status, answer.code)
    assert ("aad", 65_536) == (
        answer.json["facts"]["field"],
        answer.json["facts"]["maximum"],
    )


async def test_a_chunked_body_is_counted_while_it_comes(small: API) -> None:
    """Without a length in front, reading stops at the limit."""

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield bytes(1000)

    answer = await small.send(
        "POST", "/keys/signer/sign", data=endless(), headers=BYTES
    )

    assert (413, "payload_too_large") == (answer.status, answer.code)


async def test_a_slow_body_is_given_up() -> None:
    """A body that trickles does not hold a connection for ever."""

    async def trickle() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x"
            await asyncio.sleep(0.1)

    limits = HTTPLimits(body_timeout_seconds=0.3)
    async with open_api(ServerSettings(limits=limits)) as api:
        answer = await api.send("POST", "/random", data=trickle(), headers=JSON)

    assert (408, "request_timeout") == (answer.status, answer.code)
    assert "close" == answer.headers["Connection"]


async def test_a_wrong_signature_is_told_as_such(small: API) -> None:
    """422 signature_mismatch, of whatever length the signature is."""
    for signature in (b"", bytes(63), bytes(64), bytes(65)):
        body = {"message": b64(b"hello"), "signature": b64(signature)}
        got = await refusal(small, "POST", "/keys/signer/verify", body=body)
        assert (422, "signature_mismatch") == got


async def test_a_wrong_mac_is_told_as_such(small: API) -> None:
    """422 mac_mismatch."""
    body = {"message": b64(b"hello"), "mac": b64(bytes(32))}
    got = await refusal(small, "POST", "/keys/mac/mac/verify", body=body)

    assert (422, "mac_mismatch") == got


async def test_every_decryption_failure_is_one_answer(small: API) -> None:
    """Truncated, changed, of another key, with other data: nothing is told."""
    await small.create("AES-256-GCM", name="other")
    sealed = await small.send(
        "POST",
        "/keys/cipher/encrypt",
        body={"plaintext": b64(b"secret"), "aad": b64(b"a")},
    )
    good = base64.b64decode(sealed.json["ciphertext"])
    attempts = [
        *(("cipher", good[:end], b"a") for end in (0, 1, 10, 40, -1)),
        ("cipher", good + b"\0", b"a"),
        *(
            ("cipher", good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :], b"a")
            for at in range(len(good))
        ),
        ("cipher", good, b"b"),
        ("cipher", good, b""),
        ("other", good, b"a"),
    ]
    bodies = set()
    for name, ciphertext, aad in attempts:
        answer = await small.send(
            "POST",
            f"/keys/{name}/decrypt",
            body={"ciphertext": b64(ciphertext), "aad": b64(aad)},
            headers={"X-Request-Id": "same"},
        )
        assert 422 == answer.status
        bodies.add(answer.body)

    assert 1 == len(bodies)
    assert "decryption_failed" == json.loads(bodies.pop())["code"]


async def test_wrong_usage_and_wrong_state_are_conflicts(small: API) -> None:
    """The request is fine; the key is not for it."""
    await small.create("RSA-2048", name="only-verify", usages=["verify"])
    sign = {"message": b64(b"x")}
    usage = await refusal(small, "POST", "/keys/only-verify/sign", body=sign)
    await small.send("POST", "/keys/signer/revoke", body={"reason": "test"})
    state = await refusal(small, "POST", "/keys/signer/sign", body=sign)

    assert (409, "usage_not_allowed") == usage
    assert (409, "wrong_state") == state


async def test_an_operation_of_another_family_is_refused(small: API) -> None:
    """A cipher does not sign."""
    status, code = await refusal(
        small, "POST", "/keys/cipher/sign", body={"message": ""}
    )

    assert (status, code) in {
        (422, "unsupported_operation"),
        (409, "usage_not_allowed"),
    }


@pytest.mark.parametrize("version", [0, -1, 2**32, "1", 1.5, True, None])
async def test_a_bad_version_is_refused(small: API, version: object) -> None:
    """A version is a whole number from 1."""
    got = await refusal(
        small, "POST", "/keys/signer/rollback", body={"version": version}
    )

    assert (422, "invalid_input") == got


async def test_a_version_that_is_not_there_is_not_found(small: API) -> None:
    """A rollback to nowhere changes nothing."""
    status, code = await refusal(
        small, "POST", "/keys/mac/rollback", body={"version": 7}
    )

    assert (404, "key_not_found") == (status, code)


@pytest.mark.parametrize("length", [0, -1, 1_048_577, "8", 1e3])
async def test_a_bad_length_of_random_bytes_is_refused(
    small: API, length: object
) -> None:
    """1 byte to 1 MiB."""
    got = await refusal(small, "POST", "/random", body={"length": length})

    assert (422, "invalid_input") == got


@pytest.mark.parametrize("given", ["", "x", "-1", "01", "12345678901234567"])
async def test_an_event_id_of_nobody(small: API, given: str) -> None:
    """Even where no live view is asked for, an id that no event has is refused."""
    answer = await small.send("GET", "/audit/events", headers={"Last-Event-ID": given})

    assert (422, "invalid_input") == (answer.status, answer.code)


async def test_an_event_id_means_nothing_to_a_page(small: API) -> None:
    """A page begins where its query says."""
    answer = await small.send("GET", "/audit/events", headers={"Last-Event-ID": "5"})

    assert 200 == answer.status


async def test_no_body_again_and_again(small: API) -> None:
    """Requests without a body are answered, however many there are."""
    for _ in range(3):
        async with asyncio.timeout(30):
            found = await refusal(small, "POST", "/keys", data=b"", headers=JSON)
        assert (422, "invalid_input") == found
