"""Every attack of the kit is detected and named, and no honest history is accused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hsm_core._internal.audit.verify import verify_range
from hsm_core.errors import AuditTamperedError
from hsm_core.testing import FakeClock
from tests.core.audit_histories import honest_histories
from tests.core.audit_prune_support import age, open_aged, prune, segments_of
from tests.core.audit_support import KEY, read_lines, verified, write_lines
from tests.core.tamper_kit import (
    ATTACKS,
    BASELINE_ATTACKS,
    KINDS,
    Attack,
    Site,
    attacked_site,
    edit,
    edit_and_chain_anew,
    put_all_but_the_baseline_back,
    put_an_older_baseline_back,
)

HISTORIES = 10


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Site]:
    """Give a trail of each kind, of which tests take copies."""
    return {kind: attacked_site(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


@pytest.fixture
def copy(sites: dict[str, Site], tmp_path: Path) -> Callable[[str], Site]:
    """Give what copies a trail of a kind."""

    def make(kind: str) -> Site:
        site = sites[kind]
        shutil.copytree(site.path.parent, tmp_path / "log")
        return Site(tmp_path / "log" / site.path.name, site.older, site.other)

    return make


def _start(path: Path) -> None:
    """Start on a trail, and let the running log verify it from its beginning."""
    log = open_aged(path, FakeClock())
    try:
        verify_range(log, KEY, 0, 100_000)
    finally:
        log.close()


def _contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a trail, but for those that mark its end or its writer."""
    return {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if not file.name.endswith((".lock", ".head", ".reserve"))
    }


@pytest.mark.parametrize("kind", KINDS)
def test_untouched_trails_are_believed(copy: Callable[[str], Site], kind: str) -> None:
    """Without an attack each kind of trail verifies, offline and in use."""
    site = copy(kind)
    before = verified(site.path)
    _start(site.path)

    assert (before.head_seq, before.first_seq > 0) == (
        verified(site.path).head_seq,
        kind == "pruned",
    )


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_an_attack_is_detected_and_named(
    copy: Callable[[str], Site], kind: str, attack: Attack
) -> None:
    """
    Offline verification and a start that verifies all name the first bad record.

    A start itself looks at the end of the trail and at the record of the last prune,
    and refuses for what is bad there, if all is.
    """
    site = copy(kind)
    seq = attack(site)
    attacked = _contents(site.path.parent)

    with pytest.raises(AuditTamperedError) as caught:
        verified(site.path)
    assert seq == caught.value.facts["seq"]
    with pytest.raises(AuditTamperedError) as caught:
        _start(site.path)
    assert seq == caught.value.facts["seq"] or attack is edit_and_chain_anew
    assert attacked == _contents(site.path.parent)


@pytest.mark.parametrize("attack", BASELINE_ATTACKS, ids=lambda attack: attack.__name__)
def test_what_is_kept_of_pruned_records_can_not_be_changed(
    copy: Callable[[str], Site], attack: Attack
) -> None:
    """A start refuses before anything is read from it, and so does who verifies."""
    site = copy("pruned")
    seq = attack(site)

    for refuse in (verified, lambda path: open_aged(path, FakeClock())):
        with pytest.raises(AuditTamperedError) as caught:
            refuse(site.path)
        # A start looks for the record of the prune first.
        assert caught.value.facts["seq"] in (0, seq)
        assert caught.value.facts["reason"] in ("baseline", "pruned", "shorter")


def test_an_attack_under_a_running_server_is_found_by_verifying(
    copy: Callable[[str], Site],
) -> None:
    """VerifyAudit reads the files anew, and what is kept of pruned records too."""
    site = copy("pruned")
    log = open_aged(site.path, FakeClock())
    verify_range(log, KEY, 0, 100_000)
    kept = site.baseline.read_bytes()
    site.baseline.write_bytes(kept.replace(b"key-1", b"key-7"))
    with pytest.raises(AuditTamperedError) as caught:
        verify_range(log, KEY, 0, 100_000)
    assert "baseline" == caught.value.facts["reason"]
    site.baseline.write_bytes(kept)
    seq = edit(site)
    with pytest.raises(AuditTamperedError) as caught:
        verify_range(log, KEY, 0, 100_000)
    assert {"seq": seq, "reason": "mac"} == caught.value.facts
    log.close()


def _stage_the_older_baseline(site: Site) -> None:
    shutil.copy(site.older / site.baseline.name, f"{site.baseline}.new")


def _stage_the_baseline_of_now(site: Site) -> None:
    shutil.copy(site.baseline, f"{site.baseline}.new")


def _put_removed_segments_back(site: Site) -> None:
    for segment in site.older.glob("audit.log.0*"):
        if not (site.path.parent / segment.name).exists():
            shutil.copy(segment, site.path.parent)


@pytest.mark.parametrize(
    "leave",
    [_stage_the_older_baseline, _stage_the_baseline_of_now, _put_removed_segments_back],
)
def test_what_a_prune_has_left_behind_counts_for_nothing(
    copy: Callable[[str], Site], leave: Callable[[Site], None]
) -> None:
    """Old files that are put back neither change the log nor stop a start."""
    site = copy("pruned")
    before = verified(site.path)
    leave(site)

    assert before == verified(site.path)
    _start(site.path)
    assert before.first_seq == verified(site.path).first_seq
    assert before.first_seq == int(segments_of(site.path)[0].name[-16:])
    assert not site.path.with_name("audit.log.baseline.new").exists()


def test_the_baseline_of_a_prune_to_come_counts_for_nothing(
    copy: Callable[[str], Site],
) -> None:
    """Its record is not in the log yet, so a start throws it away."""
    site = copy("pruned")
    newest = site.baseline.read_bytes()
    put_all_but_the_baseline_back(site)
    put_an_older_baseline_back(site)
    staged = site.path.with_name("audit.log.baseline.new")
    staged.touch(0o600)
    staged.write_bytes(newest)
    before = verified(site.path)
    _start(site.path)

    assert not staged.exists()
    assert before.first_seq == verified(site.path).first_seq == site.first_seq


def test_no_prune_washes_a_forgery_clean(tmp_path: Path) -> None:
    """A record that was edited before a prune stops the prune and stays in evidence."""
    clock = FakeClock()
    path = tmp_path / "log" / "audit.log"
    log = open_aged(path, clock)
    age(log, clock, 20)
    first = segments_of(path)[0]
    lines = read_lines(first)
    write_lines(first, [line.replace(b"key-0", b"key-9") for line in lines])

    with pytest.raises(AuditTamperedError):
        prune(log, clock, 5)
    assert [] == list(log.baseline())
    assert first.exists()
    log.close()


def test_honest_histories_raise_no_alarm(tmp_path: Path) -> None:
    """Crashes, prunes, closed segments, healings and clock steps accuse nobody."""
    assert honest_histories(tmp_path, HISTORIES) == HISTORIES
