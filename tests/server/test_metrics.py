# SPDX-License-Identifier: MIT
"""What is counted, and what a person sees of it at a glance."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from hsm_core import operations as ops
from hsm_core.factory import open_async
from hsm_core.testing import caller, memory_hsm
from hsm_server.http.state import HEALTH, METRICS
from hsm_server.observability.metrics import Metrics
from tests.server.support import API, b64, open_api


def _status() -> ops.HSMStatus:
    with memory_hsm() as hsm:
        return hsm.act_as(caller()).execute(ops.Status())


def _shown(status: ops.HSMStatus | None) -> list[str]:
    metrics = Metrics()
    metrics.show(status)
    return metrics.exposition().decode().splitlines()


async def test_the_vault_tells_its_state(api: API) -> None:
    """Keys, the state, the length of the trail, the cache, and who serves what."""
    await api.create("AES-256-GCM", name="cipher")
    for _ in range(2):
        body = {"plaintext": b64(b"x")}
        await api.send("POST", "/keys/cipher/encrypt", body=body)
    events = await api.events()
    lines = (await api.send("GET", "//metrics", token="")).body.decode().splitlines()

    for line in (
        'ferrohsm_state{state="operational"} 1.0',
        'ferrohsm_state{state="locked"} 0.0',
        "ferrohsm_keys 1.0",
        "ferrohsm_key_cache_hit_total 1.0",
        "ferrohsm_key_cache_miss_total 1.0",
        "ferrohsm_key_cache_store_total 1.0",
        "ferrohsm_self_test_stopped 0.0",
        'ferrohsm_algorithm_available{algorithm="Ed25519",provider="pyca"} 1.0',
        'ferrohsm_store_findings{problem="missing"} 0.0',
        f"ferrohsm_audit_events_total {float(events[0]['seq'] + 2)}",
    ):
        assert line in lines


def test_the_disk_of_the_trail_is_timed() -> None:
    """The histogram is that of the vault, with what was beyond all bounds."""
    status = _status()
    times = ops.SyncTimes(
        count=5, seconds=12.5, bounds_seconds=(0.001, 1.0), within=(2, 4)
    )
    trail = msgspec.structs.replace(status.audit, syncs=times, head_seq=9, first_seq=4)
    lines = _shown(msgspec.structs.replace(status, audit=trail))

    for line in (
        'ferrohsm_audit_sync_seconds_bucket{le="0.001"} 2.0',
        'ferrohsm_audit_sync_seconds_bucket{le="1.0"} 4.0',
        'ferrohsm_audit_sync_seconds_bucket{le="+Inf"} 5.0',
        "ferrohsm_audit_sync_seconds_count 5.0",
        "ferrohsm_audit_sync_seconds_sum 12.5",
        "ferrohsm_audit_events_total 10.0",
        "ferrohsm_audit_length_records 6.0",
    ):
        assert line in lines


def test_findings_are_told_by_what_is_wrong() -> None:
    """A finding that nobody has listed is counted under its own name."""
    status = _status()
    findings = tuple(
        ops.KeyFinding(key_id=f"key-{number}", problem=problem)
        for number, problem in enumerate(("older", "older", "missing", "new-kind"))
    )
    store = msgspec.structs.replace(status.store, findings=findings)
    lines = _shown(msgspec.structs.replace(status, store=store))

    assert 'ferrohsm_store_findings{problem="older"} 2.0' in lines
    assert 'ferrohsm_store_findings{problem="missing"} 1.0' in lines
    assert 'ferrohsm_store_findings{problem="new-kind"} 1.0' in lines
    assert 'ferrohsm_store_findings{problem="blob"} 0.0' in lines
    assert "key-0" not in "".join(lines)


def test_a_failed_self_test_is_shown() -> None:
    """The algorithm is counted, and is not available."""
    status = _status()
    rows = tuple(
        msgspec.structs.replace(row, status="stopped")
        if row.algorithm == "Ed25519"
        else row
        for row in status.algorithms
    )
    lines = _shown(msgspec.structs.replace(status, algorithms=rows))

    assert "ferrohsm_self_test_stopped 1.0" in lines
    assert 'ferrohsm_algorithm_available{algorithm="Ed25519",provider="pyca"} 0.0' in (
        lines
    )


def test_nothing_is_made_up_without_a_vault() -> None:
    """Counters that nobody tells are left out, and no state is shown as true."""
    lines = _shown(None)

    assert "ferrohsm_vault_available 0.0" in lines
    assert not any(line.startswith("ferrohsm_audit_events_total ") for line in lines)
    assert not any(line.startswith("ferrohsm_key_cache_hit_total ") for line in lines)
    states = [line for line in lines if line.startswith("ferrohsm_state{")]
    assert 4 == len(states)
    assert all(line.endswith(" 0.0") for line in states)


def test_figures_of_a_new_server() -> None:
    """Nothing has happened: all is 0, and nothing is divided by it."""
    found = Metrics().snapshot()

    assert (None, {}, {}) == (found.status, found.operations, found.failures)
    assert (0, 0.0, 0) == (found.unexpected, found.mean_seconds, found.jwt_failures)
    assert 0.0 == found.operations_per_second


def test_figures_add_up() -> None:
    """Operations by name, errors by code; pages and watched views take no part."""
    until = datetime(2030, 1, 2, tzinfo=UTC)
    metrics = Metrics()
    metrics.count_request("Sign", "ok", 1.0)
    metrics.count_request("Sign", "key_not_found", 2.0)
    metrics.count_request("live_view", "ok", 3600.0)
    for page in ("metrics", "healthz", "none"):
        metrics.count_request(page, "ok", 50.0)
    metrics.count_handshake("ok", "X25519MLKEM768")
    metrics.count_handshake("timeout", "none")
    metrics.count_jwt_failure()
    metrics.count_unexpected()
    metrics.show_certificates({"ECDSA": until.timestamp()})
    metrics.show_staple("ECDSA", (until - timedelta(days=1)).timestamp())
    metrics.show_staple("RSA", 0.0)
    found = metrics.snapshot()

    assert {"Sign": 2, "live_view": 1} == found.operations
    assert {"key_not_found": 1} == found.failures
    assert pytest.approx(1.5) == found.mean_seconds
    assert 0 < found.operations_per_second <= 3
    assert {"X25519MLKEM768": 1} == found.handshakes
    assert (1, 1) == (found.jwt_failures, found.unexpected)
    assert {"ECDSA": until} == found.certificates
    assert {"ECDSA": until - timedelta(days=1)} == found.staples


async def test_figures_hold_what_the_vault_said() -> None:
    """The status is that of the last look, and is gone when the vault is."""
    with memory_hsm() as hsm:
        async with open_api(gateway=open_async(hsm)) as api:
            await api.app[HEALTH].refresh()
            found = api.app[METRICS].snapshot()
            api.app[METRICS].show(None)
            lost = api.app[METRICS].snapshot()

    assert found.status is not None
    assert "operational" == found.status.state
    assert lost.status is None
