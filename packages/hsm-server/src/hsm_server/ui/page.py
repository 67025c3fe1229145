# SPDX-License-Identifier: MIT
"""One row of the table of pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from aiohttp import web

from hsm_server.ui.view import View, Visit

Handler: TypeAlias = Callable[[View], Awaitable[web.StreamResponse]]
"""Answers somebody who is known."""


@dataclass(frozen=True, slots=True)
class Page:
    """
    A page for people who have signed in.

    Attributes:
        method: ``GET``, or ``POST`` for what a form sends.
        path: Below ``/ui``, in the syntax of aiohttp; empty for the first page.
        handler: Makes the answer.
        name: How log and metrics call it, such as ``keys.list``.
        is_background: Whether other pages ask for it by themselves; then it keeps no
            session alive.
    """

    method: str
    path: str
    handler: Handler
    name: str
    is_background: bool = False


@dataclass(frozen=True, slots=True)
class OpenPage:
    """A page for anybody; otherwise as `Page`."""

    method: str
    path: str
    handler: Callable[[Visit], Awaitable[web.StreamResponse]]
    name: str
