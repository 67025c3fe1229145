# SPDX-License-Identifier: MIT
"""
Wrappers around stores: every call of a store goes through one function.

The guard is such a wrapper: an exception of a store that is not an `HSMError` becomes a
`StoreUnavailableError`. After such a failure of a commit its outcome is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, TypeAlias, TypeVar, cast

from hsm_core.errors import HSMError, OutcomeUnknownError, StoreUnavailableError
from hsm_core.protocols import ApprovalChange, KeyChange

S = TypeVar("S")

Around: TypeAlias = Callable[[str, Callable[..., Any], tuple[Any, ...]], Any]
"""Makes a call, or fails: name of the method, the method, its arguments."""


class _Wrapper:
    """
    Another store, each of whose calls goes through a function.

    Args:
        inner: The store that does the work.

        around: Called in place of each of its methods; a property is a method without
            arguments.
    """

    def __init__(self, inner: object, around: Around) -> None:
        self._inner = inner
        self._around = around

    def __repr__(self) -> str:
        return f"<wrapped {self._inner!r}>"


def _other(self: Any, name: str) -> Any:
    """Return an attribute that only the store has, and not its class."""
    if name.startswith("_"):
        raise AttributeError(name)
    inner, around = self._inner, self._around
    if name == "is_remote":
        return around(name, lambda: getattr(inner, name, False), ())
    if name == "available":
        return around(name, lambda: getattr(inner, name), ())
    found = getattr(inner, name)
    return lambda *arguments: around(name, found, arguments)


def _method(name: str) -> Callable[..., Any]:
    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        found = getattr(self._inner, name)
        return self._around(name, partial(found, **options), arguments)

    return call


def _property(name: str) -> property:
    def read(self: Any) -> Any:
        return self._around(name, lambda: getattr(self._inner, name), ())

    return property(read)


class _Guard(_Wrapper):
    """Wrapper of `guarded`, whose stores are asked for every use of a key."""

    @property
    def available(self) -> bool:
        """Whether the store is, as far as it can tell."""
        try:
            return bool(self._inner.available)  # type: ignore[attr-defined]
        except HSMError:
            raise
        except Exception:
            return False


@cache
def _wrapper_of(kind: type, is_guard: bool) -> type[_Wrapper]:
    base = _Guard if is_guard else _Wrapper
    members = {
        name: _method(name) if callable(getattr(kind, name)) else _property(name)
        for name in dir(kind)
        if not (name.startswith("_") or name in vars(base))
    }
    if not {"available", "is_remote"} <= set(dir(kind)):
        # Not for all: a class with __getattr__ reads every attribute more slowly.
        members["__getattr__"] = _other
    return type(f"Wrapped{kind.__name__}", (base,), members)


def wrapped(inner: S, around: Around) -> S:
    """Return a store that has the public methods of another, called by *around*."""
    kind: type = type(inner)
    return cast("S", _wrapper_of(kind, around is _guard)(inner, around))


def unwrapped(store: object) -> object:
    """Return the store that does the work."""
    return store._inner if isinstance(store, _Wrapper) else store  # noqa: SLF001


def guarded(inner: S) -> S:
    """Return a store that raises only errors of ours."""
    return wrapped(inner, _guard)


def _guard(name: str, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        result = call(*arguments)
    except HSMError:
        raise
    except Exception as error:
        if name == "commit":
            raise OutcomeUnknownError(
                "The outcome of the change is unknown.", **_facts_of(*arguments)
            ) from error
        raise StoreUnavailableError from error
    if result is None or not isinstance(result, Iterator):
        return result
    return _guarded_walk(result)


def _guarded_walk(found: Iterator[S]) -> Iterator[S]:
    # What the consumer raises never passes here: only the store's next() does.
    try:
        yield from found
    except HSMError:
        raise
    except Exception as error:
        raise StoreUnavailableError from error


def _facts_of(change: KeyChange | ApprovalChange) -> dict[str, str]:
    if isinstance(change, ApprovalChange):
        return {"approval_id": change.entry.approval_id}
    return {"operation_id": change.operation_id}
