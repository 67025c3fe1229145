# SPDX-License-Identifier: MIT
"""hsm-cli certificates: attach, show, remove."""

from pathlib import Path

from tests.cli.support import Shell
from tests.pki import PublicOnly, self_signed_root


def test_a_chain_is_attached_shown_and_removed(shell: Shell, tmp_path: Path) -> None:
    """The chain comes from a file and is printed as PEM, root certificate included."""
    shell("create", "ec-p256", "--name", "release")
    shown = shell("public-key", "release", "--format", "der")
    root = self_signed_root("Test authority")
    issued = root.issue("ada", key=PublicOnly(shown.out))
    path = tmp_path / "chain.pem"
    path.write_bytes(issued.chain_pem)

    none = shell("certificates", "show", "release")
    attached = shell("certificates", "attach", "release", "--in", str(path))
    printed = shell("certificates", "show", "release")
    removed = shell("certificates", "remove", "release")

    assert 2 == none.code
    assert "certificates attach release --in FILE" in none.err
    assert 0 == attached.code
    assert "certificates" in attached.text
    assert issued.chain_pem == printed.out
    assert 0 == removed.code
    assert "certificates" not in removed.text
