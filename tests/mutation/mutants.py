# SPDX-License-Identifier: MIT
"""
Small faults in a module, one at a time, and those of them that have no effect.

Text for people gets no faults: docstrings, annotations, ``__all__``, ``__repr__``, log
messages, messages of errors and assertions. Neither do flags of a dataclass or struct
that only keep programmers from mistakes.
"""

from __future__ import annotations

import ast
import copy
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

_COMPARED: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_COMPUTED: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
_RENAMED: Final = {"all": "any", "any": "all", "max": "min", "min": "max"}
_HARMLESS_FLAGS: Final = frozenset({"eq", "frozen", "kw_only", "repr", "slots", "gc"})
_LOGGED: Final = frozenset({"debug", "info", "warning", "error", "exception", "log"})
_TYPES: Final = frozenset({"NewType", "ParamSpec", "TypeVar"})
_SCOPES: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True, slots=True)
class Mutant:
    """
    A fault that can be put into one module.

    Attributes:
        number: Its place among the faults of this module.
        line: Where, from 1.
        lines: Those of the statement around it; of a compound one, of its head.
        inside: Function or class around it, dotted; empty for the module itself.
        before: What stands there, as one line.
        after: What the fault makes of it.
    """

    number: int
    line: int
    lines: tuple[int, int]
    inside: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class _Change:
    """One node to be replaced by another, or by one more of its own kind."""

    old: ast.AST
    new: ast.AST
    lines: tuple[int, int]
    inside: str


def mutants_of(source: str) -> list[Mutant]:
    """Return every fault that can be put into a module, in a fixed order."""
    return [
        Mutant(
            number,
            getattr(change.old, "lineno", change.lines[0]),
            change.lines,
            change.inside,
            _text(change.old),
            _text(change.new),
        )
        for number, change in enumerate(_changes(ast.parse(source)))
    ]


def planted(source: str, number: int) -> ast.Module:
    """Return a module with the fault of that number in it, ready to be compiled."""
    tree = ast.parse(source)
    for found, change in enumerate(_changes(tree)):
        if found == number:
            _Replacing(change).visit(tree)
            return ast.fix_missing_locations(tree)
    raise IndexError(number)


class _Replacing(ast.NodeTransformer):
    def __init__(self, change: _Change) -> None:
        self._change = change

    def visit(self, node: ast.AST) -> ast.AST:
        """Put the new node where the old one is."""
        if node is self._change.old:
            return ast.copy_location(self._change.new, node)
        result: ast.AST = self.generic_visit(node)
        return result


def _text(node: ast.AST) -> str:
    """Return a node as one line, a branch or loop without what is in it."""
    if isinstance(node, ast.If | ast.While):
        node = node.test
    return " ".join(ast.unparse(node).split())


def _changes(tree: ast.Module) -> Iterator[_Change]:
    yield from _within(tree, (1, 1), "")


def _within(node: ast.AST, lines: tuple[int, int], inside: str) -> Iterator[_Change]:
    """Give the changes of a node and of what is in it, from the outside in."""
    if isinstance(node, ast.stmt | ast.ExceptHandler | ast.match_case):
        lines = _head(node)
    for new in _instead(node):
        yield _Change(node, new, lines, inside)
    if isinstance(node, _SCOPES):
        inside = f"{inside}.{node.name}".lstrip(".")
    for child in _looked_at(node):
        yield from _within(child, lines, inside)


def _head(node: ast.stmt | ast.ExceptHandler | ast.match_case) -> tuple[int, int]:
    """Return the first and last line of a statement, but for statements in it."""
    if isinstance(node, ast.match_case):
        return node.pattern.lineno, node.body[0].lineno - 1
    body: list[ast.stmt] = getattr(node, "body", [])
    last = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno
    return node.lineno, last or node.lineno


def _looked_at(node: ast.AST) -> Iterator[ast.AST]:
    """Give the parts of a node that do something."""
    left_out: list[ast.AST | None] = []
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            left_out = [node.returns, *node.decorator_list]
        case ast.ClassDef():
            left_out = [*node.decorator_list]
            left_out += [k for k in node.keywords if k.arg in _HARMLESS_FLAGS]
        case ast.arg() | ast.AnnAssign():
            left_out = [node.annotation]
        case ast.Raise(exc=ast.Call() as error):
            left_out = [error, node.cause]
            yield from (word for word in error.args if not _is_text(word))
            yield from error.keywords
        case _:
            pass
    for child in ast.iter_child_nodes(node):
        if not any(child is other for other in left_out) and not _is_for_people(child):
            yield child


