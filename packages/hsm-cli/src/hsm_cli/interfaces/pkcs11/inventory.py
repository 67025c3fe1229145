# SPDX-License-Identifier: MIT
"""Objects of an application: found in the HSM, or made by the program."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.errors import CryptokiError
from hsm_cli.interfaces.pkcs11.keys import Keys
from hsm_cli.interfaces.pkcs11.objects import KeyObject, Object, ObjectIdentity
from hsm_cli.interfaces.pkcs11.wire import Template
from hsm_core.errors import HSMError
from hsm_core.operations import DestroyKey

if TYPE_CHECKING:
    from hsm_cli.interfaces.pkcs11.application import Application
    from hsm_cli.interfaces.pkcs11.sessions import Session
    from hsm_core.model import KeyInfo

MOST_HANDLES: Final = 65_536
"""Token objects that an application has found and not forgotten."""

MOST_SESSION_OBJECTS: Final = 1024
"""Session objects of an application."""

MOST_SESSION_BYTES: Final = 2 * 1024 * 1024
"""Length of the values of all session objects of an application."""

_MOST_CACHED: Final = 1024
"""Token objects that are kept; others are read again when they are used."""


class Inventory:
    """
    Objects of one application, with their handles.

    A handle names the same version of a key for as long as the application runs. Keys
    are read from the HSM at each search.

    Args:
        application: The application.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self._keys = Keys(application)
        self._cached: OrderedDict[int, Object] = OrderedDict()
        self._of_sessions: dict[int, Object] = {}
        self._handles: dict[ObjectIdentity, int] = {}
        self._identities: OrderedDict[int, ObjectIdentity] = OrderedDict()
        self._hidden: set[int] = set()
        self._next = 1

    def find_object(
        self, handle: int, invalid: int = ck.CKR_OBJECT_HANDLE_INVALID
    ) -> Object:
        """
        Return an object.

        Args:
            handle: Its handle.

            invalid: CK_RV for a handle that names none.

        Raises:
            CryptokiError: There is none that the program can see.
            HSMError: It can't be read.
        """
        found = self._of_sessions.get(handle) or self._cached.get(handle)
        if found is None and handle in self._identities:
            found = self._read_again(handle)
        elif isinstance(found, KeyObject) and found.is_suspended:
            self._read_state(found)
        if found is None or not self._is_visible(found):
            raise CryptokiError(invalid)
        return found

    def search(self, template: Template) -> list[int]:
        """
        Return the handles of all objects that match a template.

        Raises:
            HSMError: The caller may not list keys, or the HSM is not available.
            CryptokiError: There are too many keys.
        """
        found = [
            handle
            for handle, one in self._of_sessions.items()
            if self._is_visible(one) and one.matches(template)
        ]
        if self._application.is_locked or template.get(ck.CKA_TOKEN) is False:
            return found
        for info in self._keys.matching(template):
            for one in self._keys.objects_of(info):
                if one.matches(template):
                    self._keep(one)
                    if self._is_visible(one):
                        found.append(one.handle)
            if len(found) > MOST_HANDLES:
                raise CryptokiError(
                    ck.CKR_DEVICE_MEMORY,
                    f"A search finds at most {MOST_HANDLES} objects. Search by label "
                    "or ID.",
                )
        return found

    def add_key(
        self, info: KeyInfo, session: Session, *, is_token: bool
    ) -> tuple[KeyObject, ...]:
        """
        Return the objects of a key that was made just now: one, or private and public.

        Args:
            info: Metadata of the key.

            session: Session of the program.

            is_token: Whether the key outlives the session.

        Raises:
            CryptokiError: The application has too many objects. A session key is
                destroyed.
        """
        found = tuple(
            one
            for one in self._keys.objects_of(info, is_token=is_token)
            if isinstance(one, KeyObject)
        )
        try:
            for one in found:
                if is_token:
                    self._keep(one)
                else:
                    self.add_session_object(one, session)
        except CryptokiError:
            if not is_token:
                self._forget(info.key_id)
                self._destroy_session_key(found[0])
            raise
        return found

    def add_session_object(self, one: Object, session: Session) -> int:
        """
        Keep an object until the session ends.

        Raises:
            CryptokiError: The application has too many, or too large ones.
        """
        if len(self._of_sessions) >= MOST_SESSION_OBJECTS:
            raise CryptokiError(ck.CKR_DEVICE_MEMORY)
        self.require_room(one.size)
        one.handle = self._number()
        one.session = session.handle
        self._of_sessions[one.handle] = one
        return one.handle

    def require_room(self, length: int) -> None:
        """
        Check that session objects may have more bytes.

        Raises:
            CryptokiError: They would be too large together.
        """
        held = sum(one.size for one in self._of_sessions.values())
        if held + length > MOST_SESSION_BYTES:
            raise CryptokiError(ck.CKR_DEVICE_MEMORY)

    def copy_key(self, key: KeyObject, own: Template, session: Session) -> int:
        """Return another handle of a key, which ends with the session."""
        return self.add_session_object(key.copied(own), session)

    def attach(self, template: Template) -> int:
        """
        Keep a certificate with the key that it belongs to, and return its handle.

        Raises:
            HSMError: The caller may not change the key.
            CryptokiError: It belongs to no key.
        """
        # It loads all of X.509.
        from hsm_cli.interfaces.pkcs11.certificates import attach

        one = attach(self._keys, self._application.hsm, template)
        self.update(one.info)
        self._keep(one)
        return one.handle

    def destroy(self, one: Object) -> None:
        """
        Destroy an object.

        The object of a public key, and a copy of a key, are only forgotten.

        Raises:
            HSMError: The key may not be destroyed.
            CryptokiError: It is an older version, which can't be destroyed alone.
        """
        if isinstance(one, KeyObject) and one.is_key_itself:
            if not one.is_current:
                raise CryptokiError(ck.CKR_ACTION_PROHIBITED)
            self._application.hsm.execute(DestroyKey(key_id=one.key_id))
            self._forget(one.key_id)
        elif one.session:
            del self._of_sessions[one.handle]
        elif one.object_class == ck.CKO_CERTIFICATE:
            self._detach(one)
        else:
            self._hidden.add(one.handle)

    def end_session(self, handle: int) -> None:
        """Forget the objects of a session, and destroy the keys that end with it."""
        self._end([o for o in self._of_sessions.values() if o.session == handle])

    def end_private(self) -> None:
        """Forget private session objects, as the user logs out."""
        self._end([one for one in self._of_sessions.values() if one.is_private])

    def _end(self, objects: list[Object]) -> None:
        for one in objects:
            self._of_sessions.pop(one.handle, None)
            if isinstance(one, KeyObject) and one.is_key_itself:
                self._destroy_session_key(one)

    def update(self, info: KeyInfo) -> None:
        """Show the new metadata of a key in its objects."""
        for objects in (self._cached, self._of_sessions):
            for handle, one in list(objects.items()):
                if isinstance(one, KeyObject):
                    if one.key_id == info.key_id:
                        one.info = info
                elif one.object_class == ck.CKO_CERTIFICATE:
                    del objects[handle]  # read again, with the new label and chain

    def _detach(self, one: Object) -> None:
        from hsm_cli.interfaces.pkcs11.certificates import CertificateObject, detach

        assert isinstance(one, CertificateObject)  # noqa: S101 (for the type checker)
        self._cached.pop(one.handle, None)
        self.update(detach(self._application.hsm, one))

    def _destroy_session_key(self, key: KeyObject) -> None:
        try:
            self._application.hsm.execute(DestroyKey(key_id=key.key_id))
        except HSMError as error:
            self._application.access.log(
                f"session key {key.key_id} could not be destroyed ({error.code}). Run: "
                f"hsm-cli destroy {key.key_id}"
            )

    def _forget(self, key_id: str) -> None:
        for objects in (self._cached, self._of_sessions):
            for handle, one in list(objects.items()):
                if isinstance(one, KeyObject) and one.key_id == key_id:
                    del objects[handle]
        for handle, identity in list(self._identities.items()):
            if identity.key_id == key_id:
                del self._identities[handle], self._handles[identity]
                self._cached.pop(handle, None)
                self._hidden.discard(handle)

    def _is_visible(self, one: Object) -> bool:
        if one.handle in self._hidden:
            return False
        return not one.is_private or self._application.sees_private

    def _number(self) -> int:
        number, self._next = self._next, self._next + 1
        return number

    def _keep(self, one: Object) -> None:
        """Give a token object its handle, or the one it has had before."""
        handle = self._handles.get(one.identity)
        if handle is None:
            if len(self._handles) >= MOST_HANDLES:
                self._forget_oldest()
            handle = self._handles[one.identity] = self._number()
            self._identities[handle] = one.identity
        self._identities.move_to_end(handle)
        one.handle = handle
        self._cached.pop(handle, None)
        if isinstance(one, KeyObject) and one.is_suspended:
            return  # read again when it is used, as it may be resumed by then
        self._cached[handle] = one
        if len(self._cached) > _MOST_CACHED:
            self._cached.popitem(last=False)

    def _forget_oldest(self) -> None:
        """
        Forget the object that was found or read first, to make room for another.

        Raises:
            CryptokiError: The program has destroyed as many objects of public keys,
                which are only hidden.
        """
        for handle, identity in self._identities.items():
            if handle not in self._hidden:
                del self._identities[handle], self._handles[identity]
                self._cached.pop(handle, None)
                return
        raise CryptokiError(ck.CKR_DEVICE_MEMORY)

    def _read_again(self, handle: int) -> Object | None:
        one = self._read(self._identities[handle])
        if one is not None:
            self._keep(one)
        return one

    def _read_state(self, copy: KeyObject) -> None:
        """Read the state of a copy's version, which may be resumed by now."""
        if not self._application.is_locked:
            one = self._read(copy.identity)
            if isinstance(one, KeyObject):
                copy.follow(one)

    def _read(self, identity: ObjectIdentity) -> Object | None:
        for info in self._keys.named(identity.key_id):
            for one in self._keys.objects_of(info):
                if one.identity == identity:
                    return one
        return None
