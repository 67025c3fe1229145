# SPDX-License-Identifier: MIT
"""Logs of a cluster: rows of four tables, and what the logs say of each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tests.core.second_reader.follower import Follower, Log
from tests.core.second_reader.keys import NOTHING, BadLogError
from tests.core.second_reader.marks import Baseline, baseline_of, check_prune, slot_of

Rows = Sequence[Sequence[Any]]

_USES: Final = frozenset({"Sign", "Verify", "Encrypt", "Decrypt", "ComputeMac"})
"""Kinds of uses that the tests record; the page means all of them."""


def read_cluster(tables: Mapping[str, Rows], hmac_key: bytes) -> dict[str, Log]:
    """
    Read all logs of a cluster.

    Args:
        tables: Rows of ``logs`` (log_id, head, pruned_next, pruned_record), ``records``
            and ``facts`` (log_id, number, line), and ``baselines`` (log_id, next_seq,
            number, line).

        hmac_key: 32 bytes.

    Raises:
        BadLogError: A log is damaged, or they contradict each other.
    """
    logs = {row[0]: _read(row, tables, hmac_key) for row in tables["logs"]}
    for log_id, log in logs.items():
        _check_heads(log_id, log, logs)
    for log_id, log in logs.items():
        _check_uses(log_id, log, logs)
    return logs


def _of(rows: Rows, log_id: str) -> Iterator[tuple[Any, ...]]:
    return (row[1:] for row in sorted(map(tuple, rows)) if row[0] == log_id)


def _read(row: Sequence[Any], tables: Mapping[str, Rows], hmac_key: bytes) -> Log:
    log_id, head, pruned_next, pruned_record = row
    found = slot_of(head[:64], head[64:], hmac_key) if len(head) == 576 else None
    if found is None or head[:16] != b"FerroHSM head 1\n":
        raise BadLogError(0, "head_damaged")
    mark = found[1]
    if mark.log_id != log_id:
        raise BadLogError(0, "log_id")
    baseline: Baseline | None = None
    if pruned_next is not None:
        rows = _of(tables["baselines"], log_id)
        lines = [line for next_seq, _, line in rows if next_seq == pruned_next]
        baseline = baseline_of(b"".join(lines), hmac_key)
        if baseline.next_seq != pruned_next:
            raise BadLogError(0, "baseline")
    first = (0, NOTHING)
    if baseline is not None:
        first = baseline.next_seq, str(baseline.header["last_leaf_hash"])
    follower = Follower(log_id, hmac_key, mark, first)
    facts: dict[int, bytes] = {}
    for before, line in _of(tables["facts"], log_id):
        facts[before] = line
    for seq in sorted(facts):
        if seq < first[0]:
            follower.serve(facts.pop(seq), seq)
    for seq, line in _of(tables["records"], log_id):
        if seq < first[0]:
            continue
        if seq > mark.seq:
            raise BadLogError(seq, "after_mark")
        if seq != follower.next_seq:
            raise BadLogError(follower.next_seq, "sequence")
        if seq in facts:
            follower.follow(facts.pop(seq))
        follower.follow(line)
    log = follower.end()
    if facts:
        raise BadLogError(min(facts), "facts")
    if baseline is not None:
        check_prune(log, baseline, pruned_record)
    return log


def _named(log: Log) -> Iterator[tuple[int, dict[str, Any]]]:
    """Return what a log says of the others, with the number of the entry."""
    for entry in log.entries:
        if entry.members["kind"] == "system.heads":
            for head in entry.members["detail"]["logs"]:
                yield entry.seq, head


def _check_heads(log_id: str, log: Log, logs: Mapping[str, Log]) -> None:
    for seq, head in _named(log):
        other = logs.get(head["log_id"])
        if other is None or head["log_id"] == log_id:
            raise BadLogError(seq, "log_missing")
        if head["size"] - 1 > other.head[0]:
            raise BadLogError(other.head[0] + 1, "cut")
        for entry in other.entries:
            if entry.seq == head["size"] - 1 and entry.leaf.hex() != head["leaf_hash"]:
                raise BadLogError(entry.seq, "heads")


def _changes(log: Log) -> Iterator[tuple[int, str, int, int]]:
    """Return number, key, revision and generation of each change of a log."""
    for entry in log.entries:
        found = entry.members
        if found.get("phase") == "outcome" and "document_after" in found:
            place = found.get("revision", 0), found.get("generation", 0)
            yield entry.seq, found.get("key_id", ""), *place


def _check_uses(log_id: str, log: Log, logs: Mapping[str, Log]) -> None:
    """Check that no use was decided before a change that it had to know."""
    known = [change for other in logs.values() for change in _changes(other)]
    for entry in log.entries:
        found = entry.members
        if found["kind"] not in _USES or "code" in found:
            continue
        key = entry.parts.get("key", {})
        key_id, revision = key.get("key_id", ""), found.get("revision", 0)
        made = [(at, made) for _, k, at, made in known if k == key_id]
        newest = max(((at, m) for at, m in made if at <= revision), default=(0, 0))
        seen = {log_id: entry.seq}
        for seq, head in _named(log):
            if seq < entry.seq:
                seen[head["log_id"]] = max(seen.get(head["log_id"], 0), head["size"])
        had = [
            at
            for other, end in seen.items()
            for seq, k, at, _ in _changes(logs[other])
            if k == key_id and seq < end
        ]
        if key.get("generation", 0) < newest[1] or max(had, default=0) > revision:
            raise BadLogError(entry.seq, "stale_use")
