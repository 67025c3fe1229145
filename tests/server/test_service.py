# SPDX-License-Identifier: MIT
"""Health, metrics, log, request ids, headers, and faults that nobody thought of."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any, NoReturn

import pytest

from hsm_core.errors import StoreUnavailableError
from hsm_core.model import Caller, TokenClaims
from hsm_core.operations import AuditPage, ListAuditEvents, Operation
from hsm_core.protocols import Request
from hsm_server.http import state
from hsm_server.http.state import HEALTH, METRICS
from tests.server.support import API, SECRET, b64, mint, open_api


class Broken:
    """A gateway whose every operation raises the same."""

    revision = 0

    def __init__(self, error: BaseException, *, but: type[Any] | None = None) -> None:
        self.error = error
        self.refusals: list[tuple[str, str]] = []

    def act_as(self, caller: Caller, /) -> "Broken":
        """Return the same for everybody."""
        return self

    def asks_for_single_use(self) -> bool:
        """Ask for nothing."""
        return False

    def identify(self, caller: Caller, /) -> None:
        """Know nobody."""

    def identify_token(self, token: TokenClaims, /) -> None:
        """Know nobody."""

    def execute_many(self, requests: Sequence[Request], /) -> list[asyncio.Future[Any]]:
        """Fail each."""
        return [asyncio.ensure_future(self.execute(r.operation)) for r in requests]

    async def follow(
        self, operation: ListAuditEvents, /
    ) -> AsyncGenerator[AuditPage, None]:
        """Fail."""
        yield await self.execute(operation)

    async def status(self) -> NoReturn:
        """Fail, as a vault."""
        raise self.error

    async def execute(
        self,
        operation: Operation[Any],
        /,
        *,
        idempotency_key: str | None = None,
        approval_id: str = "",
        expected_generation: int = 0,
    ) -> NoReturn:
        """Fail."""
        raise self.error

    async def record_refusal(
        self,
        caller: Caller,
        code: str,
        /,
        *,
        kind: str = "Authenticate",
        key_id: str = "",
    ) -> None:
        """Keep it."""
        self.refusals.append((kind, code))

    async def record_visit(self, caller: Caller, /, *, kind: str) -> None:
        """Keep it too."""
        self.refusals.append((kind, "ok"))


class Stuck:
    """A vault that never answers."""

    asked = 0

    async def status(self) -> NoReturn:
        """Wait."""
        self.asked += 1
        await asyncio.Event().wait()
        raise AssertionError("Nobody sets it.")


@pytest.mark.parametrize("page", ["//livez", "//readyz", "//healthz"])
async def test_live_and_ready_and_healthy(api: API, page: str) -> None:
    """Anybody may ask, and learns nothing but that all is well."""
    answer = await api.send("GET", page, token="")

    assert 200 == answer.status
    assert {"status", "version", "uptime_seconds"} == answer.json.keys()
    assert "ok" == answer.json["status"]


async def test_live_without_a_vault() -> None:
    """Who looks whether a process lives learns nothing of the vault."""
    async with open_api(gateway=Broken(StoreUnavailableError())) as api:
        pages = ("//livez", "//readyz", "//healthz")
        answers = [await api.send("GET", page, token="") for page in pages]

    assert [200, 503, 503] == [answer.status for answer in answers]
    assert ["ok", "unavailable", "degraded"] == [a.json["status"] for a in answers]


async def test_a_stuck_vault_is_not_waited_for(
    api: API, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Health and readiness say so soon, also to those who ask meanwhile.

    Who looks whether the process lives asks nobody.
    """
    vault, check = Stuck(), api.app[HEALTH]
    monkeypatch.setattr(check, "_vault", vault)
    monkeypatch.setattr(check, "_asked_at", float("-inf"))
    monkeypatch.setattr(state, "STATUS_SECONDS", 0.1)
    async with asyncio.timeout(30):
        live = await api.send("GET", "//livez", token="")
        assert (200, 0) == (live.status, vault.asked)
        pages = ("//readyz", "//healthz", "//readyz")
        answers = await asyncio.gather(
            *(api.send("GET", page, token="") for page in pages)
        )

    assert [503] * 3 == [answer.status for answer in answers]
    assert 1 == vault.asked


