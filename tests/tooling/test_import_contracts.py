# SPDX-License-Identifier: MIT
"""
Each import contract, and each linter rule that backs one, catches its violation.

The violations are planted in a copy of the sources; the contracts are those of
the root pyproject.toml.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support import REPOSITORY

CONTRACTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"][
    "importlinter"
]["contracts"]

CORE = "hsm-core/src/hsm_core"
SERVER = "hsm-server/src/hsm_server"
CLIENT = "hsm-client/src/hsm_client"
CLI = "hsm-cli/src/hsm_cli"

VIOLATIONS = {
    "Server and CLI stand on core, never on each other": [
        (f"{CLI}/io/output.py", "import hsm_server.config.settings"),
        (f"{SERVER}/http/problems.py", "import hsm_cli.options"),
        (f"{CLIENT}/settings.py", "import hsm_cli.options"),
        (f"{CORE}/testing/memory.py", "import hsm_server"),
    ],
    "The server knows no client": [
        (f"{SERVER}/http/problems.py", "import hsm_client.settings"),
    ],
    "Core internals are imported by core alone": [
        (f"{SERVER}/app.py", "from hsm_core._internal import encoding"),
        (f"{CLI}/main.py", "import hsm_core._internal.audit"),
    ],
    "Only the composition roots build a core": [
        (f"{SERVER}/app.py", "from hsm_core import factory"),
        (f"{CLI}/main.py", "from hsm_core.factory import open_hsm"),
    ],
    "Core fakes stay out of the shipped server and CLI": [
        (f"{SERVER}/app.py", "import hsm_core.testing"),
        (f"{CLIENT}/remote.py", "import hsm_core.testing"),
    ],
    "Core floors": [
        (f"{CORE}/errors.py", "import hsm_core.model"),
        (f"{CORE}/unplaced.py", ""),
    ],
    "Optional providers are plug-ins: nothing imports them": [
        (f"{CORE}/factory.py", "import hsm_core._providers.oqs"),
        (f"{CORE}/_providers/oqs/provider.py", "import hsm_core._providers.pqcrypto"),
    ],
    "Layers of the core: which package may import which": [
        (
            f"{CORE}/_internal/lib/encoding.py",
            "import hsm_core._internal.pipeline.pipeline",
        ),
        (f"{CORE}/_internal/unplaced.py", ""),
    ],
    "Layers of the server": [
        (f"{SERVER}/config/settings.py", "import hsm_server.app"),
        (f"{SERVER}/unplaced.py", ""),
    ],
    "Layers of the client": [
        (f"{CLIENT}/settings.py", "import hsm_client.remote"),
        (f"{CLIENT}/unplaced.py", ""),
    ],
    "Layers of the command line": [
        (f"{CLI}/io/output.py", "import hsm_cli.invocation"),
        (f"{CLI}/unplaced.py", ""),
    ],
    "The client stands without the command line": [
        (f"{CLIENT}/waiting.py", "import click"),
    ],
    "Pages and commands do not lean on their neighbours": [
        (f"{SERVER}/ui/audit.py", "import hsm_server.ui.retention"),
        (f"{CLI}/commands/signatures.py", "import hsm_cli.commands.audit"),
    ],
    "The vault knows no network": [
        (f"{SERVER}/bootstrap/vault.py", "import hsm_server.app"),
        (f"{SERVER}/vault/gatekeeper.py", "from aiohttp import web"),
    ],
    "Front ends and the supervisor hold nothing that opens keys or verifies tokens": [
        (f"{SERVER}/processes/front_end.py", "import hsm_server.identity.token_keys"),
        (f"{SERVER}/processes/supervisor.py", "import joserfc"),
    ],
    "Core knows no transport, no terminal, no telemetry": [
        (f"{CORE}/session.py", "import aiohttp"),
        (f"{CORE}/factory.py", "import structlog"),
    ],
    "Services speak to protocols, not to adapters": [
        (f"{CORE}/_internal/pipeline/pipeline.py", "import hsm_core._internal.stores"),
        (f"{CORE}/_internal/handlers/__init__.py", "import hsm_core._internal.stores"),
    ],
}
"""For each contract: modules, and the line that must not stand in them."""


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Copy the sources, and the settings of the tools, to a scratch folder."""
    shutil.copytree(
        REPOSITORY / "packages",
        tmp_path / "packages",
        ignore=shutil.ignore_patterns("__pycache__", "dist"),
    )
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    return tmp_path


def plant(sources: Path, module: str, line: str) -> None:
    """Append a line to a module, or make an empty one that has no place."""
    path = sources / "packages" / module
    assert path.exists() is bool(line)
    with path.open("a") as file:
        file.write(f"\n{line}\n")


def lint_imports(sources: Path) -> str:
    """Run import-linter over the copy; return its report in plain text."""
    roots = sorted(sources.glob("packages/*/src"))
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=sources,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, roots)),
            "COLUMNS": "200",
            "NO_COLOR": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)


def findings(report: str) -> dict[str, str]:
    """Return what a report says about each broken contract, by its name."""
    _, _, broken = report.partition("Broken contracts")
    words = re.split(r"^([^\n]+)\n-+$", broken, flags=re.MULTILINE)
    return dict(zip(words[1::2], words[2::2], strict=True))


def test_every_contract_is_here() -> None:
    """
    A contract without a violation that it catches is a wish.
    """
    assert {contract["name"] for contract in CONTRACTS} == set(VIOLATIONS)


@pytest.mark.parametrize(
    "floors",
    [contract for contract in CONTRACTS if contract.get("containers")],
    ids=lambda contract: contract["name"],
)
def test_every_module_has_its_place(floors: dict[str, object]) -> None:
    """
    Floors are exhaustive: a new module must be given one.
    """
    assert floors["exhaustive"] is True


@pytest.mark.parametrize("number", range(3))
def test_violations_are_caught(sources: Path, number: int) -> None:
    """
    Each planted line breaks the contract that forbids it, which names the module.
    """
    planted = {
        contract: plants[number]
        for contract, plants in VIOLATIONS.items()
        if number < len(plants)
    }
    for module, line in planted.values():
        plant(sources, module, line)

    found = findings(lint_imports(sources))

    for contract, (module, line) in planted.items():
        dotted = module.partition("src/")[2].removesuffix(".py").replace("/", ".")
        name = dotted.removesuffix(".__init__") if line else "unplaced"
        assert name in found.get(contract, ""), contract


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("SLF001", "import hsm_core\n\nprint(hsm_core._internal)\n"),
        ("TID251", "import importlib\n\nimportlib.import_module('hsm_core.factory')\n"),
    ],
)
def test_ruff_closes_the_doors_beside(sources: Path, rule: str, text: str) -> None:
    """
    Two ways round an import statement are refused by the other linter.
    """
    path = sources / "packages" / SERVER / "sideways.py"
    path.write_text(text)
    program = Path(sys.executable).with_name("ruff")

    done = subprocess.run(
        [program, "check", "--no-cache", "--output-format=concise", path],
        cwd=sources,
        capture_output=True,
        text=True,
        check=False,
    )

    assert rule in done.stdout
