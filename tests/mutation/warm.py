# SPDX-License-Identifier: MIT
"""
Faults in functions, tried where all tests are already collected.

A process collects the tests once, and forks for each fault; in the fork, the function
gets other code. That spares each fault the loading of everything, but does not reach
what is done while modules are loaded: such faults are left to others.
"""

from __future__ import annotations

import ast
import gc
import inspect
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType
from typing import Final

import pytest

from tests.mutation.covering import Covered
from tests.mutation.mutants import Mutant, planted
from tests.mutation.trials import OPTIONS, Hurry, Outcome, in_child

_PASSED: Final = 0
_FAILED: Final = 1
_NO_FUNCTION: Final = 90
_OUTCOMES: Final = {
    _PASSED: Outcome.SURVIVED,
    _FAILED: Outcome.KILLED,
    None: Outcome.TIMEOUT,
}

_Chosen = Sequence[tuple[Path, Mutant]]


def try_warm(
    chosen: _Chosen, tests: Sequence[str], covered: Covered
) -> list[Outcome | None]:
    """
    Return what became of each fault; nothing where it must be tried afresh.

    Args:
        chosen: The faults, with the paths of their modules.

        tests: Files of tests.

        covered: What these tests run.
    """
    found: list[Outcome | None] = [None] * len(chosen)
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as noted:

        def work(_: Path) -> int:
            trying = _Trying(chosen, covered, Path(noted.name))
            plugins = [trying, Hurry(covered.seconds)]
            return int(pytest.main([*OPTIONS, *tests], plugins=plugins))

        in_child(work, 36_000)
        for line in noted:
            place, outcome = json.loads(line)
            found[place] = outcome and Outcome(outcome)
    return found


class _Trying:
    """A plugin of pytest that runs what it has collected many times."""

    def __init__(self, chosen: _Chosen, covered: Covered, noted: Path) -> None:
        self._chosen = chosen
        self._covered = covered
        self._noted = noted

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run each fault's tests in a fork, and note what became of it."""
        gc.unfreeze()  # tests/conftest.py froze what `_swap` looks for.
        items = {item.nodeid: item for item in session.items}
        with self._noted.open("w", encoding="utf-8") as noted:
            for place, (path, mutant) in enumerate(self._chosen):
                wanted = self._covered.tests_for(path, mutant)
                chosen = [items[test] for test in wanted if test in items]
                outcome = self._try(session, path, mutant, chosen)
                noted.write(json.dumps([place, outcome]) + "\n")
                noted.flush()
        return True

    def _try(
        self,
        session: pytest.Session,
        path: Path,
        mutant: Mutant,
        items: Sequence[pytest.Item],
    ) -> Outcome | None:
        if not items:
            return Outcome.UNCOVERED
        if self._covered.is_loading(path, mutant):
            return None

        def work(folder: Path) -> int:
            if not _swap(path, mutant):
                return _NO_FUNCTION
            for item, following in zip(items, [*items[1:], None], strict=True):
                item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
                if session.testsfailed:
                    return _FAILED
            return _PASSED

        seconds = sum(self._covered.seconds[item.nodeid] for item in items)
        return _OUTCOMES.get(in_child(work, seconds))


def _swap(path: Path, mutant: Mutant) -> bool:
    """Give the functions around a fault the code with it; false if there are none."""
    tree = planted(path.read_text("utf-8"), mutant.number)
    code = _code_of(tree, path, mutant)
    if code is None:
        return False
    functions = [
        thing
        for thing in gc.get_objects()
        if isinstance(thing, FunctionType)
        and thing.__code__.co_filename == code.co_filename
        and thing.__code__.co_qualname == code.co_qualname
        and thing.__code__.co_firstlineno == code.co_firstlineno
        and thing.__code__.co_freevars == code.co_freevars
    ]
    for function in functions:
        function.__code__ = code
    return bool(functions)


def _code_of(tree: ast.Module, path: Path, mutant: Mutant) -> CodeType | None:
    """Return the code of the outermost function around a fault."""
    whole = compile(tree, str(path), "exec", dont_inherit=True)
    for code in _outermost(whole):
        last = max(line or 0 for *_, line in code.co_lines())
        if (
            f"{mutant.inside}.".startswith(f"{code.co_qualname}.")
            and code.co_firstlineno <= mutant.line <= last
        ):
            return code
    return None


def _outermost(code: CodeType) -> Iterator[CodeType]:
    """Give the functions of a module and of its classes, and none that is in one."""
    for part in code.co_consts:
        if isinstance(part, CodeType):
            if part.co_flags & inspect.CO_OPTIMIZED:
                yield part
            else:
                yield from _outermost(part)