async def test_metrics_forget_an_hsm_that_is_gone(
    api: API, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was true of store and trail is not shown for ever."""
    assert "ferrohsm_store_available 1.0" in await _metrics(api)

    check = api.app[HEALTH]
    monkeypatch.setattr(check, "_vault", Broken(StoreUnavailableError()))
    monkeypatch.setattr(check, "_asked_at", float("-inf"))
    text = await _metrics(api)

    assert "ferrohsm_store_available 0.0" in text
    assert "ferrohsm_audit_available 0.0" in text
    assert 'ferrohsm_audit_state{state="ok"} 0.0' in text


async def _metrics(api: API) -> str:
    answer = await api.send("GET", "//metrics", token="")
    return answer.body.decode()


async def test_health_asks_the_hsm_once_a_second(api: API) -> None:
    """A flood of questions is one question, and none is recorded."""
    before = len(await api.events())
    calls = 0
    vault = api.app[HEALTH]._vault  # noqa: SLF001 (counts what goes through)
    real = vault.status

    async def counted() -> Any:
        nonlocal calls
        calls += 1
        return await real()

    vault.status = counted  # type: ignore[method-assign]
    await asyncio.gather(*(api.send("GET", "//healthz", token="") for _ in range(40)))

    assert calls <= 1
    assert before + 1 == len(await api.events())


async def test_a_locked_hsm_is_not_healthy(api: API) -> None:
    """It answers with its own code, and is shown as locked until it is recovered."""
    await api.create("Ed25519", name="signer")
    services: Any = api.hsm._services  # noqa: SLF001 (to lock it)
    services.inventory.lock.set("A test.", {"reason": "test"})
    check = api.app[HEALTH]
    check._asked_at = float("-inf")  # noqa: SLF001 (the second is over)

    shown = await api.send("GET", "//healthz", token="")
    metrics = await _metrics(api)
    refused = await api.send("GET", "/keys/signer")
    status = await api.send("GET", "/status")

    assert (503, "degraded") == (shown.status, shown.json["status"])
    assert "ferrohsm_locked 1.0" in metrics
    assert (503, "hsm_locked") == (refused.status, refused.json["code"])
    assert "locked" == status.json["state"]


async def test_metrics_count_what_happened(api: API) -> None:
    """Requests by operation and code, failures, uptime; no key and no name."""
    await api.create("Ed25519", name="signer")
    await api.send("POST", "/keys/signer/sign", body={"message": b64(b"x")})
    await api.send("GET", "/keys/nothing")
    await api.send("GET", "/status", token="forged")
    answer = await api.send("GET", "//metrics", token="")
    text = answer.body.decode()

    assert "text/plain; version=0.0.4; charset=utf-8" == answer.headers["Content-Type"]
    for line in (
        'ferrohsm_requests_total{code="ok",operation="Sign"} 1.0',
        'ferrohsm_requests_total{code="key_not_found",operation="DescribeKey"} 1.0',
        'ferrohsm_requests_total{code="authentication_failed",operation="Status"} 1.0',
        'ferrohsm_request_seconds_count{operation="Sign"} 1.0',
        "ferrohsm_auth_jwt_failure_total 1.0",
        "ferrohsm_unexpected_exceptions_total 0.0",
        "ferrohsm_audit_available 1.0",
    ):
        assert f"{line}\n" in text
    assert "ferrohsm_uptime_seconds" in text
    assert "signer" not in text
    assert "alice" not in text


async def test_labels_are_bounded(api: API) -> None:
    """Nobody can fill the memory with made-up routes."""
    for number in range(20):
        await api.send("GET", f"/made-up-{number}", token="")
    text = (await api.send("GET", "//metrics", token="")).body.decode()

    line = 'ferrohsm_requests_total{code="route_not_found",operation="none"} 20.0'
    assert f"{line}\n" in text
    assert "made-up" not in text


@pytest.mark.parametrize(
    "page",
    [
        *("//healthz", "//livez", "//readyz", "//metrics", "/openapi.json"),
        "//.well-known/jwks.json",
    ],
)
async def test_open_pages_are_strict_too(api: API, page: str) -> None:
    """No query, no body, no other method."""
    query = await api.send("GET", page, token="", query="x=1")
    body = await api.send("GET", page, token="", data=b"x")
    method = await api.send("POST", page, token="")

    assert (422, "invalid_input") == (query.status, query.code)
    assert (400, "malformed") == (body.status, body.code)
    assert (405, "GET,HEAD") == (method.status, method.headers["Allow"])


@pytest.mark.parametrize(
    "page",
    [
        *("//healthz", "//livez", "//readyz", "//metrics", "//.well-known/jwks.json"),
        *("/openapi.json", "/keys", "/keys/{key}", "/status", "/nothing"),
        *("/audit/events", "//ui/sign-in", "//ui/static/console.css", "//ui/keys"),
    ],
)
async def test_head_is_get_without_a_body(api: API, page: str) -> None:
    """Wherever GET works, with the same status and header fields."""
    key = (await api.create("Ed25519"))["key_id"]
    path = page.format(key=key)
    token = "" if page.startswith("//") else None
    get = await api.send("GET", path, token=token)
    head = await api.send("HEAD", path, token=token)
    varying = {"Date", "Content-Length", "X-Request-Id"}

    assert get.status == head.status
    assert b"" == head.body
    assert get.headers.keys() - varying == head.headers.keys() - varying
    assert get.headers.get("ETag") == head.headers.get("ETag")


async def test_head_of_a_live_view_ends(api: API) -> None:
    """Its header fields are all there is."""
    headers = {"Accept": "text/event-stream"}
    async with asyncio.timeout(60):
        head = await api.send("HEAD", "/audit/events", headers=headers)

    assert (200, b"") == (head.status, head.body)
    assert "text/event-stream" == head.headers["Content-Type"]


async def test_a_secret_is_never_published(api: API) -> None:
    """The set of public keys is empty where tokens are verified with a secret."""
    page = "//.well-known/jwks.json"
    answer = await api.send("GET", page, token="")
    tag = answer.headers["ETag"]
    again = await api.send("GET", page, token="", headers={"If-None-Match": tag})

    assert (200, b'{"keys":[]}') == (answer.status, answer.body)
    assert "application/jwk-set+json" == answer.headers["Content-Type"]
    assert "public, max-age=30" == answer.headers["Cache-Control"]
    assert (304, b"") == (again.status, again.body)
    assert tag == again.headers["ETag"]


@pytest.mark.parametrize("given", ["a", "A-b.c_9", "x" * 64])
async def test_a_good_request_id_is_kept(api: API, given: str) -> None:
    """The caller's id goes through to the answer."""
    answer = await api.send("GET", "/status", headers={"X-Request-Id": given})

    assert given == answer.headers["X-Request-Id"]


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a/b", "<script>", '"'])
async def test_another_request_id_is_replaced(api: API, given: str) -> None:
    """What could confuse a log is not taken over."""
    answer = await api.send("GET", "/status", headers={"X-Request-Id": given})

    assert given != answer.headers["X-Request-Id"]
    assert 16 == len(answer.headers["X-Request-Id"])


@pytest.mark.parametrize(
    ("path", "token"),
    [("/status", None), ("/status", ""), ("/nothing", None), ("//healthz", "")],
)
async def test_every_answer_has_the_common_headers(
    api: API, path: str, token: str | None
) -> None:
    """Nothing is cached, sniffed or framed, and no version is told."""
    answer = await api.send("GET", path, token=token)

    assert "no-store" == answer.headers["Cache-Control"]
    assert "nosniff" == answer.headers["X-Content-Type-Options"]
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "max-age=" in answer.headers["Strict-Transport-Security"]
    assert "ferrohsm" == answer.headers["Server"]


async def test_an_unexpected_exception_tells_nothing() -> None:
    """500 without detail; type and place in the log, values nowhere."""
    broken = Broken(RuntimeError("S3CRET in a message"))
    async with open_api(gateway=broken) as api:
        answer = await api.send("GET", "/status")
        log, count = api.log, api.unexpected

    assert (500, "internal") == (answer.status, answer.code)
    assert "The request failed." == answer.json["detail"]
    assert 1 == count
    (line,) = [line for line in log if line["event"] == "unexpected"]
    assert "RuntimeError" == line["error"]
    assert line["place"].startswith("test_service.py:")
    assert "S3CRET" not in json.dumps(log) + answer.body.decode()


async def test_the_log_tells_what_happened_and_no_secret(api: API) -> None:
    """A line per request, with its outcome; no token, no payload."""
    token = mint()
    await api.create("AES-256-GCM", name="cipher")
    await api.send(
        "POST",
        "/keys/cipher/encrypt",
        token=token,
        body={"plaintext": b64(b"PLAINTEXT-PLAINTEXT")},
        headers={"X-Request-Id": "req-7"},
    )
    (line,) = [line for line in api.log if line.get("request_id") == "req-7"]
    text = json.dumps(api.log)

    assert ("Encrypt", 200, "ok") == (line["operation"], line["status"], line["code"])
    assert ("alice", "POST", "info") == (
        line["principal"],
        line["method"],
        line["level"],
    )
    for secret in (token, token[-43:], b64(b"PLAINTEXT-PLAINTEXT"), SECRET.decode()):
        assert secret not in text


async def test_a_client_that_goes_away_is_no_fault(api: API) -> None:
    """A connection that breaks in a body is not our exception."""
    reader, writer = await asyncio.open_connection(*api.address)
    head = (
        "POST /api/v1/random HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {mint()}\r\nContent-Length: 100\r\n\r\n"
    )
    writer.write(head.encode() + b'{"len')
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0.1)

    assert 0 == api.unexpected
    assert reader.at_eof() or not await reader.read(1)
    assert 200 == (await api.send("GET", "/status")).status


async def test_each_application_counts_for_itself(api: API) -> None:
    """There is no global registry."""
    async with open_api() as other:
        await other.send("GET", "/status", token="forged")

        assert "failure_total 1.0" in other.app[METRICS].exposition().decode()
    assert "failure_total 0.0" in api.app[METRICS].exposition().decode()
