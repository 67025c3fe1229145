# SPDX-License-Identifier: MIT
"""
Entity tags of keys and conditional requests (RFC 9110, sections 8.8 and 13).

The tag of a key is its generation. In descriptions a digest of the content follows,
because a use count changes the content but not the key. ``If-Match`` compares the
generation only.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

from aiohttp import ETag, web

from hsm_core.errors import InvalidInputError, PreconditionFailedError
from hsm_core.model import Integrity, KeyInfo
from hsm_core.operations import DescribeKey, Effect
from hsm_core.rest import Route, path_fields

SAFE_METHODS: Final = ("GET", "HEAD")
"""Methods that only read (RFC 9110, section 9.2.1)."""

_OURS: Final = re.compile(r"([1-9][0-9]{0,14})(?:-[0-9a-f]{32})?\Z")
_TAG: Final = re.compile(r'(?P<weak>W/)?"(?P<value>[!#-~\x80-\xff]*)"\Z')


def takes_condition(route: Route) -> bool:
    """Return whether a route changes a key that is there."""
    is_change = route.operation.effect is Effect.MUTATION
    return is_change and "key_id" in path_fields(route.path)


def key_tag(route: Route, result: object, body: bytes) -> ETag | None:
    """Return the tag of an answer about one key; None if it has none."""
    if not isinstance(result, KeyInfo) or result.integrity is not Integrity.OK:
        return None
    if route.operation is not DescribeKey:
        return ETag(str(result.generation))
    return ETag(f"{result.generation}-{hashlib.sha256(body).hexdigest()[:32]}")


def is_known(request: web.Request, tag: ETag) -> bool:
    """Return whether ``If-None-Match`` of a GET names a tag."""
    return any(known.value in {tag.value, "*"} for known in request.if_none_match or ())


def expected_generation(request: web.Request, route: Route) -> int:
    """
    Return the generation that ``If-Match`` asks for; 0 if it asks for none.

    Raises:
        PreconditionFailedError: It names what is no tag of a key, or is weak: these
            match nothing.
        InvalidInputError: It is malformed or names several, or nothing here could keep
            to a condition that is set.
    """
    if request.method not in SAFE_METHODS and "If-None-Match" in request.headers:
        raise InvalidInputError(
            "If-None-Match is allowed for GET and HEAD only.", field="If-None-Match"
        )
    given = request.headers.getall("If-Match", [])
    if not given:
        return 0
    if not takes_condition(route):
        raise InvalidInputError(
            "If-Match is allowed only for changes to an existing key.", field="If-Match"
        )
    if given == ["*"]:
        return 0
    tag = _TAG.match(given[0])
    if len(given) > 1 or tag is None:
        raise InvalidInputError(
            "If-Match must be one entity tag, or *.", field="If-Match"
        )
    ours = _OURS.match(tag["value"])
    if ours is None or tag["weak"]:
        raise PreconditionFailedError
    return int(ours[1])
