# SPDX-License-Identifier: MIT
"""Spans of requests: what they tell, where they go, and when there are none."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from hsm_core.errors import ConfigurationError, StoreUnavailableError
from hsm_server.config.loading import tracing_settings
from hsm_server.config.settings import TracingSettings
from hsm_server.observability.otlp import OTLPTracing
from hsm_server.observability.tracing import (
    NO_TRACING,
    check_tracing,
    open_tracing,
    parent_of,
)
from tests.server.family import wait_until
from tests.server.process import Site
from tests.server.support import SECRET, b64, mint, open_api
from tests.server.test_service import Broken

URL = "http://127.0.0.1:4318/v1/traces"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
UNSAMPLED = f"00-{TRACE}-00f067aa0ba902b7-00"


class Traced:
    """Tracing into memory."""

    def __init__(self, **settings: Any) -> None:
        self._kept = InMemorySpanExporter()
        given = TracingSettings(endpoint=URL, **settings)
        self.tracing = OTLPTracing(given, self._kept)

    def spans(self) -> list[ReadableSpan]:
        """Return every span, now that no more will come."""
        self.tracing.close()
        return list(self._kept.get_finished_spans())


async def test_a_span_tells_what_the_log_does() -> None:
    """Operation, outcome, status and id; not who asked, nor of which key."""
    traced = Traced(service_name="hsm-1", attributes=(("zone", "a"),))
    async with open_api(tracing=traced.tracing) as api:
        headers = {"X-Request-Id": "req-7", "traceparent": PARENT}
        await api.send("GET", "/keys/nothing", headers=headers)
        (line,) = [row for row in api.log if row.get("request_id") == "req-7"]
    (span,) = traced.spans()
    text = span.to_json()

    assert ("DescribeKey", SpanKind.SERVER) == (span.name, span.kind)
    assert {
        "http.request.method": "GET",
        "http.response.status_code": 404,
        "ferrohsm.operation": "DescribeKey",
        "ferrohsm.code": "key_not_found",
        "ferrohsm.request_id": "req-7",
        "error.type": "key_not_found",
    } == dict(span.attributes or {})
    assert {"service.name": "hsm-1", "zone": "a"}.items() <= (
        span.resource.attributes.items()
    )
    assert span.start_time is not None
    assert span.end_time is not None
    assert 0 < span.end_time - span.start_time < 60e9
    assert TRACE == line["trace_id"]
    assert f"0x{TRACE}" == json.loads(text)["context"]["trace_id"]
    assert "0x00f067aa0ba902b7" == json.loads(text)["parent_id"]
    assert "alice" not in text
    assert "nothing" not in text
    # What a client has asked for in vain is no fault of the server.
    assert StatusCode.UNSET is span.status.status_code


async def test_a_fault_of_ours_is_an_error() -> None:
    """A status from 500 on marks the span; what the exception says is not in it."""
    traced = Traced()
    broken = Broken(StoreUnavailableError("S3CRET"))
    async with open_api(gateway=broken, tracing=traced.tracing) as api:
        await api.send("GET", "/status")
    (span,) = traced.spans()

    assert StatusCode.ERROR is span.status.status_code
    assert "store_unavailable" == (span.attributes or {})["error.type"]
    assert "S3CRET" not in span.to_json()


async def test_pages_of_machines_have_no_spans() -> None:
    """Whoever looks every second whether we live would bury all else."""
    traced = Traced()
    async with open_api(tracing=traced.tracing) as api:
        for page in ("//healthz", "//livez", "//readyz", "//metrics"):
            await api.send("GET", page, token="", headers={"traceparent": PARENT})
        await api.send("GET", "/nothing", token="")
        log = [row for row in api.log if row["operation"] in {"healthz", "metrics"}]

    assert ["none"] == [span.name for span in traced.spans()]
    assert [TRACE] * 2 == [row["trace_id"] for row in log]


async def test_without_tracing_the_log_still_knows() -> None:
    """The id of the caller's trace is in the line, and there is no other."""
    async with open_api() as api:
        await api.send("GET", "/status", headers={"traceparent": PARENT})
        await api.send("GET", "/status")
        found = [row.get("trace_id") for row in api.log if row["event"] == "request"]

    assert [TRACE, None] == found


