# SPDX-License-Identifier: MIT
"""Vault and front ends under users of their own, as root may start them."""

import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.family import Family, counter, create, retrying, status, wait_until
from tests.server.process import Running, Site
from tests.server.support import SECRET

_VAULT, _FRONT_END = "daemon", "nobody"


@pytest.fixture(autouse=True, scope="module")
def _needs_root_and_a_program_for_all() -> None:
    """Skip where this user may not choose others, or they may not run Python."""
    if os.geteuid() != 0:
        pytest.skip("Only root chooses users.")
    for name in (_VAULT, _FRONT_END):
        user = pwd.getpwnam(name)
        try:
            subprocess.run(
                [sys.executable, "-I", "-c", "import hsm_server.bootstrap.vault"],
                user=user.pw_uid,
                group=user.pw_gid,
                extra_groups=[],
                capture_output=True,
                cwd="/",
                check=True,
            )
        except (OSError, subprocess.CalledProcessError):
            pytest.skip(f"The interpreter is not for the user {name}.")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Give a folder to serve from, with files for who needs them."""
    folder = tmp_path_factory.mktemp("users")
    site = Site(folder)
    for above in (folder, *folder.parents[:2]):
        # pytest's own folders are for nobody else.
        above.chmod(0o711)
    vault, front_end = pwd.getpwnam(_VAULT), pwd.getpwnam(_FRONT_END)
    data = folder / "data"
    data.mkdir(0o700)
    os.chown(data, vault.pw_uid, vault.pw_gid)
    secret = folder / "secret"
    secret.write_text(f"text:{SECRET.decode()}")
    secret.chmod(0o600)
    os.chown(secret, vault.pw_uid, vault.pw_gid)
    for path in (site.cert, site.key):
        os.chown(path, front_end.pw_uid, front_end.pw_gid)
    return site


@pytest.fixture(scope="module")
def server(site: Site) -> Iterator[Running]:
    """Give a server with three users."""
    with site.serve(
        *("--workers", "2", "--vault-user", _VAULT, "--front-end-user", _FRONT_END),
        changes={"FERROHSM_JWT_SECRET": f"@{site.folder / 'secret'}"},
        cwd=Path("/"),
    ) as running:
        create(running, "signer")
        yield running
        assert 0 == running.stop()


def users(pid: int) -> tuple[set[int], set[int], list[str]]:
    """Return the user ids, group ids and further groups of a process."""
    fields = status(pid)
    uids, gids = ({int(n) for n in fields[name].split()} for name in ("Uid", "Gid"))
    return uids, gids, fields["Groups"].split()


def test_each_process_is_whom_it_should_be(server: Running) -> None:
    """All ids are those of the user, with no group beside their own."""
    family = Family(server)
    vault, front_end = pwd.getpwnam(_VAULT), pwd.getpwnam(_FRONT_END)

    assert ({vault.pw_uid}, {vault.pw_gid}, []) == users(family.vault)
    for pid in (family.tls_manager, *family.front_ends):
        assert ({front_end.pw_uid}, {front_end.pw_gid}, []) == users(pid)
    for pid in (family.vault, family.tls_manager, *family.front_ends):
        assert "0000000000000000" == status(pid)["CapEff"]
        # Not theirs, for nobody may look into them.
        assert 0 == Path(f"/proc/{pid}/fd").stat().st_uid


def test_a_front_end_can_not_read_what_is_the_vaults(site: Site) -> None:
    """Neither the files of the keys, nor the trail, nor the token secret."""
    user = pwd.getpwnam(_FRONT_END)
    for path in (site.keys, site.audit, site.folder / "secret"):
        done = subprocess.run(
            ["cat", str(path)] if path.is_file() else ["ls", str(path)],
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            capture_output=True,
            cwd="/",
            check=False,
        )
        assert 0 != done.returncode
        assert b"ermission denied" in done.stderr


def test_it_serves_and_counts_across_users(server: Running) -> None:
    """Counters of all users are summed, also after each process was replaced."""
    family = Family(server)
    assert 401 == server.send("GET", "/api/v1/status", token="bad").status
    before = counter(server, "ferrohsm_auth_jwt_failure_total")
    old = {family.vault, family.tls_manager, *family.front_ends}
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not old & set(family.everybody))
    wait_until(lambda: len(family.front_ends) == 2)
    assert 200 == retrying(server, "/api/v1/keys/signer").status
    assert 401 == server.send("GET", "/api/v1/status", token="bad").status
    wait_until(
        lambda: (
            {before + 1}
            == {counter(server, "ferrohsm_auth_jwt_failure_total") for _ in range(4)}
        )
    )


def test_an_unknown_user_is_told(tmp_path: Path) -> None:
    """Exit code 2, and nothing is written."""
    site = Site(tmp_path)
    code, message = site.fails("--vault-user", "nobody-of-this-name")

    assert 2 == code
    assert "user 'nobody-of-this-name' does not exist" in message
    assert not site.audit.exists()


def test_files_of_another_user_are_told(tmp_path: Path) -> None:
    """A front end that may not read its key ends the start, with one line."""
    site = Site(tmp_path)
    code, message = site.fails("--front-end-user", _FRONT_END)

    assert 9 == code, message
    assert 1 == len([li for li in message.splitlines() if not li.startswith("{")])
    assert "Permission denied" in message
