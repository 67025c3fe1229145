"""What is kept of pruned records, and that nobody can change it unseen."""

from __future__ import annotations

import hashlib

import pytest

from hsm_core._internal.audit.baseline import (
    ACCEPTED,
    FORMAT,
    Baseline,
    BaselineHeader,
    KnownKeys,
    PrunedPrefix,
    check_baseline,
    encode_baseline,
    known_keys,
)
from hsm_core.errors import AuditTamperedError
from hsm_core.model import AuditEvent, KeyId, Phase, PruneDetail
from hsm_core.protocols import KnownKey

KEY = bytes(range(32))
LOG_ID = "00112233445566778899aabbccddeeff"
KEYS = [KnownKey(KeyId(f"key-{n}"), n + 1, f"{n:064x}") for n in range(3)]


def _header(keys: int, next_seq: int = 2, log_id: str = LOG_ID) -> BaselineHeader:
    return BaselineHeader(
        format=FORMAT,
        log_id=log_id,
        first_seq=0,
        next_seq=next_seq,
        last_leaf_hash="ab" * 32,
        roots=("cd" * 32,),
        policy="365 days",
        keys=keys,
        after_seq=7,
    )


def _event(seq: int = 0, **fields: object) -> AuditEvent:
    given = {
        "format": 1,
        "log_id": LOG_ID,
        "seq": seq,
        "prev": "0" * 64,
        "epoch": 0,
        "time": 0,
        "phase": Phase.OUTCOME,
        "kind": "CreateKey",
        "code": "ok",
        "key_id": "k",
    }
    return AuditEvent(**(given | fields))  # type: ignore[arg-type]


def _check(lines: list[bytes], key: bytes | None = KEY) -> Baseline:
    return check_baseline(lines, log_id=LOG_ID, hmac_key=key)


def test_what_is_written_is_read() -> None:
    """A baseline gives back its keys, its header and the digest of its bytes."""
    written, lines = encode_baseline(_header(3), KEYS, KEY)

    assert written == _check(lines) == _check(lines, None)
    assert hashlib.sha256(b"".join(lines)).hexdigest() == written.sha256
    assert list(known_keys(lines)) == KEYS
    assert written.detail == PruneDetail(
        first_seq=0,
        next_seq=2,
        last_leaf_hash="ab" * 32,
        roots=("cd" * 32,),
        policy="365 days",
        baseline_sha256=written.sha256,
    )


def test_every_change_of_a_byte_is_found() -> None:
    """No byte of a baseline can be changed, and none cut off its end."""
    content = b"".join(encode_baseline(_header(3), KEYS, KEY)[1])

    for position in range(len(content)):
        for changed in (
            content[:position],
            content[:position]
            + bytes([content[position] ^ 1])
            + content[position + 1 :],
        ):
            with pytest.raises(AuditTamperedError) as caught:
                _check(changed.splitlines(keepends=True))
            assert "baseline" == caught.value.facts["reason"]


def test_a_line_more_or_less_is_found_without_the_key() -> None:
    """The header says how many keys there are."""
    lines = encode_baseline(_header(3), KEYS, KEY)[1]

    for changed in ([*lines[:1], *lines[2:]], [*lines, lines[-1]], [], lines[:1]):
        with pytest.raises(AuditTamperedError):
            _check(changed, None)


def test_the_baseline_of_another_trail_or_key_is_refused() -> None:
    """A baseline is bound to the trail's id and to the HMAC key."""
    other = encode_baseline(_header(3, log_id="f" * 32), KEYS, KEY)[1]
    forged = encode_baseline(_header(3), KEYS, bytes(32))[1]

    for lines in (other, forged):
        with pytest.raises(AuditTamperedError):
            _check(lines)
    check_baseline(other, log_id="", hmac_key=KEY)


def test_a_baseline_of_a_newer_format_is_not_taken_for_a_forgery() -> None:
    """Who has gone back to an older release is told to use the newer one."""
    lines = encode_baseline(_header(3), KEYS, KEY)[1]

    for number, reason in ((b"2", "format"), (b"0", "baseline")):
        first = lines[0].replace(b'"format":1', b'"format":' + number)
        with pytest.raises(AuditTamperedError) as caught:
            _check([first, *lines[1:]])
        assert {"seq": 0, "reason": reason} == caught.value.facts