def _is_text(node: ast.expr) -> bool:
    match node:
        case ast.JoinedStr() | ast.Constant(value=str()):
            return True
        case ast.BinOp() | ast.IfExp():
            return any(
                _is_text(n)
                for n in ast.iter_child_nodes(node)
                if isinstance(n, ast.expr)
            )
        case _:
            return False


def _is_for_people(node: ast.AST) -> bool:
    match node:
        case ast.Expr(value=ast.Constant()) | ast.Assert():
            return True
        case ast.Assign(value=ast.Call(func=ast.Name(id=name))) if name in _TYPES:
            return True
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return True
        case ast.FunctionDef(name="__repr__"):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr=name, value=target))):
            return name in _LOGGED and "log" in _text(target).lower()
        case _:
            return False


def _instead(node: ast.AST) -> Iterator[ast.AST]:
    """Give what may stand instead of a node."""
    match node:
        case ast.Constant():
            yield from _other_constants(node)
        case ast.Compare():
            for place, operator in enumerate(node.ops):
                new = copy.copy(node)
                new.ops = list(node.ops)
                new.ops[place] = _COMPARED[type(operator)]()
                yield new
        case ast.BoolOp():
            other = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
            yield ast.BoolOp(other, node.values)
        case ast.BinOp() if type(node.op) in _COMPUTED:
            yield ast.BinOp(node.left, _COMPUTED[type(node.op)](), node.right)
        case ast.AugAssign() if type(node.op) in _COMPUTED:
            yield ast.AugAssign(node.target, _COMPUTED[type(node.op)](), node.value)
        case ast.UnaryOp(op=ast.Not()):
            yield node.operand
        case ast.If() | ast.IfExp() | ast.While():
            yield from _other_tests(node)
        case ast.comprehension(ifs=[_, *_]):
            new_loop = copy.copy(node)
            new_loop.ifs = node.ifs[1:]
            yield new_loop
        case ast.Call(func=ast.Name(id=name)) if name in _RENAMED:
            new_call = copy.copy(node)
            new_call.func = ast.Name(_RENAMED[name], ast.Load())
            yield new_call
        case ast.stmt():
            yield from _other_statements(node)
        case _:
            pass


def _other_constants(node: ast.Constant) -> Iterator[ast.AST]:
    match node.value:
        case bool():
            yield ast.Constant(not node.value)
        case int() | float():
            yield ast.Constant(node.value + 1)
        case str():
            yield ast.Constant(f"XX{node.value}")
        case bytes():
            yield ast.Constant(b"XX" + node.value)
        case _:
            pass  # There is nothing else for None and an ellipsis to be.


def _other_tests(node: ast.If | ast.IfExp | ast.While) -> Iterator[ast.AST]:
    """Turn a condition round, where changing its parts does not do that."""
    if isinstance(node.test, ast.Compare | ast.UnaryOp) or node.test is None:
        return
    new = copy.copy(node)
    new.test = ast.UnaryOp(ast.Not(), node.test)
    yield new


def _other_statements(node: ast.stmt) -> Iterator[ast.AST]:
    match node:
        case ast.Return(value=value) if value is not None:
            if not (isinstance(value, ast.Constant) and value.value is None):
                yield ast.Return(ast.Constant(None))
        case ast.Raise() | ast.Delete() | ast.Expr(value=ast.Call()):
            yield ast.Pass()
        case ast.Assign(value=value) if not isinstance(value, ast.Constant):
            yield ast.Assign(node.targets, ast.Constant(None), lineno=node.lineno)
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()
        case _:
            pass


_LIST: Final = Path(__file__).with_name("equivalents.toml")


def is_equivalent(key: list[str]) -> bool:
    """Return whether a fault, as module, place, before and after, makes none."""
    return tuple(key) in _known()


@cache
def _known() -> frozenset[tuple[str, ...]]:
    with _LIST.open("rb") as file:
        listed: list[dict[str, Any]] = tomllib.load(file)["fault"]
    return frozenset(
        (entry["module"], entry["inside"], entry["before"], entry["after"])
        for entry in listed
    )
