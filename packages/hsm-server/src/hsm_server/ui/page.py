# SPDX-License-Identifier: MIT
"""Page definitions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from aiohttp import web

from hsm_server.ui.view import View, Visit

Handler: TypeAlias = Callable[[View], Awaitable[web.StreamResponse]]
"""Handler of a signed-in user's request."""


@dataclass(frozen=True, slots=True)
class Page:
    """
    A page that requires sign-in.

    Attributes:
        method: ``GET``, or ``POST`` for forms.
        path: Below ``/ui``, in aiohttp's syntax; empty for the first page.
        handler: Returns the response.
        name: Name in log and metrics, such as ``keys.list``.
        is_background: Whether scripts request it; it does not keep a session alive.
    """

    method: str
    path: str
    handler: Handler
    name: str
    is_background: bool = False


@dataclass(frozen=True, slots=True)
class OpenPage:
    """
    A page without sign-in; otherwise as `Page`.

    Attributes:
        has_effect: Whether GET has an effect, so that HEAD is not answered.
    """

    method: str
    path: str
    handler: Callable[[Visit], Awaitable[web.StreamResponse]]
    name: str
    has_effect: bool = False
