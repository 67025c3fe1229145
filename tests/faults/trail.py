# SPDX-License-Identifier: MIT
"""Whether the trail tells what the journals tell: nothing less, and nothing more."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from hsm_core._internal.audit.facts import HASH, START, named_by
from hsm_core._internal.audit.record import event_of
from hsm_core.factory import open_verifier
from tests.e2e.https import Answer, Client
from tests.faults.client import JournalingClient
from tests.faults.consents import CONSENTS, ExpectedApproval
from tests.faults.expectation import MUTATIONS, check

_EVENTS: Final = "/api/v1/audit/events?ascending=true&limit=1000"
_TRIES: Final = 10
_DONE: Final = frozenset({"ok", "recovered-committed"})
_REQUESTED: Final = "system.approval-requested"
_USED: Final = "system.approval-used"
_ONCE: Final = frozenset({_REQUESTED, _USED})
_FINAL: Final = _DONE | {"recovered-aborted"}


def read_events(path: Path) -> list[dict[str, Any]]:
    """
    Return the events of all segments, oldest first.

    After a disk that failed, a segment may hold more than counts: up to where the next
    one begins.
    """
    closed = sorted(
        found
        for found in path.parent.glob(f"{path.name}.????????.????????????????")
        if found.is_file()
    )
    events: list[dict[str, Any]] = []
    end: int | None = None
    for segment in [path, *reversed(closed)]:
        found = list(_events_of_segment(segment.read_bytes().splitlines()))
        if not found:
            continue
        begin = found[0]["seq"]
        events[:0] = found if end is None else found[: end - begin]
        end = begin
    return events


def _events_of_segment(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the events of the entries, each with the facts that it names."""
    facts: dict[bytes, bytes] = {}
    for line in lines:
        if line.startswith(START):
            facts[line[HASH]] = line
            continue
        shared = facts.get(named_by(line))
        record = line if shared is None else shared + b"\n" + line
        event = event_of(record, int(json.loads(line)["seq"], 16))
        yield json.loads(msgspec.json.encode(event))


def events_of_files(path: Path, hmac_key: bytes) -> list[dict[str, Any]]:
    """
    Verify a trail in files offline, and return its events.

    Raises:
        Violation: Verification passed records over.
        AuditTamperedError: The trail is not whole.
    """
    # A server writes some records on its own account, also between these lines.
    before = len(read_events(path))
    verified = open_verifier(path, hmac_key).verify()
    events = read_events(path)
    check(
        before <= verified.records <= len(events),
        "records were passed over",
        verified,
        before,
        len(events),
    )
    return events


def events_of_server(auditor: Client) -> list[dict[str, Any]]:
    """
    Let a server verify its trail, and return its events.

    Raises:
        Violation: The trail is not whole.
    """
    events: list[dict[str, Any]] = []
    seq: int | None = 0
    while seq is not None:
        verified = _ask(auditor, "POST", "/api/v1/audit/verify", {"start_seq": seq})
        check(verified.status == 200, "the trail does not verify", verified)
        seq = verified.json.get("next_seq")
    seq = 0
    while seq is not None:
        page = _ask(auditor, "GET", f"{_EVENTS}&start_seq={seq}")
        check(page.status == 200, "the trail can't be read", page)
        events += [item["event"] for item in page.json["items"]]
        seq = page.json.get("next_seq")
    return events


def _ask(
    auditor: Client, method: str, path: str, body: Mapping[str, object] | None = None
) -> Answer:
    """Ask, and for a while again if the disk was too slow to record who looked."""
    answer = auditor.request(method, path, body)
    for _ in range(_TRIES):
        if answer.status != 503:
            break
        time.sleep(float(answer.headers["retry-after"]))
        answer = auditor.request(method, path, body)
    return answer


