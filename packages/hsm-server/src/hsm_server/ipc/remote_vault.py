# SPDX-License-Identifier: MIT
"""`VaultAccess` for a front end: the vault is another process, which may end."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, TypeVar

import msgspec

from hsm_core import wire
from hsm_core.errors import (
    AuthenticationError,
    InvalidInputError,
    UnavailableError,
)
from hsm_core.operations import (
    AuditPage,
    HSMStatus,
    ListAuditEvents,
    Operation,
    result_type,
)
from hsm_server.config.settings import MAX_TOKEN_BYTES
from hsm_server.ipc.frames import (
    MOST_APPROVAL_ID,
    MOST_REFUSED_KEY,
    Purpose,
    Request,
)
from hsm_server.ipc.link import VaultLink
from hsm_server.vault.access import Known, SignedIn, Told, Visitor, Who, tell_nobody

R = TypeVar("R")

_GREETED_SECONDS: Final = 60.0
_MOST_GREETED: Final = 4096
_MOST_KEY_CHARACTERS: Final = 1024
_MOST_SESSION_CHARACTERS: Final = 64


class RemoteVault:
    """
    Access to the vault over the last attached connection.

    Args:
        on_trouble: Called, for the log, when the vault is lost.
    """

    def __init__(self, on_trouble: Callable[[str], None]) -> None:
        self._on_trouble = on_trouble
        self._link: VaultLink | None = None
        self._greeted: OrderedDict[bytes, float] = OrderedDict()

    def attach(self, end: socket.socket) -> None:
        """Use a new connection; what waits for the former one is given up."""
        former, self._link = self._link, None
        if former is not None:
            former.close()
        self._link = VaultLink(end, self._on_trouble)

    @property
    def is_linked(self) -> bool:
        """Whether there is a connection, be it one to a vault that is busy."""
        return self._link is not None and self._link.is_open

    def close(self) -> None:
        """Close the connection."""
        if self._link is not None:
            self._link.close()

    async def greet(self, visitor: Visitor, /, *, known: Known) -> None:
        """See `VaultAccess.greet`."""
        visitor = _fitting(visitor)
        if not self._was_greeted(visitor):
            request = Request(0, Purpose.GREET, visitor)
            await self._ask(request, known)

    async def execute(
        self,
        visitor: Visitor,
        operation: Operation[R],
        /,
        *,
        idempotency_key: str | None,
        known: Known,
        approval_id: str = "",
        expected_generation: int = 0,
        told: Told = tell_nobody,
    ) -> R:
        """See `VaultAccess.execute`."""
        visitor = _fitting(visitor)
        try:
            data = wire.encode_packed(operation)
        except UnicodeEncodeError:
            # An unauthenticated client gets no details of the fault.
            await self.greet(visitor, known=known)
            name = type(operation).__name__
            raise InvalidInputError(f"{name}: a field cannot be encoded.") from None
        key = None
        if idempotency_key is not None:
            key = _sendable(idempotency_key, _MOST_KEY_CHARACTERS)
        request = Request(
            0,
            Purpose.EXECUTE,
            visitor,
            data,
            idempotency_key=key,
            approval_id=_sendable(approval_id, MOST_APPROVAL_ID),
            # What is wrong is still wrong, and no frame that ends the connection.
            expected_generation=max(-1, min(expected_generation, 2**53)),
        )
        answer = await self._ask(request, known, operation, told)
        result: R = wire.decode_packed(answer, result_type(type(operation)))
        return result

    async def refuse(
        self, visitor: Visitor, code: str, /, *, kind: str, key_id: str, known: Known
    ) -> None:
        """See `VaultAccess.refuse`."""
        request = Request(
            0,
            Purpose.REFUSE,
            _fitting(visitor),
            code=code,
            kind=kind,
            key_id=_sendable(key_id, MOST_REFUSED_KEY),
        )
        await self._ask(request, known)

    async def follow(
        self, visitor: Visitor, operation: ListAuditEvents, /, *, known: Known
    ) -> AsyncGenerator[AuditPage, None]:
        """See `VaultAccess.follow`."""
        data = wire.encode_packed(operation)
        request = Request(0, Purpose.FOLLOW, _fitting(visitor), data)
        events = self._open_link().events(request, operation)
        async with contextlib.aclosing(events):
            async for principal, page in events:
                known(principal)
                yield wire.decode_packed(page, AuditPage)

    async def who(self, visitor: Visitor, /, *, known: Known) -> Who:
        """See `VaultAccess.who`."""
        request = Request(0, Purpose.WHO, _fitting(visitor))
        return wire.decode_packed(await self._ask(request, known), Who)

    async def sign_in(self, visitor: Visitor, /, *, known: Known) -> SignedIn:
        """See `VaultAccess.sign_in`."""
        request = Request(0, Purpose.SIGN_IN, _fitting(visitor))
        return wire.decode_packed(await self._ask(request, known), SignedIn)

    async def sign_out(self, visitor: Visitor, /, *, known: Known) -> None:
        """See `VaultAccess.sign_out`."""
        await self._ask(Request(0, Purpose.SIGN_OUT, _fitting(visitor)), known)

    async def token_keys(self) -> bytes:
        """See `VaultAccess.token_keys`."""
        return await self._ask(Request(0, Purpose.PUBLIC_KEYS, Visitor()), _nobody)

    async def status(self) -> HSMStatus:
        """See `VaultAccess.status`."""
        answer = await self._ask(Request(0, Purpose.STATUS, Visitor()), _nobody)
        return wire.decode_packed(answer, HSMStatus)

    async def _ask(
        self,
        request: Request,
        known: Known,
        operation: Operation[Any] | None = None,
        told: Told = tell_nobody,
    ) -> bytes:
        answer = await self._open_link().ask(request, operation)
        if answer.principal:
            known(answer.principal)
        if answer.quota is not None:
            told(answer.quota)
        if answer.error is None:
            self._note_greeting(request.visitor)
            return answer.result
        error = wire.error_from_record(answer.error)
        if isinstance(error, AuthenticationError):
            self._greeted.pop(_digest(request.visitor), None)
        raise error

    def _open_link(self) -> VaultLink:
        if self._link is None or not self._link.is_open:
            raise UnavailableError(
                "The vault process does not respond and is being restarted."
            )
        return self._link

    def _was_greeted(self, visitor: Visitor) -> bool:
        until = self._greeted.get(_digest(visitor), 0.0)
        return asyncio.get_running_loop().time() < until

    def _note_greeting(self, visitor: Visitor) -> None:
        if not (visitor.credential or visitor.certificate):
            return
        digest = _digest(visitor)
        now = asyncio.get_running_loop().time()
        self._greeted[digest] = now + _GREETED_SECONDS
        self._greeted.move_to_end(digest)
        if len(self._greeted) > _MOST_GREETED:
            self._greeted.popitem(last=False)


def _digest(visitor: Visitor) -> bytes:
    parts = (visitor.credential.encode(), visitor.certificate, visitor.session.encode())
    return b"".join(hashlib.sha256(part).digest() for part in parts)


def _fitting(visitor: Visitor) -> Visitor:
    """
    Return a visitor whom a frame can hold.

    Return a visitor that fits into a frame. A token that is too long is invalid anyway.
    """
    credential, session = visitor.credential, visitor.session
    if len(credential) <= MAX_TOKEN_BYTES and not session:
        return visitor
    return msgspec.structs.replace(
        visitor,
        credential=credential[: MAX_TOKEN_BYTES + 1],
        session=_sendable(session, _MOST_SESSION_CHARACTERS),
    )


def _sendable(text: str, longest: int) -> str:
    """Return text that a frame can hold, and that is still wrong if it was wrong."""
    whole = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return whole[:longest]


def _nobody(principal: str) -> None:
    """Ignore the event."""
