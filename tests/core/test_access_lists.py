# SPDX-License-Identifier: MIT
"""Files with access lists, such as systemd's credentials, as places of secrets."""

import errno
import os
import struct
from pathlib import Path

import pytest

from hsm_core.errors import UnsafeFileModeError
from hsm_core.secret_input import is_open_to_others, read_secret
from tests.support import require_service

SECRET = b"0123456789abcdef0123456789abcdef"
OWNER, USER, GROUP, NAMED_GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
NOBODY = 0xFFFFFFFF
STRANGER = 12345
READ = 4


def access_list(*named: tuple[int, int, int], group: int = 0, other: int = 0) -> bytes:
    """Return a list as the kernel takes it: owner, *named*, group, mask, others."""
    mine = [(OWNER, READ, NOBODY), *(n for n in named if n[0] == USER)]
    theirs = [(GROUP, group, NOBODY), *(n for n in named if n[0] == NAMED_GROUP)]
    rest = [(MASK, READ, NOBODY), (OTHER, other, NOBODY)]
    entries = [*mine, *theirs, *rest]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries)


def write_listed(path: Path, data: bytes) -> str:
    """Write a secret into a file with an access list, and return how to name it."""
    path.write_bytes(b"text:" + SECRET)
    path.chmod(0o400)
    try:
        os.setxattr(path, "system.posix_acl_access", data)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        require_service("A temporary folder with access lists", None)
    return f"@{path}"


def read(value: str) -> bytes:
    """Read a secret of 32 bytes."""
    return read_secret(value, field="master-key", minimum=32, exact=32)


def test_one_for_root_and_us_is_read(tmp_path: Path) -> None:
    """A file that one user more may read is that user's, though its mode is 0440."""
    ours = (USER, READ, os.geteuid())
    value = write_listed(tmp_path / "key", access_list(ours, (USER, READ, 0)))

    assert 0o440 == (tmp_path / "key").stat().st_mode & 0o777
    assert SECRET == read(value)


@pytest.mark.parametrize(
    "data",
    [
        access_list((USER, READ, STRANGER)),
        access_list((USER, READ, os.geteuid()), (USER, READ, STRANGER)),
        access_list((NAMED_GROUP, READ, STRANGER)),
        access_list((USER, READ, os.geteuid()), group=READ),
        access_list((USER, READ, os.geteuid()), other=READ),
    ],
    ids=["stranger", "us-and-stranger", "named-group", "group", "others"],
)
def test_one_for_anybody_else_is_refused(tmp_path: Path, data: bytes) -> None:
    """Whoever else a list permits to read makes it unsafe."""
    value = write_listed(tmp_path / "key", data)

    with pytest.raises(UnsafeFileModeError, match="044"):
        read(value)


def test_an_entry_that_permits_nothing_harms_nobody(tmp_path: Path) -> None:
    """A stranger who is named to be kept out stays out."""
    ours = (USER, READ, os.geteuid())
    data = access_list(ours, (USER, 0, STRANGER), (NAMED_GROUP, 0, STRANGER))

    assert SECRET == read(write_listed(tmp_path / "key", data))


def test_a_list_that_makes_no_sense_permits_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel's form is another than is known, the mode alone counts."""
    path = tmp_path / "key"
    path.touch()
    path.chmod(0o440)
    good = access_list((USER, READ, os.geteuid()))
    with path.open("rb") as file:
        for data in (b"", good[:4], good[:-1], b"\3" + good[1:]):
            monkeypatch.setattr(os, "getxattr", lambda *_, data=data: data)

            assert is_open_to_others(file.fileno())

        monkeypatch.setattr(os, "getxattr", lambda *_: good)
        assert not is_open_to_others(file.fileno())
