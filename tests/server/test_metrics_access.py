# SPDX-License-Identifier: MIT
"""Who may read the metrics: everybody, who has the token, or this machine alone."""

import hashlib
import http.client
import socket
from pathlib import Path

import pytest

from hsm_core.errors import ConfigurationError, UnsafeFileModeError
from hsm_server.app import create_metrics_app
from hsm_server.config.annotations import Address
from hsm_server.config.loading import metrics_settings, metrics_warning
from hsm_server.config.settings import MetricsSettings, ServerSettings
from hsm_server.config.tls import ClientSettings, PairFiles, TLSSettings
from hsm_server.http.listener import Listener
from tests.server.process import Site
from tests.server.support import Answer, mint, open_api

TOKEN = "metrics-token-of-32-characters-0"
GUARDED = MetricsSettings(token_sha256=hashlib.sha256(TOKEN.encode()).hexdigest())
ASKS = TLSSettings(
    pairs=(PairFiles(cert=Path("cert.pem"), key=Path("key.pem")),),
    client=ClientSettings(ca=Path("ca.pem")),
)


def _file(folder: Path, content: str, mode: int = 0o600) -> Path:
    path = folder / "token"
    path.write_text(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    "header",
    [
        *("", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", f"Basic {TOKEN}"),
        f"Bearer {GUARDED.token_sha256}",
    ],
    ids=["none", "shorter", "longer", "basic", "hash"],
)
async def test_without_the_token(header: str) -> None:
    """Nothing is shown, and the answer is that to any bad credential."""
    async with open_api(ServerSettings(metrics=GUARDED)) as api:
        headers = {"Authorization": header} if header else {}
        answer = await api.send("GET", "//metrics", token="", headers=headers)
        health = await api.send("GET", "//healthz", token="")

    assert (401, "authentication_failed") == (answer.status, answer.code)
    assert "Bearer" == answer.headers["WWW-Authenticate"]
    assert b"ferrohsm_" not in answer.body
    assert 200 == health.status


async def test_files_that_can_t_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the files of all processes, the metrics are unavailable for now."""
    (tmp_path / "counter_1.db").mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    async with open_api() as api:
        answer = await api.send("GET", "//metrics", token="")

    assert (503, "unavailable") == (answer.status, answer.code)


async def test_with_the_token() -> None:
    """It opens the metrics, and nothing else."""
    async with open_api(ServerSettings(metrics=GUARDED)) as api:
        shown = await api.send("GET", "//metrics", token=TOKEN)
        status = await api.send("GET", "/status", token=TOKEN)
        usual = await api.send("GET", "//metrics", token=mint())

    assert 200 == shown.status
    assert b"ferrohsm_uptime_seconds" in shown.body
    assert [401, 401] == [status.status, usual.status]


async def test_a_listener_of_its_own() -> None:
    """It shows the metrics and nothing else, and the other doesn't show them."""
    settings = ServerSettings(metrics=MetricsSettings(address=Address("127.0.0.1", 0)))
    async with open_api(settings) as api:
        with socket.create_server(("127.0.0.1", 0)) as bound:
            listener = Listener(create_metrics_app(api.app), [bound], None)
            await listener.start()
            base = f"http://127.0.0.1:{bound.getsockname()[1]}"
            async with api.client.get(f"{base}/metrics") as shown:
                text = await shown.text()
            async with api.client.get(f"{base}/healthz") as other:
                pass
            await listener.stop(1.0)
        gone = await api.send("GET", "//metrics", token="")

    assert (200, 404, 404) == (shown.status, other.status, gone.status)
    assert "no-store" == shown.headers["Cache-Control"]
    assert 'ferrohsm_requests_total{code="ok",operation="metrics"}' not in text
    assert "ferrohsm_vault_available 1.0" in text


def test_the_settings_hold_no_token(tmp_path: Path) -> None:
    """Its hash is all that our processes are told."""
    path = _file(tmp_path, TOKEN + "\n")
    found = metrics_settings({"metrics_bind": None, "metrics_token_file": path})

    assert GUARDED.token_sha256 == found.token_sha256
    assert TOKEN not in repr(found)


@pytest.mark.parametrize(
    "content",
    ["", "x" * 31, "x" * 513, f"{TOKEN}\n{TOKEN}", f"{TOKEN} x", "ä" * 40],
    ids=["empty", "short", "long", "lines", "blank", "letters"],
)
def test_what_is_no_token(tmp_path: Path, content: str) -> None:
    """It is refused, and not repeated."""
    path = _file(tmp_path, content)
    with pytest.raises(ConfigurationError, match="32 to 512") as caught:
        metrics_settings({"metrics_bind": None, "metrics_token_file": path})

    assert not content or content not in str(caught.value)


def test_a_token_that_others_may_read(tmp_path: Path) -> None:
    """A file of mode 0644 keeps no secret."""
    path = _file(tmp_path, TOKEN, 0o644)
    with pytest.raises(UnsafeFileModeError):
        metrics_settings({"metrics_bind": None, "metrics_token_file": path})


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.com"])  # noqa: S104 (it is refused)
def test_plain_http_stays_on_this_machine(host: str) -> None:
    """A listener without TLS is refused anywhere but on loopback."""
    values = {"metrics_bind": Address(host, 9100), "metrics_token_file": None}
    with pytest.raises(ConfigurationError, match="loopback"):
        metrics_settings(values)


@pytest.mark.parametrize(
    ("settings", "is_warned"),
    [
        (ServerSettings(bind=Address("192.0.2.1", 8443)), True),
        (ServerSettings(bind=Address("::", 8443)), True),
        (ServerSettings(bind=Address("hsm.example.com", 8443)), True),
        (ServerSettings(bind=Address("127.0.0.1", 8443)), False),
        (ServerSettings(bind=Address("::1", 8443)), False),
        (ServerSettings(bind=Address("localhost", 8443)), False),
        (ServerSettings(bind=Address("192.0.2.1", 8443), metrics=GUARDED), False),
        (
            ServerSettings(
                bind=Address("192.0.2.1", 8443),
                metrics=MetricsSettings(address=Address("127.0.0.1", 1)),
            ),
            False,
        ),
        (ServerSettings(bind=Address("192.0.2.1", 8443), tls=ASKS), False),
    ],
    ids=[
        *("ipv4", "any-ipv6", "name", "loopback", "loopback-ipv6", "localhost"),
        *("token", "listener", "certificates"),
    ],
)
def test_who_is_warned(settings: ServerSettings, is_warned: bool) -> None:
    """Open metrics are fine on this machine, and worth a word elsewhere."""
    assert is_warned == ("is readable by every client" in metrics_warning(settings))


@pytest.mark.parametrize("isolation", ["process", "inline"])
def test_a_server_with_a_listener_of_metrics(tmp_path: Path, isolation: str) -> None:
    """Token and listener work together, whatever processes there are."""
    site = Site(tmp_path, isolation)
    path = str(_file(tmp_path, TOKEN))
    flags = ("--metrics-bind", "127.0.0.1:0", "--metrics-token-file", path)
    with site.serve(*flags) as server:
        port = next(row["port"] for row in site.log() if row["event"] == "metrics")
        refused = _ask(port, {})
        shown = _ask(port, {"Authorization": f"Bearer {TOKEN}"})
        gone = server.send("GET", "/metrics")

    assert (401, 200, 404) == (refused.status, shown.status, gone.status)
    assert b'ferrohsm_requests_total{code="authentication_failed"' in shown.body
    assert TOKEN not in (tmp_path / "log").read_text()


def _ask(port: int, headers: dict[str, str]) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/metrics", headers=headers)
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.headers), answer.read())
    finally:
        connection.close()
