# SPDX-License-Identifier: MIT
"""Calls about the library, slots, the token, sessions and login."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from hsm_cli.interfaces.access import PinLockedError, WrongPinError
from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11 import token
from hsm_cli.interfaces.pkcs11.calls import HANDSHAKE
from hsm_cli.interfaces.pkcs11.errors import CryptokiError, room
from hsm_cli.interfaces.pkcs11.mechanisms import mechanism_info, mechanism_types

if TYPE_CHECKING:
    from hsm_cli.interfaces.pkcs11.application import Application, Library
    from hsm_cli.interfaces.pkcs11.sessions import Session

_DONT_BLOCK: Final = 1


def initialize(
    library: Library, handshake: bytes, has_reserved: int, reserved: bytes
) -> None:
    """Begin; see C_Initialize."""
    if not hmac.compare_digest(handshake, HANDSHAKE):
        raise CryptokiError(ck.CKR_GENERAL_ERROR)
    if library.is_initialized:
        raise CryptokiError(ck.CKR_CRYPTOKI_ALREADY_INITIALIZED)
    library.is_initialized = True


def finalize(library: Library) -> None:
    """End; see C_Finalize."""
    library.require_initialized()
    library.close()


def get_info(library: Library) -> tuple[Any, ...]:
    """Return CK_INFO."""
    library.require_initialized()
    return token.library_info()


def get_slot_list(
    library: Library, has_token: int, capacity: int | None
) -> Sequence[int]:
    """Return the slots; each has a token."""
    library.require_initialized()
    return _listed(range(len(library.slots)), capacity)


def get_slot_info(library: Library, slot: int) -> tuple[Any, ...]:
    """Return CK_SLOT_INFO."""
    return token.slot_info(library.application(slot).access.label)


def get_token_info(library: Library, slot: int) -> tuple[Any, ...]:
    """Return CK_TOKEN_INFO."""
    application = library.application(slot)
    sessions = application.sessions.values()
    writable = sum(session.is_writable for session in sessions)
    return token.token_info(application.access, len(sessions), writable)


def get_mechanism_list(
    library: Library, slot: int, capacity: int | None
) -> Sequence[int]:
    """Return the mechanisms of the token."""
    access = library.application(slot).access
    found = mechanism_types(is_embedded=access.is_embedded)
    return _listed(found, capacity)


def get_mechanism_info(library: Library, slot: int, kind: int) -> tuple[int, int, int]:
    """Return CK_MECHANISM_INFO."""
    access = library.application(slot).access
    return mechanism_info(kind, is_embedded=access.is_embedded)


def open_session(library: Library, slot: int, flags: int) -> int:
    """Open a session; see C_OpenSession."""
    application = library.application(slot)
    if not flags & ck.CKF_SERIAL_SESSION:
        raise CryptokiError(ck.CKR_SESSION_PARALLEL_NOT_SUPPORTED)
    return application.open_session(is_writable=bool(flags & ck.CKF_RW_SESSION)).handle


def close_session(session: Session) -> None:
    """Close a session."""
    session.application.close_session(session.handle)


def close_all_sessions(library: Library, slot: int) -> None:
    """Close all sessions with a token."""
    application = library.application(slot)
    for handle in list(application.sessions):
        application.close_session(handle)


def get_session_info(session: Session) -> tuple[int, int, int, int]:
    """Return CK_SESSION_INFO."""
    flags = ck.CKF_SERIAL_SESSION
    if session.is_writable:
        flags |= ck.CKF_RW_SESSION
    states = {
        (False, False): ck.CKS_RO_PUBLIC_SESSION,
        (False, True): ck.CKS_RO_USER_FUNCTIONS,
        (True, False): ck.CKS_RW_PUBLIC_SESSION,
        (True, True): ck.CKS_RW_USER_FUNCTIONS,
    }
    state = states[session.is_writable, session.application.is_logged_in]
    return session.application.slot, state, flags, 0


def log_in(session: Session, user: int, pin: bytes) -> None:
    """
    Log the user in, or let an operation go on whose key needs a login of its own.

    There is no security officer: the HSM's administrators do that work.
    """
    application = session.application
    if user not in {ck.CKU_USER, ck.CKU_CONTEXT_SPECIFIC}:
        raise CryptokiError(ck.CKR_USER_TYPE_INVALID)
    try:
        if user == ck.CKU_USER:
            _log_in(application, pin)
        else:
            _confirm(session, pin)
    except PinLockedError:
        raise CryptokiError(ck.CKR_PIN_LOCKED) from None
    except WrongPinError:
        raise CryptokiError(ck.CKR_PIN_INCORRECT) from None


def _log_in(application: Application, pin: bytes) -> None:
    if application.is_logged_in:
        raise CryptokiError(ck.CKR_USER_ALREADY_LOGGED_IN)
    application.log_in(pin)


def _confirm(session: Session, pin: bytes) -> None:
    session.require_user()
    session.require_unconfirmed()
    session.application.access.log_in(pin)
    session.application.access.log_out()
    session.confirm()


def log_in_user(session: Session, user: int, pin: bytes, name: bytes) -> None:
    """Log the user in by an empty name; see C_LoginUser. The token has one user."""
    if name:
        raise CryptokiError(ck.CKR_USER_TYPE_INVALID)
    log_in(session, user, pin)


def log_out(session: Session) -> None:
    """Log the user out of all sessions."""
    if not session.application.is_logged_in:
        raise CryptokiError(ck.CKR_USER_NOT_LOGGED_IN)
    session.application.log_out()


def cancel(session: Session, flags: int) -> None:
    """End operations; see C_SessionCancel."""
    session.cancel(flags)


def wait_for_slot_event(library: Library, flags: int) -> int:
    """Report that nothing has happened: slots never change."""
    library.require_initialized()
    if flags & _DONT_BLOCK:
        raise CryptokiError(ck.CKR_NO_EVENT)
    raise CryptokiError(ck.CKR_FUNCTION_NOT_SUPPORTED)


def _listed(items: Sequence[int], capacity: int | None) -> Sequence[int]:
    room(capacity, len(items))
    return items


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "C_Initialize": initialize,
    "C_Finalize": finalize,
    "C_GetInfo": get_info,
    "C_GetSlotList": get_slot_list,
    "C_GetSlotInfo": get_slot_info,
    "C_GetTokenInfo": get_token_info,
    "C_GetMechanismList": get_mechanism_list,
    "C_GetMechanismInfo": get_mechanism_info,
    "C_OpenSession": open_session,
    "C_CloseSession": close_session,
    "C_CloseAllSessions": close_all_sessions,
    "C_GetSessionInfo": get_session_info,
    "C_Login": log_in,
    "C_LoginUser": log_in_user,
    "C_Logout": log_out,
    "C_SessionCancel": cancel,
    "C_WaitForSlotEvent": wait_for_slot_event,
}
"""Functions by name."""
