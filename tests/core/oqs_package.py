# SPDX-License-Identifier: MIT
"""
A package ``liboqs-python`` on disk that does at import what the real one does.

It looks for no library: it counts as imported where it should not have been, and tells
by files that it leaves behind.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support import REPOSITORY

_NOISE = """
import contextlib, logging, os, sys
from pathlib import Path
from sys import stdout

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)
logger.addHandler(logging.StreamHandler(stdout))
with open({marks!r} + "/imported", "a") as mark:
    mark.write("x")
logger.info("LOGGED at import")
print("PRINTED at import")
with contextlib.suppress(OSError):
    os.write(1, b"WRITTEN at import\\n")
"""
_INSTALL = """
import subprocess, time
for seconds in (5, 4, 3, 2, 1):
    logger.info("Installing in %s seconds...", seconds)
    time.sleep(1)
subprocess.run(["git", "clone", "https://github.com/open-quantum-safe/liboqs"])
subprocess.run(["cmake", "--build", "."])
raise SystemExit("Could not load liboqs shared library")
"""
_ENDINGS = {
    "installs": _INSTALL,
    "leaves": "raise SystemExit(1)",
    "fails": "raise OSError('symbol not found')",
    "works": "from tests.core.fake_oqs import FakeBinding\n"
    "_binding = FakeBinding()\n"
    "for _name in ('KeyEncapsulation', 'Signature', 'get_enabled_kem_mechanisms',\n"
    "              'get_enabled_sig_mechanisms', 'oqs_version', 'native'):\n"
    "    globals()[_name] = getattr(_binding, _name)\n",
}

_WATCH = """
import os, sys
seen = []
def watch(event, arguments):
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
        seen.append(os.path.basename(os.fsdecode(arguments[0] or arguments[1][0])))
    elif event.startswith(("socket.", "urllib.")):
        seen.append(event)
    elif event == "import" and arguments[0].split(".")[0] == "oqs":
        seen.append("import oqs")
sys.addaudithook(watch)
import ctypes, ctypes.util
{preparation}
from hsm_core._providers.oqs.provider import OqsProvider
del seen[:]
provider = OqsProvider()
served = len(provider.algorithms())
again = OqsProvider()
assert (len(again.algorithms()), again.absence) == (served, provider.absence)
with open({marks!r} + "/report", "w") as report:
    report.write("\\n".join([str(served), provider.absence, *seen]))
{afterwards}
"""

_NO_LOADER = "ctypes.util.find_library = lambda name: None"
_LIBRARY = """
class Function:
    restype = None
    def __call__(self): return {version!r}
class Library:
    def __getitem__(self, name): return Function()
ctypes.CDLL = lambda name: Library()
"""


@dataclass(frozen=True, slots=True)
class Run:
    """
    What a program that opens the provider did.

    Attributes:
        served: How many algorithms are served.
        absence: Why none is.
        events: Programs that were run, connections, and imports of ``oqs``.
        imports: How often the package was executed.
        programs: Which of ``git`` and ``cmake`` were run.
    """

    served: int
    absence: str
    events: list[str]
    imports: int
    programs: set[str]
    stdout: str
    stderr: str


class Place:
    """A folder with the package, a home, and programs that tell that they were run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.marks = folder / "marks"
        self.site = folder / "site"
        for made in (self.home, self.marks, self.site, folder / "bin"):
            made.mkdir()
        for name in ("git", "cmake"):
            program = folder / "bin" / name
            program.write_text(f"#!/bin/sh\necho ran > {self.marks}/{name}\n")
            program.chmod(0o755)

    def install(self, ending: str, version: str = "0.16.0.1") -> None:
        """Write the package, which ends its import in some way."""
        package = self.site / "oqs"
        package.mkdir()
        noise = _NOISE.format(marks=str(self.marks))
        (package / "oqs.py").write_text(noise + _ENDINGS[ending])
        (package / "__init__.py").write_text("from oqs.oqs import *\n")
        metadata = self.site / f"liboqs_python-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: liboqs-python\nVersion: {version}\n"
        )

    def run(
        self,
        *,
        library: bytes | None = None,
        loader: bool = False,
        preparation: str = "",
        afterwards: str = "",
        environment: dict[str, str] | None = None,
    ) -> Run:
        """
        Open the provider in a program of its own.

        Args:
            library: Version that a library would say; None looks for a real one.

            loader: Whether the system's loader is really asked.

            preparation: What the program does before.

            afterwards: What it does after.

            environment: Further variables.
        """
        before = [preparation, "" if loader else _NO_LOADER]
        if library is not None:
            before.append(_LIBRARY.format(version=library))
        program = _WATCH.format(
            preparation="\n".join(before), marks=str(self.marks), afterwards=afterwards
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            cwd=REPOSITORY,
            env={
                "PATH": f"{self.folder / 'bin'}:{os.environ.get('PATH', '')}",
                "HOME": str(self.home),
                "PYTHONPATH": f"{self.site}:{REPOSITORY}",
                **(environment or {}),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        served, absence, *events = (self.marks / "report").read_text().split("\n")
        imported = self.marks / "imported"
        return Run(
            served=int(served),
            absence=absence,
            events=events,
            imports=len(imported.read_text()) if imported.exists() else 0,
            programs={n for n in ("git", "cmake") if (self.marks / n).exists()},
            stdout=done.stdout,
            stderr=done.stderr,
        )
