# SPDX-License-Identifier: MIT
"""The vault of the how-to guide, installed and used as the guide says."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm_core.errors import ConfigurationError, StoreUnavailableError
from hsm_core.factory import open_hsm
from hsm_core.session import Session
from hsm_core.settings import Settings
from hsm_core.testing import caller
from tests.support import REPOSITORY

EXAMPLE = REPOSITORY / "examples" / "vault"
GUIDE = REPOSITORY / "docs" / "how-to" / "write-a-vault.md"


@pytest.fixture
def share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install the example as its pyproject.toml says, and give an empty share."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    info = tmp_path / "site" / "share_vault-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\n"
        f"Version: {project['version']}\n"
    )
    (info / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n{name} = {value}\n"
            for group, points in project["entry-points"].items()
            for name, value in points.items()
        )
    )
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.syspath_prepend(EXAMPLE)
    folder = tmp_path / "share"
    folder.mkdir()
    (folder / "lock").touch()
    yield folder
    sys.modules.pop("share_vault", None)


def test_keys_on_a_share(share: Path, tmp_path: Path) -> None:
    """
    A server or program that names the scheme finds its keys on the share again.
    """
    settings = Settings(key_store=f"share:{share}", audit_log=tmp_path / "audit.log")
    keys = {"master_key": bytes(32), "hmac_key": bytes(32)}
    with open_hsm(settings, **keys) as gateway:  # type: ignore[arg-type]
        session = Session(gateway.act_as(caller()))
        session.create_key("Ed25519", name="signer")
        session.create_key("AES-256-GCM", name="gone")
        signature = session.sign("signer", b"hello").signature
        session.destroy("gone")

    with open_hsm(settings, **keys) as gateway:  # type: ignore[arg-type]
        session = Session(gateway.act_as(caller()))
        assert 1 == session.verify("signer", b"hello", signature).version
        (share / "lock").rename(share / "unlock")
        with pytest.raises(StoreUnavailableError):
            session.create_key("Ed25519")
        (share / "unlock").rename(share / "lock")
        session.create_key("Ed25519")


def test_share_that_is_not_mounted(share: Path, tmp_path: Path) -> None:
    """
    A start over an unmounted share is refused, and makes nothing.
    """
    (share / "lock").unlink()
    settings = Settings(key_store=f"share:{share}", audit_log=tmp_path / "audit.log")

    with pytest.raises(ConfigurationError, match="lock"):
        open_hsm(settings, master_key=bytes(32), hmac_key=bytes(32))

    assert [] == list(share.iterdir())
    assert not (tmp_path / "audit.log").exists()


def test_the_guide_shows_the_example() -> None:
    """
    What the guide shows is the files that are tested here, and as short as it says.
    """
    page = GUIDE.read_text()
    code = (EXAMPLE / "share_vault.py").read_text()
    vault = code[code.index("class ShareVault") : code.index("def _tag")]
    lines = [line for line in vault.splitlines() if line.strip()]

    assert "../../examples/vault/share_vault.py" in page
    assert "../../examples/vault/pyproject.toml" in page
    assert len(lines) <= 60
