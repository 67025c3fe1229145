# SPDX-License-Identifier: MIT
"""Calls about objects: find them, read and change attributes, create, copy, destroy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.creation import (
    copyable,
    require_short,
    require_unchanged,
    session_object,
    update_of,
)
from hsm_cli.interfaces.pkcs11.errors import CryptokiError
from hsm_cli.interfaces.pkcs11.importing import import_key
from hsm_cli.interfaces.pkcs11.objects import KeyObject, Object, size_of
from hsm_cli.interfaces.pkcs11.public_keys import public_key_object
from hsm_cli.interfaces.pkcs11.sessions import OperationKind
from hsm_cli.interfaces.pkcs11.wire import Room, Template, Value, length_of
from hsm_core.errors import NameTakenError
from hsm_core.operations import DescribeKey, UpdateKey

if TYPE_CHECKING:
    from hsm_cli.interfaces.pkcs11.sessions import Session

_HANDLE_BYTES: Final = 8
_TEMPLATE_BYTES: Final = 24  # sizeof (CK_ATTRIBUTE)
_MOST_READ_BYTES: Final = 4 * 1024 * 1024
"""Length of the values that a call reads; an object has half of it at most."""


def find_objects_init(session: Session, template: Template) -> None:
    """Begin a search; see C_FindObjectsInit."""
    session.begin(OperationKind.FIND, [])
    try:
        handles = session.application.inventory.search(template)
        session.hold(OperationKind.FIND, _HANDLE_BYTES * len(handles))
    except BaseException:
        session.end(OperationKind.FIND)
        raise
    session.active(OperationKind.FIND).extend(reversed(handles))


def find_objects(session: Session, capacity: int | None) -> Sequence[int]:
    """Return the next objects of a search, at most *capacity*."""
    left = session.active(OperationKind.FIND)
    return [left.pop() for _ in range(min(len(left), capacity or 0))]


def find_objects_final(session: Session) -> None:
    """End a search."""
    session.active(OperationKind.FIND)
    session.end(OperationKind.FIND)


def get_attribute_value(
    session: Session, handle: int, room: Room
) -> tuple[list[tuple[int, Value | None]], int]:
    """
    Return attributes, with CKR_OK or the reason why some have no value.

    See C_GetAttributeValue.

    Raises:
        CryptokiError: The values are too long together.
    """
    one = session.application.inventory.find_object(handle)
    found: list[tuple[int, Value | None]] = []
    rv, left = ck.CKR_OK, _MOST_READ_BYTES
    for kind, capacity in room:
        try:
            value = one.get(kind)
            length = length_of(kind, value)
            _require_room(length, capacity)
        except CryptokiError as error:
            found.append((kind, None))
            rv = error.rv
        else:
            found.append((kind, value))
            left -= length
            if left < 0:  # a value travels also where only its length is asked for
                raise CryptokiError(ck.CKR_DEVICE_MEMORY)
    return found, rv


def _require_room(length: int, capacity: int | Room) -> None:
    most = capacity if isinstance(capacity, int) else _TEMPLATE_BYTES * len(capacity)
    if most and most < length:
        raise CryptokiError(ck.CKR_BUFFER_TOO_SMALL)


def set_attribute_value(session: Session, handle: int, template: Template) -> None:
    """Change the label or CKA_ID of a key; see C_SetAttributeValue."""
    one = session.application.inventory.find_object(handle)
    inventory = session.application.inventory
    if not isinstance(one, KeyObject):
        require_short(template)
        inventory.require_room(size_of(template))
        one.change(template)
        return
    if one.is_copy:
        _, own = copyable(one, template)
        inventory.require_room(size_of(own))
        one.rename(own)
        return
    _require_change(session, one)
    # Its tags may have changed since it was found.
    inventory.update(session.hsm.execute(DescribeKey(key_id=one.key_id)))
    require_unchanged(one, template)
    try:
        _update(session, one, update_of(one, template))
    except NameTakenError:
        _update(session, one, update_of(one, template, is_name_free=False))


def _update(session: Session, one: KeyObject, operation: UpdateKey | None) -> None:
    if operation is not None:
        generation = one.info.generation
        changed = session.hsm.execute(operation, expected_generation=generation)
        session.application.inventory.update(changed)


def _require_change(session: Session, one: Object) -> None:
    """
    Check that the program may change or destroy an object.

    Public objects of the token belong to keys: they take the user's credential.

    Raises:
        CryptokiError: The session is read-only, or the user is not logged in.
    """
    if one.is_token:
        session.require_user()
        session.require_writable()


def create_object(session: Session, template: Template) -> int:
    """
    Create a session object, import a key, or keep a certificate with a key.

    Session objects are data and public keys.

    See C_CreateObject.
    """
    if template.get(ck.CKA_CLASS) in {ck.CKO_SECRET_KEY, ck.CKO_PRIVATE_KEY}:
        return import_key(session, template)
    is_certificate = template.get(ck.CKA_CLASS) == ck.CKO_CERTIFICATE
    if is_certificate and template.get(ck.CKA_TOKEN) is True:
        session.require_user()
        session.require_writable()
        return session.application.inventory.attach(template)
    made = (
        public_key_object(template)
        if template.get(ck.CKA_CLASS) == ck.CKO_PUBLIC_KEY
        else session_object(template)
    )
    if made.is_private:
        session.require_user()
    return session.application.inventory.add_session_object(made, session)


def copy_object(session: Session, handle: int, template: Template) -> int:
    """Return another handle of an object, for the session; see C_CopyObject."""
    one = session.application.inventory.find_object(handle)
    if template.get(ck.CKA_TOKEN) is True:
        session.require_writable()
    key, own = copyable(one, template)
    return session.application.inventory.copy_key(key, own, session)


def destroy_object(session: Session, handle: int) -> None:
    """Destroy an object; see C_DestroyObject."""
    one = session.application.inventory.find_object(handle)
    _require_change(session, one)
    session.application.inventory.destroy(one)


def get_object_size(session: Session, handle: int) -> int:
    """Return that the size is not known."""
    session.application.inventory.find_object(handle)
    return ck.CK_UNAVAILABLE_INFORMATION


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "C_FindObjectsInit": find_objects_init,
    "C_FindObjects": find_objects,
    "C_FindObjectsFinal": find_objects_final,
    "C_GetAttributeValue": get_attribute_value,
    "C_SetAttributeValue": set_attribute_value,
    "C_CreateObject": create_object,
    "C_CopyObject": copy_object,
    "C_DestroyObject": destroy_object,
    "C_GetObjectSize": get_object_size,
}
"""Functions by name."""
