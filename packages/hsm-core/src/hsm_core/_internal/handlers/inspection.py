# SPDX-License-Identifier: MIT
"""Metadata of keys: DescribeKey, ListKeys, ListVersions, GetPublicKey."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, TypeAlias

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.crypto.formats import json_web_key, public_pem, raw_public_key
from hsm_core._internal.handlers.base import (
    Answer,
    Handler,
    HandlerDependencies,
    Speed,
    handles,
)
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.keyring.documents import (
    KeyDocument,
    VersionDocument,
    is_key_id,
    key_facts,
    key_info,
    tampered_info,
    version_info,
)
from hsm_core._internal.keyring.stored_keys import tampering
from hsm_core._internal.keyring.use_counters import NoRoomError
from hsm_core._internal.keyring.versions import require_version
from hsm_core._internal.lib.cache import BoundedCache
from hsm_core.algorithms import Algorithm, parse_algorithm
from hsm_core.errors import InvalidInputError, UnsupportedOperationError
from hsm_core.model import (
    Caller,
    Integrity,
    KeyFilter,
    KeyId,
    KeyInfo,
    Role,
    VersionInfo,
)
from hsm_core.operations import KeyPage, ListKeys
from hsm_core.protocols import Clock, IndexQuery, KeyScope

_MOST_PAGES: Final = 128
_MOST_ITEMS: Final = 100
"""Maximum length of a cached page, in items."""

_QUICK_ITEMS: Final = 1000
"""How far from the newest key a page is found in one step of an event loop."""

_Key: TypeAlias = tuple[str, frozenset[Role], ListKeys, KeyScope]


class _Kept(msgspec.Struct, frozen=True):
    """A page, the state of all keys that it shows, and when it was made."""

    page: KeyPage
    state: object
    made_at: float


class Listings:
    """
    Keeps pages for some seconds, or until any key has changed. Safe for many threads.

    Args:
        seconds: How long; 0 keeps nothing.

        clock: Time.

        state: Tells the state of all keys: two that are equal mean that none changed.
    """

    def __init__(
        self, seconds: float, clock: Clock, state: Callable[[], object]
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._state = state
        self._pages: BoundedCache[_Key, _Kept] = BoundedCache(_MOST_PAGES)

    def page(
        self,
        caller: Caller,
        operation: ListKeys,
        scope: KeyScope,
        make: Callable[[], KeyPage],
    ) -> KeyPage:
        """
        Return a page.

        Args:
            caller: Who asks; was let in.

            operation: What for, resolved.

            scope: What they may see now.

            make: Makes it, where none is kept that is still true.
        """
        if not self._seconds:
            return make()
        key = (caller.principal, caller.roles, operation, scope)
        # Taken before the page is made, so that what changes meanwhile is noticed.
        state, now = self._state(), self._clock.monotonic()
        kept = self._pages.get(key)
        if kept and kept.state == state and now - kept.made_at < self._seconds:
            return kept.page
        page = make()
        if len(page.items) <= _MOST_ITEMS:
            self._pages.put(key, _Kept(page, state, now))
        return page


@handles(ops.DescribeKey)
class DescribeKeyHandler(Handler[ops.DescribeKey, KeyInfo]):
    """Describe a key, after checking its stored form."""

    speed = Speed.POOLED

    shows_tampered = True

    def perform(self, context: RequestContext[ops.DescribeKey], /) -> Answer[KeyInfo]:
        """Check document, blobs and use counter, and show what can be believed."""
        inventory = self._services.inventory
        key_id = KeyId(context.operation.key_id)
        document, integrity = inventory.inspect(key_id, with_blobs=True)
        if document is None:
            return Answer(tampered_info(key_id, integrity))
        use, found = self._services.uses.info(document, document.current_version)
        return Answer(key_info(document, _worse(integrity, found), use=use))


@handles(ListKeys)
class ListKeysHandler(Handler[ops.ListKeys, ops.KeyPage]):
    """Show a page of keys."""

    def __init__(self, services: HandlerDependencies) -> None:
        super().__init__(services)
        self._listings = Listings(
            services.settings.list_cache_seconds, services.clock, self._state_of_keys
        )

    def speed_of(self, operation: ListKeys, /) -> Speed:
        """Return whether the index answers in one step, as for the first pages."""
        is_walk = bool(operation.search or operation.tags)
        last = operation.page * operation.per_page
        is_near = last <= _QUICK_ITEMS and not self._services.inventory.store.is_remote
        return Speed.QUICK if is_near and not is_walk else Speed.POOLED

    def weight(self, operation: ListKeys, /) -> int:
        """Return that of a page whose documents are read from the disk."""
        return Speed.POOLED

    def _state_of_keys(self) -> object:
        inventory = self._services.inventory
        return inventory.census.set_digest, inventory.tampered.changes

    def resolve(
        self, operation: ops.ListKeys, document: KeyDocument | None, /
    ) -> ops.ListKeys:
        """Turn the algorithm's name into its standard one."""
        if not operation.algorithm:
            return operation
        algorithm = parse_algorithm(operation.algorithm)
        return msgspec.structs.replace(operation, algorithm=algorithm.value)

    def prepare(self, context: RequestContext[ops.ListKeys], /) -> None:
        """Refuse a page number together with a cursor."""
        operation = context.operation
        if operation.cursor and operation.page != 1:
            raise InvalidInputError(
                "Pass either page or cursor, not both.", field="page"
            )

    def perform(self, context: RequestContext[ops.ListKeys], /) -> Answer[ops.KeyPage]:
        """Read the index, then check every document that is shown."""
        at = self._services.clock.now()
        scope = context.policy.visible(context.caller, at=at)
        is_shared = self._services.inventory.feed is not None
        if context.at_once and (is_shared or not scope.is_everything):
            raise NoRoomError  # Every key that the filter leaves must be looked at.
        make = partial(self._page, context.operation, scope, at_once=context.at_once)
        return Answer(
            self._listings.page(context.caller, context.operation, scope, make)
        )

    def _page(
        self, operation: ops.ListKeys, scope: KeyScope, *, at_once: bool
    ) -> ops.KeyPage:
        after = _read_cursor(operation.cursor) if operation.cursor else None
        page = self._services.inventory.store.find(
            IndexQuery(
                filter=KeyFilter(
                    algorithm=Algorithm(operation.algorithm)
                    if operation.algorithm
                    else None,
                    state=operation.state,
                    tags=operation.tags,
                    search=operation.search,
                ),
                limit=operation.per_page + 1,
                offset=0 if after else (operation.page - 1) * operation.per_page,
                after=after,
                scope=scope,
            )
        )
        shown = page.keys[: operation.per_page]
        more = len(page.keys) > len(shown)
        return ops.KeyPage(
            items=tuple(self._rows(shown, scope, at_once=at_once)),
            total=page.total,
            page=0 if after else operation.page,
            per_page=operation.per_page,
            next_cursor=_write_cursor(shown[-1]) if more else "",
        )

    def _rows(
        self, shown: Sequence[tuple[int, KeyId]], scope: KeyScope, *, at_once: bool
    ) -> Iterator[KeyInfo]:
        """Show what can be believed of keys, without those of which the index lied."""
        inventory, is_open = self._services.inventory, scope.is_everything
        integrity_of = inventory.tampered.integrity
        key_ids = [key_id for _, key_id in shown]
        documents = inventory.glance(key_ids, at_once=at_once)
        for key_id, known in zip(key_ids, documents, strict=True):
            if known is None:
                yield tampered_info(key_id, integrity_of(key_id))
            elif is_open or scope.shows(key_facts(known.document)):
                yield known.row(integrity_of(key_id))


