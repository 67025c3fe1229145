# SPDX-License-Identifier: MIT
"""A whole key store of before a purge, put back: what was purged stays closed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hsm_core import operations as ops
from hsm_core._internal.lib.failpoints import install
from hsm_core.errors import ApprovalRequiredError, HSMLockedError, IntegrityError
from hsm_core.model import KeyState, Role
from hsm_core.testing import caller
from tests.core.dual_disk import ANN, KINDS
from tests.core.governance_steps import Site, check_whole, make_template

NAMES = {"filesystem": ["keys"], "sqlite": ["keys.sqlite*"]}


def files_of(folder: Path, kind: str) -> list[Path]:
    """Return what the key store of a kind is, at the top of a folder."""
    return [path for name in NAMES[kind] for path in folder.glob(name)]


def put_back(kept: Path, folder: Path, kind: str) -> None:
    """Put the store that was kept in the place of the one that is there."""
    for path in files_of(folder, kind):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in files_of(kept, kind):
        copy = shutil.copytree if path.is_dir() else shutil.copy2
        copy(path, folder / path.name)


def make_kept(tmp_path: Path, kind: str) -> tuple[Path, Path, int]:
    """Make a store with ripe material, and a copy; return both, and the time."""
    live, kept = tmp_path / "live", tmp_path / "kept"
    live.mkdir(mode=0o700)
    now = make_template(live, kind)
    shutil.copytree(live, kept)
    return live, kept, now


def decrypt_old(site: Site) -> bytes:
    """Decrypt what the purged version has encrypted."""
    old = (site.folder / "old-ciphertext").read_bytes()
    answer = site.gateway.act_as(ANN).execute(
        ops.Decrypt(key_id="aged", ciphertext=old)
    )
    return answer.plaintext


@pytest.mark.parametrize("kind", KINDS)
def test_an_older_store_opens_no_purged_version(tmp_path: Path, kind: str) -> None:
    """The HSM is locked and says why: after sweeps and another start too."""
    live, kept, now = make_kept(tmp_path, kind)
    site = Site(live, kind, now)
    site.sweep()

    assert KeyState.DESTROYED is site.oldest()
    report = site.gateway.act_as(ANN).execute(ops.RetentionStatus())
    assert 1 == report.completed_total
    site.gateway.close()

    put_back(kept, live, kind)
    for _ in range(2):
        site.open()
        status = site.gateway.act_as(ANN).execute(ops.Status())
        assert "operational" != status.state
        for _ in range(2):
            with pytest.raises(HSMLockedError, match="is an older copy"):
                decrypt_old(site)
            site.clock.advance(60)
            site.sweep()
        site.gateway.close()
    # Nothing was purged again, nor was it attested.
    assert 1 == check_whole(live, kind).purges


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_copy_before_the_purge_is_no_older_store(
    tmp_path: Path, kind: str
) -> None:
    """So it is the purge that the copy is refused for, and not the copying."""
    live, kept, now = make_kept(tmp_path, kind)
    put_back(kept, live, kind)
    site = Site(live, kind, now)
    status = site.gateway.act_as(ANN).execute(ops.Status())

    assert "operational" == status.state
    site.sweep()
    assert KeyState.DESTROYED is site.oldest()
    site.gateway.close()


def make_older(tmp_path: Path, kind: str) -> Site:
    """Purge a version, and open the HSM on the key store that lay there before."""
    live, kept, now = make_kept(tmp_path, kind)
    site = Site(live, kind, now)
    site.sweep()
    site.gateway.close()
    put_back(kept, live, kind)
    site.open()
    return site


def accept(site: Site) -> ops.Recovered:
    """Accept the store as an Administrator, with the consent of another one."""
    ada, eve = (
        site.gateway.act_as(caller(*Role, principal=name)) for name in ("ada", "eve")
    )
    recover = ops.RecoverStore(reason="the disk failed")
    try:
        return ada.execute(recover)
    except ApprovalRequiredError as needed:
        found = eve.execute(
            ops.GetApproval(approval_id=str(needed.facts["approval_id"]))
        )
        eve.execute(ops.Approve(approval_id=found.approval_id, digest=found.digest))
        return ada.execute(recover)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_purged_stays_so_in_an_older_store_that_is_accepted(
    tmp_path: Path, kind: str
) -> None:
    """Nobody is asked again, nothing is attested again, and all else is served."""
    site = make_older(tmp_path, kind)
    (key,) = accept(site).accepted
    site.sweep()

    assert KeyState.DESTROYED is site.oldest()
    ann = site.gateway.act_as(ANN)
    ann.execute(ops.RotateKey(key_id=key))
    new = ann.execute(ops.Encrypt(key_id=key, plaintext=b"m")).ciphertext
    assert b"m" == ann.execute(ops.Decrypt(key_id=key, ciphertext=new)).plaintext
    site.gateway.close()
    site.open()
    found = site.gateway.act_as(caller(*Role)).execute(ops.VerifyStore()).findings
    assert () == found
    site.gateway.close()
    assert 1 == check_whole(site.folder, kind).purges


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_while_an_older_store_is_accepted(tmp_path: Path, kind: str) -> None:
    """At no point does what was purged open; who accepts again ends it."""
    site = make_older(tmp_path, kind)
    points: list[str] = []

    def keep(name: str) -> None:
        if name.startswith("acceptance."):
            points.append(name)
            shutil.copytree(site.folder, tmp_path / name)

    with install(keep):
        accept(site)
    site.gateway.close()

    assert "acceptance.after_burial" in points
    for name in points:
        killed = Site(tmp_path / name, kind, site.clock.now())
        if killed.gateway.act_as(ANN).execute(ops.Status()).state != "operational":
            with pytest.raises((IntegrityError, HSMLockedError)):
                decrypt_old(killed)
            accept(killed)
        assert KeyState.DESTROYED is killed.oldest()
        killed.sweep()
        killed.gateway.close()
        assert 1 == check_whole(killed.folder, kind).purges


@pytest.mark.parametrize("kind", KINDS)
def test_a_purge_whose_outcome_the_ledger_lacks(tmp_path: Path, kind: str) -> None:
    """The trail knows that it was done; the ledger gets its outcome afterwards."""
    live, kept, now = make_kept(tmp_path, kind)
    killed = tmp_path / "killed"

    def keep(name: str) -> None:
        if name == "purge.after_mutation":
            shutil.copytree(live, killed)

    site = Site(live, kind, now)
    with install(keep):
        site.sweep()
    site.gateway.close()
    assert 1 == check_whole(killed, kind).unfinished
    put_back(kept, killed, kind)
    site = Site(killed, kind, now)
    accept(site)

    assert KeyState.DESTROYED is site.oldest()
    site.sweep()
    site.gateway.close()
    found = check_whole(killed, kind)
    assert (1, 0, 0) == (found.purges, found.aborted, found.unfinished)


@pytest.mark.parametrize("kind", KINDS)
def test_a_ledger_that_is_lost_tells_nothing(tmp_path: Path, kind: str) -> None:
    """Then what was purged is there again, and serves, as it is documented."""
    site = make_older(tmp_path, kind)
    site.gateway.close()
    for path in site.folder.glob("ledger.log*"):
        path.unlink()
    site.open()
    accept(site)

    assert KeyState.PURGE_SCHEDULED is site.oldest()
    site.gateway.close()
