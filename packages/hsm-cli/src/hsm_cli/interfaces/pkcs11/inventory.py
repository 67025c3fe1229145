# SPDX-License-Identifier: MIT
"""Objects of an application: found in the HSM, or made by the program."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.errors import CryptokiError
from hsm_cli.interfaces.pkcs11.names import candidates, label_candidates
from hsm_cli.interfaces.pkcs11.objects import KEY_TYPES, SESSION_KEY, KeyObject, Object
from hsm_cli.interfaces.pkcs11.wire import Template
from hsm_core.algorithms import spec
from hsm_core.errors import AccessDeniedError, HSMError, KeyNotFoundError
from hsm_core.model import KeyInfo, KeyState
from hsm_core.operations import (
    DescribeKey,
    DestroyKey,
    GetPublicKey,
    ListKeys,
    ListVersions,
    PublicKey,
)

if TYPE_CHECKING:
    from hsm_cli.interfaces.pkcs11.application import Application
    from hsm_cli.interfaces.pkcs11.sessions import Session

MOST_KEYS: Final = 100_000
"""Keys that one search goes through."""

MOST_SESSION_OBJECTS: Final = 1024
"""Session objects of an application."""

_PAGE: Final = 1000
_SHOWN: Final = frozenset({KeyState.ACTIVE, KeyState.RETIRED, KeyState.SUSPENDED})
_KEY_CLASSES: Final = frozenset(
    {ck.CKO_PRIVATE_KEY, ck.CKO_PUBLIC_KEY, ck.CKO_SECRET_KEY}
)


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
        self._objects: dict[int, Object] = {}
        self._handles: dict[bytes, int] = {}
        self._public_keys: dict[tuple[str, int], PublicKey] = {}
        self._hidden: set[int] = set()
        self._next = 1

    def find_object(self, handle: int) -> Object:
        """
        Return an object.

        Raises:
            CryptokiError: There is none that the program can see.
        """
        found = self._objects.get(handle)
        if found is None or (found.is_private and not self._application.sees_private):
            raise CryptokiError(ck.CKR_OBJECT_HANDLE_INVALID)
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
            for handle, one in self._objects.items()
            if one.session and self._is_visible(one) and one.matches(template)
        ]
        if self._application.is_locked or not _may_be_key(template):
            return found
        for info in self._keys(template):
            for one in self._objects_of(info):
                handle = self._keep(one)
                if self._is_visible(one) and one.matches(template):
                    found.append(handle)
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
        """
        found = list(self._objects_of(info, is_token=is_token))
        for one in found:
            self._keep(one)
            if not is_token:
                one.session = session.handle
        return tuple(found)

    def add_session_object(self, one: Object, session: Session) -> int:
        """
        Keep an object until the session ends.

        Raises:
            CryptokiError: The application has too many.
        """
        if sum(bool(other.session) for other in self._objects.values()) >= (
            MOST_SESSION_OBJECTS
        ):
            raise CryptokiError(ck.CKR_DEVICE_MEMORY)
        one.handle = self._number()
        one.session = session.handle
        self._objects[one.handle] = one
        return one.handle

    def copy_key(self, key: KeyObject, session: Session) -> int:
        """Return another handle of a key, which ends with the session."""
        return self.add_session_object(_copied(key), session)

    def destroy(self, one: Object) -> None:
        """
        Destroy an object.

        The object of a public key, and a copy of a key, are only forgotten.

        Raises:
            HSMError: The key may not be destroyed.
            CryptokiError: It is an older version, which can't be destroyed alone.
        """
        is_secret = isinstance(one, KeyObject) and one.object_class != ck.CKO_PUBLIC_KEY
        if is_secret and _is_key_itself(one):
            assert isinstance(one, KeyObject)  # noqa: S101 (for the type checker)
            if not one.is_current:
                raise CryptokiError(ck.CKR_ACTION_PROHIBITED)
            self._application.hsm.execute(DestroyKey(key_id=one.key_id))
            self.forget_key(one.key_id)
        else:
            self._hidden.add(one.handle)
            del self._objects[one.handle]

    def forget_key(self, key_id: str) -> None:
        """Forget all objects of a key."""
        for handle, one in list(self._objects.items()):
            if isinstance(one, KeyObject) and one.key_id == key_id:
                del self._objects[handle]

    def end_session(self, handle: int) -> None:
        """Forget the objects of a session, and destroy the keys that end with it."""
        ending = [one for one in self._objects.values() if one.session == handle]
        for one in ending:
            self._objects.pop(one.handle, None)
            if isinstance(one, KeyObject) and _is_key_itself(one):
                try:
                    self._application.hsm.execute(DestroyKey(key_id=one.key_id))
                except KeyNotFoundError:
                    continue  # the other object of the pair was first
                except HSMError:
                    # The HSM logs why; the tag of the key says what it is.
                    self._application.log(
                        f"session key {one.key_id} is left; destroy it with hsm-cli "
                        "destroy"
                    )

    def replace(self, info: KeyInfo) -> None:
        """Show the new metadata of a key in its objects."""
        for one in list(self._objects.values()):
            if isinstance(one, KeyObject) and one.key_id == info.key_id:
                for new in self._objects_of(info, is_token=one.is_token):
                    if new.get(ck.CKA_UNIQUE_ID) == one.get(ck.CKA_UNIQUE_ID):
                        new.handle, new.session = one.handle, one.session
                        self._objects[one.handle] = new

    def _is_visible(self, one: Object) -> bool:
        if one.handle in self._hidden:
            return False
        return not one.is_private or self._application.sees_private

    def _number(self) -> int:
        number, self._next = self._next, self._next + 1
        return number

    def _keep(self, one: KeyObject) -> int:
        """Give a key its handle, or the one it has had before."""
        identity = one.get(ck.CKA_UNIQUE_ID)
        assert isinstance(identity, bytes)  # noqa: S101 (for the type checker)
        handle = self._handles.get(identity)
        if handle is None:
            handle = self._handles[identity] = self._number()
        one.handle = handle
        if handle not in self._hidden:
            before = self._objects.get(handle)
            one.session = before.session if before else 0
            self._objects[handle] = one
        return handle

    def _keys(self, template: Template) -> Iterator[KeyInfo]:
        """Yield the keys that may match, by as few requests as the template allows."""
        identifier, label = template.get(ck.CKA_ID), template.get(ck.CKA_LABEL)
        if isinstance(identifier, bytes) and identifier:
            return self._named(candidates(identifier))
        if isinstance(label, bytes) and label:
            return self._named([*label_candidates(label)])
        return self._listed()

    def _named(self, names: list[str]) -> Iterator[KeyInfo]:
        seen = set()
        for name in names:
            for info in self._listed(name) if ":" in name else self._described(name):
                if info.key_id not in seen:
                    seen.add(info.key_id)
                    yield info

    def _described(self, name: str) -> Iterator[KeyInfo]:
        try:
            yield self._application.hsm.execute(DescribeKey(key_id=name))
        except (AccessDeniedError, KeyNotFoundError):
            # A caller without rights gets the same answer whether the key exists.
            return

    def _listed(self, *tags: str) -> Iterator[KeyInfo]:
        hsm, cursor, count = self._application.hsm, "", 0
        while True:
            page = hsm.execute(ListKeys(per_page=_PAGE, cursor=cursor, tags=tags))
            yield from page.items
            cursor, count = page.next_cursor, count + len(page.items)
            if not cursor:
                return
            if count >= MOST_KEYS:
                raise CryptokiError(
                    ck.CKR_DEVICE_MEMORY, f"More than {MOST_KEYS} keys match a search."
                )

    def _objects_of(
        self, info: KeyInfo, *, is_token: bool = True
    ) -> Iterator[KeyObject]:
        """Yield the objects of a key, the current version first."""
        if info.algorithm is None or info.destroy_at is not None:
            return
        algorithm = spec(info.algorithm)
        if algorithm.family not in KEY_TYPES:
            return
        classes = (
            (ck.CKO_PRIVATE_KEY, ck.CKO_PUBLIC_KEY)
            if algorithm.is_asymmetric
            else (ck.CKO_SECRET_KEY,)
        )
        for version, state in self._versions(info):
            load = partial(self._public_key, info.key_id, version)
            for object_class in classes:
                yield KeyObject(
                    object_class,
                    info,
                    algorithm,
                    version=version,
                    state=state,
                    load=load,
                    is_token=is_token and SESSION_KEY not in info.tags,
                )

    def _versions(self, info: KeyInfo) -> list[tuple[int, KeyState]]:
        if info.versions <= 1:
            shown = [] if info.state is None else [(info.version, info.state)]
        else:
            listed = self._application.hsm.execute(ListVersions(key_id=info.key_id))
            shown = [(one.version, one.state) for one in listed.items]
            shown.sort(key=lambda one: (one[0] != info.version, -one[0]))
        return [one for one in shown if one[1] in _SHOWN]

    def _public_key(self, key_id: str, version: int) -> PublicKey:
        found = self._public_keys.get((key_id, version))
        if found is None:
            operation = GetPublicKey(key_id=key_id, version=version)
            found = self._application.hsm.execute(operation)
            self._public_keys[key_id, version] = found
        return found


def _may_be_key(template: Template) -> bool:
    wanted = template.get(ck.CKA_CLASS)
    return wanted is None or wanted in _KEY_CLASSES


def _copied(key: KeyObject) -> KeyObject:
    copied = KeyObject(
        key.object_class,
        key.info,
        key.spec,
        version=key.version,
        state=key.state,
        load=key.public_key,
        is_token=False,
    )
    copied.is_copy = True
    return copied


def _is_key_itself(one: Object) -> bool:
    """Return whether the key in the HSM ends with the object."""
    return (
        isinstance(one, KeyObject)
        and not one.is_copy
        and (one.is_token or SESSION_KEY in one.info.tags)
    )
