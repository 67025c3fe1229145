# SPDX-License-Identifier: MIT
"""
Tests run in processes of their own, with one module other than it is on disk.

Such a process is forked from one that has already loaded what is not ours. It loads
ours afresh, so that a fault at the top of a module counts like one in a function.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import importlib.abc
import importlib.machinery
import importlib.util
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from types import CodeType, ModuleType
from typing import Final

import pytest

OPTIONS: Final = (
    *(
        "-q",
        "--rootdir=.",
        "-o",
        "addopts=--import-mode=importlib",
        "--assert=plain",
    ),
    *("-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov"),
    *("-p", "no:benchmark", "--hypothesis-seed=0", "-o", "timeout=0"),
)
_OURS: Final = ("hsm_", "tests")
_DIE_WITH_PARENT: Final = 1  # PR_SET_PDEATHSIG in linux/prctl.h
_POLL_SECONDS: Final = 0.01
_ALL_PASSED: Final = 0
_USUAL: Final = frozenset({_ALL_PASSED, 1, 2})
"""Exit codes of pytest where tests passed, failed, or could not be collected."""
_OUR_FAULT: Final = 99


class Outcome(StrEnum):
    """What the tests made of a fault."""

    KILLED = "killed"
    TIMEOUT = "timeout"
    SURVIVED = "survived"
    UNCOVERED = "uncovered"


class _Planting(importlib.abc.MetaPathFinder):
    """Finds one module elsewhere than on disk: in a tree."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self._name = name
        self._path = str(path)
        self._tree = tree

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """Find it, and nothing else."""
        if fullname != self._name:
            return None
        loader = _TreeLoader(fullname, self._path)
        loader.code = compile(self._tree, self._path, "exec", dont_inherit=True)
        return importlib.util.spec_from_file_location(
            fullname, self._path, loader=loader
        )


class _TreeLoader(importlib.machinery.SourceFileLoader):
    code: CodeType

    def get_code(self, fullname: str) -> CodeType:
        """Return the code with the fault."""
        return self.code


class Hurry:
    """
    A plugin of pytest that ends a process whose test takes far longer than usual.

    Args:
        seconds: Processor time that is usual, by the test's id.
    """

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self._seconds = seconds

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Give a test some processor time, and some more time to wait in."""
        usual = self._seconds[item.nodeid]
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        soft = int(time.process_time() + 6 + 3 * usual)
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        # On a busy machine all takes long; only who waits for ever must be ended.
        signal.alarm(int(60 + 30 * usual))
        return (yield)


def module_name(path: Path) -> str:
    """Return the name by which a module of a package below ``src`` is imported."""
    parts = path.with_suffix("").parts
    parts = parts[parts.index("src") + 1 :]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def in_child(work: Callable[[Path], int], seconds: float) -> int | None:
    """
    Do something in a forked process, with a folder that is there only meanwhile.

    Args:
        work: Is given the folder, and returns the exit code.

        seconds: Processor time that it should take; it is killed when it is not done
            long after that.

    Returns:
        The exit code, or nothing if it was killed.
    """
    folder = Path(tempfile.mkdtemp(prefix="mutant-"))
    child = os.fork()
    if child == 0:
        _live(work, folder)
    try:
        return _wait(child, time.monotonic() + 300 + 60 * seconds)
    finally:
        # Tests may have left processes behind, in the group that the child leads.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def _live(work: Callable[[Path], int], folder: Path) -> None:
    code = _OUR_FAULT
    try:
        os.setsid()
        # Nobody is left behind by a session that somebody stops.
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(folder / "hypothesis")
        os.environ["TMPDIR"] = str(folder)
        tempfile.tempdir = None
        output = os.open(folder / "output", os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        code = work(folder)
    finally:
        os._exit(code)


def _wait(child: int, until: float) -> int | None:
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        time.sleep(_POLL_SECONDS)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def attempt(path: Path, tree: ast.Module | None, tests: Mapping[str, float]) -> Outcome:
    """
    Run tests with a fault in a module.

    Args:
        path: Of the module.

        tree: The module with the fault; nothing to take it as it is.

        tests: Processor time of each without a fault, in seconds, by its id as pytest
            writes it.

    Raises:
        RuntimeError: They could not be run.
    """

    def work(folder: Path) -> int:
        if tree is not None:
            sys.meta_path.insert(0, _Planting(module_name(path), path, tree))
        words = [*OPTIONS, "-x", f"--basetemp={folder / 'pytest'}", *tests]
        return int(pytest.main(words, plugins=[Hurry(tests)]))

    code = in_child(work, sum(tests.values()))
    if code is None:
        return Outcome.TIMEOUT
    # Where nothing can be loaded, for the fault, pytest takes its words for wrong.
    if code == _OUR_FAULT or (
        code not in _USUAL
        and (tree is None or attempt(path, None, tests) != Outcome.SURVIVED)
    ):
        raise RuntimeError(f"The tests of {path} could not be run.")
    return Outcome.SURVIVED if code == _ALL_PASSED else Outcome.KILLED


def preload(tests: Sequence[str]) -> None:
    """Load what these tests load that is not ours, before anything is forked."""
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as listed:

        def work(folder: Path) -> int:
            pytest.main([*OPTIONS, "--collect-only", *tests])
            Path(listed.name).write_text("\n".join(sys.modules), "utf-8")
            return 0

        in_child(work, 600)
        names = listed.read().splitlines()
    for name in names:
        if not name.startswith(_OURS) and name != "__main__":
            with contextlib.suppress(Exception):
                __import__(name)
