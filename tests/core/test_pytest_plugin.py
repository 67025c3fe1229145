# SPDX-License-Identifier: MIT
"""Plug-in of pytest, as a project of somebody else uses it."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.support import REPOSITORY

PLUGIN = "hsm_core.pytest_plugin"
PROJECT = """
import sys

import pytest
import hsm_core

sys.modules["hsm_server"] = None  # as if it were not installed


def test_sign(hsm):
    key = hsm.as_user("app", roles=["operator"]).create("Ed25519", name="release")
    assert key.verify(b"hello", key.sign(b"hello")) == 1
    assert repr(hsm) == "<EmbeddedHSM :memory:>"


def test_each_test_has_its_own(hsm):
    auditor = hsm.as_user("eve", roles=["auditor"])
    assert list(auditor.keys()) == []
    hsm.audit.verify()


def test_time(hsm, clock):
    ada = hsm.as_user("ada", roles=["administrator"])
    key = ada.create("Ed25519", name="old")
    made = key.info.created_at
    clock.advance(3600)
    key.rotate()
    assert (key.info.updated_at - made).total_seconds() == 3600


def test_server(hsm_server):
    raise AssertionError("skipped without the server")
"""


def test_a_project_of_somebody_else(tmp_path: Path) -> None:
    """Its tests get an HSM, its clock, and no server where that is not installed."""
    (tmp_path / "test_app.py").write_text(PROJECT)
    # The plug-ins of this repository's tests take seconds to load.
    alone = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", "-p", PLUGIN],
        cwd=tmp_path,
        env=alone,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "3 passed, 1 skipped" in done.stdout, done.stdout
    assert "hsm_server needs the distribution hsm-server" in done.stdout


def test_the_plug_in_is_an_entry_point() -> None:
    """An entry point of hsm-core names the plug-in, so that pytest finds it."""
    text = (REPOSITORY / "packages/hsm-core/pyproject.toml").read_text()
    points = tomllib.loads(text)["project"]["entry-points"]

    assert points["pytest11"] == {"hsm_core": PLUGIN}