@handles(ops.ListVersions)
class ListVersionsHandler(Handler[ops.ListVersions, ops.VersionList]):
    """Show the versions of a key."""

    speed = Speed.POOLED

    shows_tampered = True

    def perform(
        self, context: RequestContext[ops.ListVersions], /
    ) -> Answer[ops.VersionList]:
        """Check every blob and show every version that the document names."""
        key_id = KeyId(context.operation.key_id)
        inventory = self._services.inventory
        document, found = inventory.inspect(key_id)
        if document is None:
            # An empty list would say that it has no versions.
            inventory.tampered.check(key_id)
            raise tampering(
                key_id, ("The key's stored metadata failed its integrity check."), found
            )
        show = partial(self._show, document)
        items = tuple(inventory.side_by_side(show, document.versions))
        if any(item.integrity is not Integrity.OK for item in items):
            inventory.materials.check_blobs(document)
        return Answer(ops.VersionList(key_id=key_id, items=items))

    def _show(self, document: KeyDocument, version: VersionDocument) -> VersionInfo:
        materials = self._services.inventory.materials
        use, found = self._services.uses.info(document, version)
        integrity = _worse(materials.blob_integrity(document, version), found)
        return version_info(document, version, integrity, use)


@handles(ops.GetPublicKey)
class GetPublicKeyHandler(Handler[ops.GetPublicKey, ops.PublicKey]):
    """Export a public key."""

    def prepare(self, context: RequestContext[ops.GetPublicKey], /) -> None:
        """Refuse symmetric keys, and versions that are gone."""
        if not context.spec.is_asymmetric:
            raise UnsupportedOperationError(
                f"key_id: {context.spec.algorithm} keys have no public key.",
                field="key_id",
            )

    def perform(
        self, context: RequestContext[ops.GetPublicKey], /
    ) -> Answer[ops.PublicKey]:
        """Show it as DER, PEM, JWK and bare bytes."""
        key = context.key
        allowed = context.policy.allows_revoked("GetPublicKey")
        version = require_version(
            key, context.operation.version, "GetPublicKey", revoked_allowed=allowed
        )
        algorithm, der = Algorithm(key.algorithm), version.public_der
        return Answer(
            ops.PublicKey(
                key_id=key.key_id,
                version=version.version,
                algorithm=algorithm,
                der=der,
                pem=public_pem(der),
                jwk=json_web_key(key.key_id, version.version, algorithm, der),
                raw=raw_public_key(algorithm, der),
            ),
            version.version,
        )


def _worse(blobs: Integrity, counter: Integrity) -> Integrity:
    """Return what is said of both: the blobs first, without which nothing goes."""
    return counter if blobs is Integrity.OK else blobs


def _write_cursor(position: tuple[int, str]) -> str:
    text = f"{position[0]}:{position[1]}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[int, str]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
        number, _, key_id = text.partition(":")
        created_at = int(number[:20])
        if not is_key_id(key_id) or not abs(created_at) < 2**63:
            raise ValueError
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise InvalidInputError(
            "cursor must be the next_cursor value of an earlier page.", field="cursor"
        ) from None
    return created_at, key_id
