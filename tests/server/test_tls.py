# SPDX-License-Identifier: MIT
"""The listener's TLS context: version 1.3 alone, and clear words about files."""

import os
import ssl
import struct
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from hsm_core.errors import UnsafeFileModeError
from hsm_server.exit_codes import ListenError
from hsm_server.settings import TLSFiles
from hsm_server.tls import server_context
from tests.server.support import Authority
from tests.support import require_service


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Give a certificate authority."""
    return Authority(tmp_path)


@pytest.fixture
def files(authority: Authority) -> TLSFiles:
    """Give a good pair."""
    cert, key = authority.issue("server", server=True)
    return TLSFiles(cert=cert, key=key)


def test_only_tls_1_3_is_spoken(files: TLSFiles) -> None:
    """No older version, no tickets, no client certificate unless asked for."""
    context = server_context(files)

    assert ssl.TLSVersion.TLSv1_3 == context.minimum_version
    assert ssl.TLSVersion.TLSv1_3 == context.maximum_version
    assert 0 == context.num_tickets
    assert ssl.CERT_NONE == context.verify_mode


def test_a_key_that_one_user_more_may_read_is_ours(files: TLSFiles) -> None:
    """A private key may be root's and readable by us, as systemd's credentials are."""
    entries = [(0x01, 4, -1), (0x02, 4, os.geteuid()), (0x04, 0, -1)]
    entries += [(0x10, 4, -1), (0x20, 0, -1)]
    data = struct.pack("<I", 2)
    data += b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(files.key, "system.posix_acl_access", data)
    except OSError:
        require_service("A temporary folder with access lists", None)

    assert 0o440 == files.key.stat().st_mode & 0o777
    assert ssl.TLSVersion.TLSv1_3 == server_context(files).minimum_version


def test_a_client_ca_demands_certificates(
    files: TLSFiles, authority: Authority
) -> None:
    """With a CA every client must show a certificate, checked strictly."""
    context = server_context(
        TLSFiles(cert=files.cert, key=files.key, client_ca=authority.path)
    )

    assert ssl.CERT_REQUIRED == context.verify_mode
    assert context.verify_flags & ssl.VERIFY_X509_STRICT


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_may_read_is_refused(files: TLSFiles, mode: int) -> None:
    """A private key is its owner's alone."""
    files.key.chmod(mode)

    with pytest.raises(UnsafeFileModeError, match=f"{mode:04o}"):
        server_context(files)


def test_a_mismatched_pair_is_told(files: TLSFiles, authority: Authority) -> None:
    """The message names both files."""
    _, other = authority.issue("other", server=True)

    with pytest.raises(ListenError, match="does not belong to the certificate"):
        server_context(TLSFiles(cert=files.cert, key=other))


def test_an_encrypted_key_is_told(files: TLSFiles) -> None:
    """Nobody is asked for a passphrase on a terminal."""
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
    )

    with pytest.raises(ListenError, match="is encrypted"):
        server_context(files)


@pytest.mark.parametrize("which", ["cert", "key", "client_ca"])
def test_a_missing_file_is_named(
    files: TLSFiles, authority: Authority, tmp_path: Path, which: str
) -> None:
    """The message says which file, and why."""
    paths = {"cert": files.cert, "key": files.key, "client_ca": authority.path}
    paths[which] = tmp_path / "absent.pem"

    with pytest.raises(ListenError, match=r"absent\.pem can't be read \(No such file"):
        server_context(TLSFiles(**paths))


@pytest.mark.parametrize("which", ["cert", "key", "client_ca"])
def test_a_file_that_is_not_pem_is_told(
    files: TLSFiles, authority: Authority, tmp_path: Path, which: str
) -> None:
    """Garbage is no certificate."""
    paths = {"cert": files.cert, "key": files.key, "client_ca": authority.path}
    paths[which] = tmp_path / "garbage.pem"
    paths[which].write_text("garbage")
    paths[which].chmod(0o600)

    with pytest.raises(ListenError, match="PEM form"):
        server_context(TLSFiles(**paths))


def test_a_ca_file_needs_a_ca(files: TLSFiles) -> None:
    """A server's own certificate signs nobody."""
    with pytest.raises(ListenError, match="No CA certificate"):
        server_context(TLSFiles(cert=files.cert, key=files.key, client_ca=files.cert))
