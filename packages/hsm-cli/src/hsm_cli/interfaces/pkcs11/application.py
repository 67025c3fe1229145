# SPDX-License-Identifier: MIT
"""Library and applications: the state of one program that uses PKCS#11."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING

from hsm_cli.interfaces.access import Access, LocalProgram, WrongPinError
from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.errors import CryptokiError
from hsm_cli.interfaces.pkcs11.importing import Transport
from hsm_cli.interfaces.pkcs11.inventory import Inventory
from hsm_cli.interfaces.pkcs11.memory import PartMemory
from hsm_cli.interfaces.pkcs11.sessions import Session
from hsm_cli.interfaces.pkcs11.token import MOST_SESSIONS
from hsm_core.errors import HSMError

if TYPE_CHECKING:
    from hsm_core.protocols import HSM


class Library:
    """
    The library as one program sees it: slots with a token each.

    Args:
        accesses: HSMs of the slots, in order.

        program: The program.

    Attributes:
        slots: What the program does with each token.
        is_initialized: Whether C_Initialize was called.
    """

    def __init__(self, accesses: Sequence[Access], program: LocalProgram) -> None:
        numbers, memory = count(1), PartMemory()
        self.slots = tuple(
            Application(slot, access, program, numbers=numbers, memory=memory)
            for slot, access in enumerate(accesses)
        )
        self.is_initialized = False

    def require_initialized(self) -> None:
        """
        Check that the program has begun.

        Raises:
            CryptokiError: It has not.
        """
        if not self.is_initialized:
            raise CryptokiError(ck.CKR_CRYPTOKI_NOT_INITIALIZED)

    def application(self, slot: int) -> Application:
        """
        Return what the program does with the token of a slot.

        Raises:
            CryptokiError: There is no such slot.
        """
        self.require_initialized()
        if slot >= len(self.slots):
            raise CryptokiError(ck.CKR_SLOT_ID_INVALID)
        return self.slots[slot]

    def session(self, handle: int) -> Session:
        """
        Return a session.

        Raises:
            CryptokiError: There is none with this handle.
        """
        for application in self.slots:
            found = application.sessions.get(handle)
            if found is not None:
                return found
        self.require_initialized()
        raise CryptokiError(ck.CKR_SESSION_HANDLE_INVALID)

    def close(self) -> None:
        """End everything, as the program or its connection has ended."""
        for application in self.slots:
            application.close()
        self.is_initialized = False


class Application:
    """
    Sessions, login and objects of one program, for one token.

    Args:
        slot: Number of the slot of the token.

        access: HSM of the token.

        program: The program.

        numbers: Handles of new sessions.

        memory: What the program holds of data in parts.

    Attributes:
        inventory: Its objects.
        transport: Key of the HSM for which its keys are wrapped.
        is_logged_in: Whether the user is logged in, in all sessions.
    """

    def __init__(
        self,
        slot: int,
        access: Access,
        program: LocalProgram,
        *,
        numbers: Iterator[int],
        memory: PartMemory,
    ) -> None:
        self.slot = slot
        self.access = access
        self.memory = memory
        self.inventory = Inventory(self)
        self.transport = Transport(self)
        self.is_logged_in = False
        self.sessions: dict[int, Session] = {}
        self._program = program
        self._numbers = numbers
        self._hsm: HSM | None = None

    @property
    def hsm(self) -> HSM:
        """
        HSM for the program.

        Raises:
            HSMError: It can't be opened, or only after a login.
        """
        if self._hsm is None:
            if self.is_locked:
                raise WrongPinError("Log in with the PIN first.")
            self._hsm = self.access.hsm(self._program)
        return self._hsm

    @property
    def is_locked(self) -> bool:
        """
        Whether the HSM can't be read until the user logs in.

        The login of another program, which opens the credential, is not this one's.
        """
        return self.access.is_opened_by_pin and not self.is_logged_in

    @property
    def sees_private(self) -> bool:
        """Whether private objects are visible."""
        return self.is_logged_in or not self.access.takes_pin

    def open_session(self, *, is_writable: bool) -> Session:
        """
        Open a session.

        Raises:
            CryptokiError: Too many are open.
        """
        if len(self.sessions) >= MOST_SESSIONS:
            raise CryptokiError(ck.CKR_SESSION_COUNT)
        session = Session(next(self._numbers), self, is_writable=is_writable)
        self.sessions[session.handle] = session
        return session

    def close_session(self, handle: int) -> None:
        """Close a session; the last one logs the user out."""
        self.sessions.pop(handle).end_all()
        self.inventory.end_session(handle)
        if not self.sessions and self.is_logged_in:
            self.log_out()

    def log_in(self, pin: bytes) -> None:
        """
        Log the user in.

        Raises:
            HSMError: The PIN is wrong, or the HSM can't be opened.
        """
        self.access.log_in(pin)
        self.is_logged_in = True

    def log_out(self) -> None:
        """Log the user out, and end all operations and private session objects."""
        for session in self.sessions.values():
            session.end_all()
        self.inventory.end_private()
        self.transport.end()
        self.is_logged_in = False
        self._hsm = None
        self.access.log_out()

    def close(self) -> None:
        """End all sessions."""
        for handle in list(self.sessions):
            with suppress(HSMError):
                self.close_session(handle)
        self.transport.end()

    def note(self, text: str) -> None:
        """Print a note for the user."""
        if text:
            self.access.note(f"pkcs11: {self._program}: {text}")