@pytest.mark.parametrize(
    "given",
    [
        [],
        [""],
        [PARENT, PARENT],
        [PARENT + "\n"],
        [PARENT.upper()],
        [PARENT[3:]],
        ["ff" + PARENT[2:]],
        [f"00-{'0' * 32}-00f067aa0ba902b7-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"00-{TRACE[1:]}-00f067aa0ba902b7-01"],
        [PARENT + "-more"],
        [f"{PARENT}, {PARENT}"],
        ["x" * 100_000],
    ],
    ids=[
        *("none", "empty", "two", "line-break", "capitals", "no-version", "version-ff"),
        *("zero-trace", "zero-parent", "short", "longer", "list", "huge"),
    ],
)
def test_what_is_no_parent(given: list[str]) -> None:
    """It is passed over: the request has a trace of its own."""
    assert "" == parent_of(given)


@pytest.mark.parametrize(
    ("sampler", "parent", "count"),
    [
        ("always_on", "", 1),
        ("always_on", UNSAMPLED, 1),
        ("always_off", PARENT, 0),
        ("traceidratio", "", 0),
        ("parentbased_always_on", "", 1),
        ("parentbased_always_on", UNSAMPLED, 0),
        ("parentbased_always_off", "", 0),
        ("parentbased_always_off", PARENT, 1),
        ("parentbased_traceidratio", "", 0),
        ("parentbased_traceidratio", PARENT, 1),
    ],
)
async def test_samplers(sampler: str, parent: str, count: int) -> None:
    """Each goes by the parent or by its own rule, as OpenTelemetry defines them."""
    traced = Traced(sampler=sampler, ratio=0.0)
    async with open_api(tracing=traced.tracing) as api:
        headers = {"traceparent": parent} if parent else {}
        await api.send("GET", "/status", headers=headers)

    assert count == len(traced.spans())


def test_nothing_is_sent_unless_asked_for() -> None:
    """Without an endpoint there is no tracing."""
    assert NO_TRACING is open_tracing(TracingSettings())


def test_what_sends_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for spans and lacks the extra is told what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_tracing(TracingSettings())
    with pytest.raises(ConfigurationError, match=r"hsm-server\[otel\]"):
        check_tracing(TracingSettings(endpoint=URL))


def _settings(endpoint: str | None = None, **environment: str) -> TracingSettings:
    return tracing_settings({"otel_endpoint": endpoint}, environment)


def test_the_variables_of_opentelemetry() -> None:
    """Endpoint, name, attributes, sampler and certificate are taken from them."""
    found = _settings(
        OTEL_EXPORTER_OTLP_ENDPOINT="https://collector:4318/",
        OTEL_EXPORTER_OTLP_CERTIFICATE="/ca.pem",
        OTEL_RESOURCE_ATTRIBUTES="zone=a%2Cb, service.name=other ,x=1=2",
        OTEL_TRACES_SAMPLER="traceidratio",
        OTEL_TRACES_SAMPLER_ARG="0.25",
    )

    assert (
        TracingSettings(
            endpoint="https://collector:4318/v1/traces",
            service_name="other",
            attributes=(("zone", "a,b"), ("x", "1=2")),
            sampler="traceidratio",
            ratio=0.25,
            certificate=Path("/ca.pem"),
        )
        == found
    )


def test_what_comes_first() -> None:
    """The flag, then what is said of traces, then what is said of everything."""
    everything = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1"}
    traces = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b:1/x"}

    assert "http://c:1/v1/traces" == _settings(**everything).endpoint
    assert "http://b:1/x" == _settings(**everything, **traces).endpoint
    assert "http://a:1/" == _settings("http://a:1/", **everything, **traces).endpoint


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_SERVICE_NAME": "x", "OTEL_EXPORTER_OTLP_HEADERS": "a=b"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1", "OTEL_SDK_DISABLED": "True"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1", "OTEL_TRACES_EXPORTER": "none"},
    ],
    ids=["nothing", "others", "disabled", "no-traces"],
)
def test_off(environment: dict[str, str]) -> None:
    """Nothing is sent, and nothing is complained of."""
    assert TracingSettings() == _settings(**environment)


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=S3CRET"},
        {"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "api-key=S3CRET"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_TRACES_SAMPLER": "sometimes"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1.5"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "nan"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "x"},
        {"OTEL_RESOURCE_ATTRIBUTES": "zone"},
        {"OTEL_RESOURCE_ATTRIBUTES": "=a"},
    ],
    ids=[
        *("headers", "headers-of-traces", "protocol", "exporter", "sampler"),
        *("ratio", "nan", "no-ratio", "no-value", "no-name"),
    ],
)
def test_what_is_not_supported(environment: dict[str, str]) -> None:
    """It is refused at the start, and no secret is repeated."""
    with pytest.raises(ConfigurationError, match="OTEL_") as caught:
        _settings(URL, **environment)

    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["localhost:4318", "ftp://a/", "http://", "http://u:S3CRET@a/", "http://["]
)
def test_what_is_no_endpoint(url: str) -> None:
    """It is refused, and not repeated."""
    with pytest.raises(ConfigurationError, match="otel-endpoint") as caught:
        _settings(url)

    assert "S3CRET" not in str(caught.value)


