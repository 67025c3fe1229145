# SPDX-License-Identifier: MIT
"""When the binding of liboqs is imported, and what nobody sees of it."""

from __future__ import annotations

import _ctypes
import ctypes.util
import shutil
from pathlib import Path

import pytest

from tests.core.oqs_package import Place, Run

_LACK = """
import resource
from hsm_core._providers.oqs.provider import OqsProvider
from hsm_core.errors import UnavailableError
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
try:
    OqsProvider().algorithms()
except UnavailableError:
    pass
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
"""

LOOKS = {"ldconfig", "gcc", "cc", "ld", "objdump", "sh"}
"""Programs that `ctypes.util.find_library` asks."""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Give a folder for the package."""
    return Place(tmp_path)


def assert_untouched(run: Run) -> None:
    """See that nothing was imported, counted down, cloned, printed or connected to."""
    assert (run.served, run.imports, run.programs) == (0, 0, set())
    assert (run.stdout, run.stderr) == ("", "")
    assert not [event for event in run.events if event not in LOOKS]


class TestMissing:
    def test_no_package(self, place: Place) -> None:
        """
        Without the package nothing is looked for at all.
        """
        run = place.run(library=b"0.16.0")

        assert_untouched(run)
        assert "not installed" in run.absence
        assert run.events == []

    def test_no_descriptors(self, place: Place) -> None:
        """
        Where no file can be opened, it is looked for again when one can.
        """
        place.install("works")
        run = place.run(library=b"0.16.0", preparation=_LACK)

        assert run.served

    def test_no_library(self, place: Place) -> None:
        """
        With the package but no library, its import is never begun.
        """
        place.install("installs")
        run = place.run()

        assert_untouched(run)
        assert "shared library of liboqs was not found" in run.absence
        assert list(place.home.iterdir()) == []

    def test_loader(self, place: Place) -> None:
        """
        The system's loader is asked, and nothing else is run.
        """
        if ctypes.util.find_library("oqs") or ctypes.util.find_library("liboqs"):
            pytest.skip("The system has a liboqs.")
        place.install("installs")

        assert_untouched(place.run(loader=True))

    @pytest.mark.parametrize("folder", ["lib", "lib64"])
    @pytest.mark.parametrize("root", ["home", "installed"])
    def test_no_library_at_all(self, place: Place, root: str, folder: str) -> None:
        """
        A file of the library's name that is none is not taken for it.
        """
        place.install("installs")
        at = place.home / "_oqs" if root == "home" else place.folder / "oqs"
        (at / folder).mkdir(parents=True)
        (at / folder / "liboqs.so").write_bytes(b"not a library")
        environment = {} if root == "home" else {"OQS_INSTALL_PATH": str(at)}

        assert_untouched(place.run(environment=environment))

    @pytest.mark.parametrize("folder", ["lib", "lib64"])
    @pytest.mark.parametrize("root", ["home", "installed"])
    def test_another_library(self, place: Place, root: str, folder: str) -> None:
        """
        Another library of this name is found where the binding looks, and refused.
        """
        place.install("installs")
        at = place.home / "_oqs" if root == "home" else place.folder / "oqs"
        (at / folder).mkdir(parents=True)
        shutil.copy(_ctypes.__file__, at / folder / "liboqs.so")
        environment = {} if root == "home" else {"OQS_INSTALL_PATH": str(at)}
        run = place.run(environment=environment)

        assert_untouched(run)
        assert "is incompatible with" in run.absence

    def test_install_path_replaces_home(self, place: Place) -> None:
        """
        Where ``OQS_INSTALL_PATH`` is set, the home folder is not looked into.
        """
        place.install("installs")
        (place.home / "_oqs" / "lib").mkdir(parents=True)
        shutil.copy(_ctypes.__file__, place.home / "_oqs" / "lib" / "liboqs.so")
        run = place.run(environment={"OQS_INSTALL_PATH": str(place.folder)})

        assert_untouched(run)
        assert "shared library of liboqs was not found" in run.absence

    @pytest.mark.parametrize("version", [b"0.15.0", b"1.16.0", b"0.160.0", b"", b"16"])
    def test_other_version(self, place: Place, version: bytes) -> None:
        """
        A library of another release than the package's is refused before the import.
        """
        place.install("installs")
        run = place.run(library=version)

        assert_untouched(run)
        assert "is incompatible with" in run.absence


class TestFound:
    def test_works(self, place: Place) -> None:
        """
        With a library that fits, the package is imported once, and output stays clean.
        """
        place.install("works")
        run = place.run(library=b"0.16.0")

        assert (run.served, run.absence, run.imports) == (18, "", 1)
        assert run.stdout == ""
        assert "PRINTED at import" in run.stderr
        assert "WRITTEN at import" in run.stderr

    def test_patch_release(self, place: Place) -> None:
        """
        Library and package may differ in what follows major and minor.
        """
        place.install("works", "0.16.3")

        assert place.run(library=b"0.16.0").served == 18

    def test_output_afterwards(self, place: Place) -> None:
        """
        Output goes where it went before, and the package's log goes there no more.
        """
        place.install("works")
        run = place.run(
            library=b"0.16.0",
            afterwards=(
                "import logging; logger = logging.getLogger('oqs.oqs');"
                "logger.disabled = False; logger.info('LOGGED later');"
                "print('printed later'); sys.stdout.flush();"
                "os.write(1, b'written later\\n')"
            ),
        )

        assert run.stdout == "printed later\nwritten later\n"
        assert "LOGGED" not in run.stderr

    @pytest.mark.parametrize("descriptor", [1, 2])
    def test_closed_output(self, place: Place, descriptor: int) -> None:
        """
        A process without standard output or standard error can open the provider too.
        """
        place.install("works")
        closing = (
            f"os.close({descriptor})\nsys.std{('out', 'err')[descriptor - 1]}=None"
        )
        run = place.run(library=b"0.16.0", preparation=closing)

        assert (run.served, run.stdout) == (18, "")

    @pytest.mark.parametrize("ending", ["leaves", "fails"])
    def test_import_fails(self, place: Place, ending: str) -> None:
        """
        An import that ends in SystemExit or an error is told, and not tried again.
        """
        place.install(ending)
        run = place.run(library=b"0.16.0")

        assert (run.served, run.imports, run.stdout) == (0, 1, "")
        assert "could not be imported" in run.absence

    def test_another_was_opened(self, place: Place) -> None:
        """
        If the package then speaks to another library than was found, it is not used.
        """
        place.install("works")
        run = place.run(library=b"0.16.1")

        assert (run.served, run.imports) == (0, 1)
        assert "a liboqs other than" in run.absence