def check_trail(
    events: list[dict[str, Any]], clients: Iterable[JournalingClient]
) -> None:
    """
    Compare a verified trail with the journals.

    The server must be at rest, and every request settled.

    Raises:
        Violation: An acknowledged request has no record, or a record has no request,
            or an intent has no outcome.
    """
    clients = list(clients)
    _check_pairs(events)
    for client in clients:
        own = [
            event
            for event in events
            if event.get("caller", {}).get("principal") == client.name
            and not event["kind"].startswith("system.approval-")
            and event["kind"] not in CONSENTS
        ]
        _check_changes(client, own)
        _check_uses(client, own)
    _check_approvals(
        [a for c in clients for a in c.expected.approvals.values()], events
    )


def _check_pairs(events: list[dict[str, Any]]) -> None:
    """
    Check that each intent has one outcome, and comes first.

    A change that is asked for again is answered again, with a single record; one that
    was refused may be tried again, unless a recovery has given it up.
    """
    waiting: dict[str, dict[str, Any]] = {}
    settled: dict[str, str] = {}
    for event in events:
        operation_id = event.get("operation_id", "")
        if event["phase"] == "single":
            repeated = event["kind"] in MUTATIONS and event["code"] == "ok"
            check(
                not repeated or settled.get(operation_id) in _DONE,
                "an answer was repeated that was never given",
                event,
            )
            continue
        if event["phase"] == "intent":
            check(operation_id not in waiting, "an intent was written twice", event)
            before = settled.get(operation_id, "")
            check(before not in _FINAL, "an operation was done twice", before, event)
            waiting[operation_id] = event
            continue
        intent = waiting.pop(operation_id, None)
        check(intent is not None, "an outcome has no intent", event)
        settled[operation_id] = event["code"]
    check(not waiting, "an intent has no outcome", *waiting.values())


def _check_changes(client: JournalingClient, events: list[dict[str, Any]]) -> None:
    """Check that what was changed is exactly what was acknowledged."""
    recorded = Counter(
        (event["kind"], event["key_id"])
        for event in events
        if event["phase"] == "outcome" and event["code"] in _DONE
    )
    acknowledged = Counter(
        {
            counted: number
            for counted, number in client.expected.successes.items()
            if counted[0] in MUTATIONS
        }
    )
    check(
        recorded == acknowledged,
        "the trail and the journal differ in changes",
        client.name,
        recorded - acknowledged,
        acknowledged - recorded,
    )
    generations: dict[str, list[int]] = defaultdict(list)
    for event in events:
        if event["phase"] == "outcome" and event["code"] in _DONE:
            generations[event["key_id"]].append(event["generation"])
    for key in client.expected.keys.values():
        check(
            list(range(1, key.generation + 1)) == sorted(generations[key.key_id]),
            "the trail lacks a generation of a key, or has one twice",
            key,
            generations[key.key_id],
        )


def _check_approvals(
    approvals: Iterable[ExpectedApproval], events: list[dict[str, Any]]
) -> None:
    """Check that each approval was asked for once, and used as was acknowledged."""
    told = Counter(
        (event["kind"], event["approval_id"])
        for event in events
        if event["kind"] in _ONCE and event["phase"] != "intent" and _is_done(event)
    )
    expected = Counter[tuple[str, str]]()
    for approval in approvals:
        expected[_REQUESTED, approval.approval_id] = 1
        if approval.used_by:
            expected[_USED, approval.approval_id] = 1
    check(
        told == expected,
        "approvals were asked for, or used, otherwise than was acknowledged",
        told - expected,
        expected - told,
    )


def _is_done(event: dict[str, Any]) -> bool:
    return event["code"] in _DONE


def _check_uses(client: JournalingClient, events: list[dict[str, Any]]) -> None:
    """Check that each use has its record, and no record is without a use."""
    recorded = Counter(
        client.number_of(event["request_id"])
        for event in events
        if event["phase"] == "single"
        and event["code"] == "ok"
        and event["kind"] not in MUTATIONS
    )
    acknowledged, unknown = client.expected.uses, client.expected.unknown
    missing = acknowledged - recorded.keys()
    check(not missing, "an acknowledged use has no record", client.name, missing)
    invented = recorded.keys() - acknowledged - unknown - {0}
    check(not invented, "a record has no use", client.name, invented)
    twice = [number for number in acknowledged if recorded[number] > 1]
    check(not twice, "a use has two records", client.name, twice)
