# SPDX-License-Identifier: MIT
"""A whole key store of before a purge, put back: what was purged stays closed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hsm_core import operations as ops
from hsm_core.errors import HSMLockedError, LedgerTamperedError
from hsm_core.model import KeyState, Role
from hsm_core.testing import caller
from tests.core.governance_steps import ANN, KINDS, Site, check_whole, make_template

DAY = 86_400
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
    live, kept = tmp_path / "live", tmp_path / "kept"
    live.mkdir(mode=0o700)
    now = make_template(live, kind)
    shutil.copytree(live, kept)
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
    live, kept = tmp_path / "live", tmp_path / "kept"
    live.mkdir(mode=0o700)
    now = make_template(live, kind)
    shutil.copytree(live, kept)
    put_back(kept, live, kind)
    site = Site(live, kind, now)
    status = site.gateway.act_as(ANN).execute(ops.Status())

    assert "operational" == status.state
    site.sweep()
    assert KeyState.DESTROYED is site.oldest()
    site.gateway.close()


@pytest.mark.parametrize("kind", KINDS)
def test_who_accepts_an_older_store_has_to_purge_anew(
    tmp_path: Path, kind: str
) -> None:
    """What was purged is there again, and serves, until people agree to it anew."""
    live, kept = tmp_path / "live", tmp_path / "kept"
    live.mkdir(mode=0o700)
    now = make_template(live, kind)
    shutil.copytree(live, kept)
    site = Site(live, kind, now)
    site.sweep()
    site.gateway.close()
    put_back(kept, live, kind)
    site.open()
    # Only an Administrator can, and it is in the trail who did, and why.
    admin = site.gateway.act_as(caller(*Role, principal="ada"))
    admin.execute(ops.RecoverStore(reason="the disk failed"))
    site.sweep()
    # The consent was used up by the first purge.
    assert b"of the old version" == decrypt_old(site)
    # People are asked about the version, and about what retention has forgotten.
    for _ in range(4):
        site.sweep()
        site.consent()
        site.sweep()
        site.clock.advance(1.5 * DAY)

    assert KeyState.DESTROYED is site.oldest()
    site.gateway.close()
    # Nothing but the trail explains it, so that offline somebody has to look there.
    with pytest.raises(LedgerTamperedError, match="twice"):
        check_whole(live, kind)
