# SPDX-License-Identifier: MIT
"""Fixture ``pkcs11_module``, as a project of somebody else uses it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cli.pkcs11_support import module
from tests.support import require_program

PROJECT = """
import subprocess

import hsm_client


def test_sign(pkcs11_module, tmp_path):
    server = pkcs11_module.server
    with hsm_client.connect(
        server.url, token=f"@{server.token_file}", ca_bundle=server.ca_bundle
    ) as hsm:
        key = hsm.create("EC-P256", name="release")
    (tmp_path / "text").write_bytes(b"text")
    words = ["--sign", "--mechanism", "ECDSA-SHA256", "--label", "release"]
    files = ["--input-file", "text", "--output-file", "signature"]

    subprocess.run(
        ["pkcs11-tool", "--module", pkcs11_module.path, *words, *files]
        + ["--signature-format", "openssl"],
        cwd=tmp_path,
        check=True,
    )

    with hsm_client.connect(
        server.url, token=f"@{server.token_file}", ca_bundle=server.ca_bundle
    ) as hsm:
        signature = (tmp_path / "signature").read_bytes()
        assert hsm.key("release").verify(b"text", signature) == 1
"""


def test_a_project_of_somebody_else(tmp_path: Path) -> None:
    """Its programs use keys of the server through PKCS#11."""
    require_program("pkcs11-tool")
    module()
    (tmp_path / "test_app.py").write_text(PROJECT)
    alone = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-rs",
            "-p",
            "no:cacheprovider",
            "-p",
            "hsm_core.pytest_plugin",
        ],
        cwd=tmp_path,
        env=alone,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )

    assert "1 passed" in done.stdout, done.stdout + done.stderr
