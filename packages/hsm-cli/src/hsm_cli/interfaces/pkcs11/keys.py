# SPDX-License-Identifier: MIT
"""Keys of the HSM that match a template, and the objects of each."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.errors import CryptokiError
from hsm_cli.interfaces.pkcs11.names import candidates, label_candidates
from hsm_cli.interfaces.pkcs11.objects import (
    KEY_TYPES,
    NOT_SHOWN,
    SESSION_KEY,
    KeyObject,
    Object,
)
from hsm_cli.interfaces.pkcs11.wire import Template
from hsm_core.algorithms import spec
from hsm_core.model import KeyInfo, KeyState
from hsm_core.operations import (
    Certificate,
    DescribeKey,
    GetCertificates,
    GetPublicKey,
    ListKeys,
    ListVersions,
    PublicKey,
)

if TYPE_CHECKING:
    from hsm_cli.interfaces.pkcs11.application import Application

MOST_KEYS: Final = 20_000
"""Keys that one search goes through."""

_PAGE: Final = 1000
_MOST_PUBLIC_KEYS: Final = 1024
_MOST_CHAINS: Final = 128
_SHOWN: Final = frozenset({KeyState.ACTIVE, KeyState.RETIRED, KeyState.SUSPENDED})
_CLASSES: Final = frozenset(
    {
        ck.CKO_CERTIFICATE,
        ck.CKO_PRIVATE_KEY,
        ck.CKO_PUBLIC_KEY,
        ck.CKO_SECRET_KEY,
    }
)


class Keys:
    """
    Keys of the HSM, for one application.

    Args:
        application: The application.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self._public_keys: dict[tuple[str, int], PublicKey] = {}
        self._chains: dict[tuple[str, int, int], tuple[Certificate, ...]] = {}

    def matching(self, template: Template) -> Iterator[KeyInfo]:
        """
        Yield the keys that may match, by as few requests as the template allows.

        Session keys are left out: they belong to the application that made them.

        Raises:
            HSMError: The caller may not list keys, or the HSM is not available.
            CryptokiError: There are too many keys.
        """
        if template.get(ck.CKA_CLASS, ck.CKO_SECRET_KEY) not in _CLASSES:
            return
        identifier, label = template.get(ck.CKA_ID), template.get(ck.CKA_LABEL)
        if isinstance(identifier, bytes) and identifier:
            found = self.named(*candidates(identifier))
        elif isinstance(label, bytes) and label:
            found = self.named(*label_candidates(label))
        else:
            found = self._listed()
        for info in found:
            if SESSION_KEY not in info.tags:
                yield info

    def named(self, *names: str) -> Iterator[KeyInfo]:
        """Yield the keys with one of these names, IDs or (with a colon) tags, once."""
        seen = set()
        for name in names:
            for info in self._listed(name) if ":" in name else self._described(name):
                if info.key_id not in seen:
                    seen.add(info.key_id)
                    yield info

    def objects_of(self, info: KeyInfo, *, is_token: bool = True) -> Iterator[Object]:
        """Yield keys and certificates of a key, the current version first."""
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
        for version, state, certificates in self._versions(info):
            load = partial(self._public_key, info.key_id, version)
            for object_class in classes:
                yield KeyObject(
                    object_class,
                    info,
                    algorithm,
                    version=version,
                    state=state,
                    load=load,
                    is_token=is_token,
                )
            if certificates:
                yield from self._certificates(info, version)

    def _versions(self, info: KeyInfo) -> list[tuple[int, KeyState, int]]:
        """Return number, state and number of certificates of each version shown."""
        if info.versions <= 1:
            shown = (
                []
                if info.state is None
                else [(info.version, info.state, info.certificates)]
            )
        else:
            try:
                listed = self._application.hsm.execute(ListVersions(key_id=info.key_id))
            except NOT_SHOWN:
                return []
            shown = [(one.version, one.state, one.certificates) for one in listed.items]
            shown.sort(key=lambda one: (one[0] != info.version, -one[0]))
        return [one for one in shown if one[1] in _SHOWN]

    def _certificates(self, info: KeyInfo, version: int) -> Iterator[Object]:
        # Loaded where there are any.
        from hsm_cli.interfaces.pkcs11.certificates import CertificateObject

        place_of = (info.key_id, version, info.generation)
        chain = self._chains.get(place_of)
        if chain is None:
            operation = GetCertificates(key_id=info.key_id, version=version)
            try:
                chain = self._application.hsm.execute(operation).items
            except NOT_SHOWN:
                return
            if len(self._chains) >= _MOST_CHAINS:
                self._chains.clear()
            self._chains[place_of] = chain
        for place, certificate in enumerate(chain):
            yield CertificateObject(info, version, place, certificate.der)

    def _described(self, name: str) -> Iterator[KeyInfo]:
        try:
            yield self._application.hsm.execute(DescribeKey(key_id=name))
        except NOT_SHOWN:
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
                    ck.CKR_DEVICE_MEMORY,
                    f"A search goes through {MOST_KEYS} keys at most. Search by label "
                    "or ID.",
                )

    def _public_key(self, key_id: str, version: int) -> PublicKey:
        found = self._public_keys.get((key_id, version))
        if found is None:
            operation = GetPublicKey(key_id=key_id, version=version)
            found = self._application.hsm.execute(operation)
            if len(self._public_keys) >= _MOST_PUBLIC_KEYS:
                self._public_keys.clear()
            self._public_keys[key_id, version] = found
        return found