class Collector:
    """Takes spans as a collector does, on loopback."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                collector.bodies.append(self.rfile.read(length))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"

    @contextlib.contextmanager
    def running(self) -> Iterator["Collector"]:
        """Serve until the end of the block."""
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def spans(self) -> list[Any]:
        """Return every span that has arrived."""
        return [
            span
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.mark.parametrize("isolation", ["process", "inline"])
def test_a_server_sends_spans(tmp_path: Path, isolation: str) -> None:
    """They arrive at its end at the latest, with no secret, whatever was asked."""
    site = Site(tmp_path, isolation)
    plaintext = b64(b"PLAINTEXT-PLAINTEXT")
    token = mint()
    with Collector().running() as collector:
        with site.serve("--otel-endpoint", collector.url) as server:
            key = {"algorithm": "AES-256-GCM", "name": "cipher"}
            server.send("POST", "/api/v1/keys", key, token=token)
            path = "/api/v1/keys/cipher/encrypt"
            server.send("POST", path, {"plaintext": plaintext}, token=token)
            server.process.terminate()
            assert 0 == server.process.wait(30)
        wait_until(lambda: 2 <= len(collector.spans()))
        names = {span.name for span in collector.spans()}
        told = b"".join(collector.bodies)
    lines = [row for row in site.log() if row["event"] == "request"]

    assert {"CreateKey", "Encrypt"} == names
    ids = {span.trace_id.hex() for span in collector.spans()}
    assert ids == {row["trace_id"] for row in lines}
    for secret in (token, token[-43:], plaintext, "PLAINTEXT", SECRET.decode()):
        assert secret.encode() not in told


def test_a_collector_that_is_gone_stops_nobody(tmp_path: Path) -> None:
    """Requests are answered, and the server ends in time."""
    site = Site(tmp_path)
    with site.serve("--otel-endpoint", "http://127.0.0.1:9/v1/traces") as server:
        assert 200 == server.send("GET", "/api/v1/status").status
        server.process.terminate()

        assert 0 == server.process.wait(30)
    assert "killed" not in {row["event"] for row in site.log()}


PLANTED = "PLANTED7f3a9c"
"""Stands in every place where a client may put something by mistake."""


async def test_what_was_planted_comes_out_nowhere() -> None:
    """Log, metrics and spans hold nothing that a client has sent, wherever it stood."""
    traced = Traced()
    everywhere = {
        "Authorization": f"Bearer {PLANTED}",
        "Cookie": f"session={PLANTED}",
        "Idempotency-Key": PLANTED,
        "Referer": f"https://example.com/{PLANTED}",
        "User-Agent": PLANTED,
        "X-Forwarded-For": PLANTED,
        "X-Request-Id": f"{PLANTED} with blanks",
        "FerroHSM-Approval": PLANTED,
        "traceparent": f"00-{PLANTED}",
        "tracestate": f"a={PLANTED}",
    }
    body = {"algorithm": "Ed25519", "name": PLANTED, PLANTED: PLANTED}
    async with open_api(tracing=traced.tracing) as api:
        for token in ("", None):
            headers = dict(everywhere)
            if token is None:
                headers["Authorization"] = f"Bearer {mint()}"
            sent: list[tuple[str, str, dict[str, Any]]] = [
                ("POST", "/keys", {"body": body}),
                ("POST", "/keys", {"data": PLANTED.encode()}),
                ("GET", f"/keys/{PLANTED}", {}),
                ("GET", f"//{PLANTED}", {}),
                ("GET", "/keys", {"query": f"{PLANTED}={PLANTED}"}),
                ("GET", "//metrics", {"query": PLANTED}),
                (PLANTED, "/keys", {}),
                ("POST", f"/keys/{PLANTED}/decrypt", {"body": {"ciphertext": PLANTED}}),
            ]
            for method, path, more in sent:
                await api.send(method, path, token="", headers=headers, **more)
        text = json.dumps(api.log)
        shown = (await api.send("GET", "//metrics", token="")).body.decode()
        # What is no method at all is refused before it is a request.
        assert 14 <= len([row for row in api.log if row["event"] == "request"])
    spans = "".join(span.to_json() for span in traced.spans())

    assert "DescribeKey" in spans
    for told in (text, shown, spans):
        assert PLANTED.lower() not in told.lower()