def test_keys_cut_short_after_the_check_are_not_taken_for_all() -> None:
    """A baseline that shrinks while it is read raises."""
    lines = encode_baseline(_header(3), KEYS, KEY)[1]

    for cut in (lines[:2], [], [lines[0], b"[]\n", *lines[2:]]):
        with pytest.raises(AuditTamperedError):
            list(known_keys(cut))


def test_the_last_committed_change_of_a_key_counts() -> None:
    """Outcomes that were committed count, also those found by recovery; no others."""
    known = KnownKeys([KnownKey(KeyId("old"), 4, "d4")])
    for fields in (
        {"generation": 1, "document_after": "d1"},
        {"generation": 2, "document_after": "d2", "code": "recovered-committed"},
        {"generation": 3, "document_after": "d3", "code": "recovered-aborted"},
        {"generation": 3, "document_after": "d3", "phase": Phase.INTENT},
        {"generation": 3, "document_after": "", "kind": "Sign"},
        {"key_id": "new", "generation": 1, "document_after": "n1"},
        {"key_id": "gone", "generation": 1, "document_after": "g1"},
        {"key_id": "gone", "kind": ACCEPTED, "phase": Phase.SINGLE},
        {
            "key_id": "old",
            "kind": ACCEPTED,
            "phase": Phase.SINGLE,
            "generation": 3,
            "document_after": "d3",
        },
    ):
        known.note(_event(**fields))

    assert len(known) == 3
    assert list(known) == [
        KnownKey(KeyId("k"), 2, "d2"),
        KnownKey(KeyId("new"), 1, "n1"),
        KnownKey(KeyId("old"), 3, "d3"),
    ]


def test_a_trail_may_begin_where_a_baseline_tells_or_before() -> None:
    """The record before is the one pruned last, or what the first one names."""
    baseline = encode_baseline(_header(3), KEYS, KEY)[0]

    assert (1, "ab" * 32) == PrunedPrefix(2, baseline).start
    assert (0, "") == PrunedPrefix(1, baseline).start
    assert (-1, "0" * 64) == PrunedPrefix(0, baseline).start
    assert (-1, "0" * 64) == PrunedPrefix(0, None).start


@pytest.mark.parametrize(("first", "bad"), [(1, 0), (3, 2)])
def test_records_that_no_prune_removed_are_missed(first: int, bad: int) -> None:
    """A trail that begins later than its baseline tells has lost records."""
    baseline = encode_baseline(_header(3), KEYS, KEY)[0] if bad else None

    with pytest.raises(AuditTamperedError) as caught:
        PrunedPrefix(first, baseline)
    assert {"seq": bad, "reason": "pruned"} == caught.value.facts


def test_a_baseline_needs_the_record_of_its_prune() -> None:
    """A baseline that no record of the trail tells of is not believed."""
    baseline = encode_baseline(_header(3), KEYS, KEY)[0]
    other = encode_baseline(_header(3, next_seq=1), KEYS, KEY)[0]
    prefix = PrunedPrefix(2, baseline)
    prefix.visit(_event(2, detail=other.detail), "ef" * 32)

    with pytest.raises(AuditTamperedError) as caught:
        prefix.finish()
    assert "pruned" == caught.value.facts["reason"]
    prefix.visit(_event(3, detail=baseline.detail), "ef" * 32)
    prefix.finish()
    PrunedPrefix(0, None).finish()


def test_what_is_still_there_must_be_what_the_baseline_means() -> None:
    """After a removal that was interrupted, the last record to go is compared."""
    baseline = encode_baseline(_header(3), KEYS, KEY)[0]
    prefix = PrunedPrefix(0, baseline)
    prefix.visit(_event(0), "ef" * 32)

    with pytest.raises(AuditTamperedError) as caught:
        prefix.visit(_event(1), "ef" * 32)
    assert {"seq": 1, "reason": "baseline"} == caught.value.facts
    prefix.visit(_event(1), "ab" * 32)
