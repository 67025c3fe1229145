# SPDX-License-Identifier: MIT
"""Templates of new objects, and rules about changing attributes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.errors import CryptokiError
from hsm_cli.interfaces.pkcs11.names import (
    id_tag,
    label_tag,
    mechanisms_tag,
    name_from,
    without,
)
from hsm_cli.interfaces.pkcs11.objects import (
    ALWAYS_AUTHENTICATE,
    ONE_WAY,
    SESSION_KEY,
    USAGES,
    KeyObject,
    Object,
)
from hsm_cli.interfaces.pkcs11.wire import Template, Value
from hsm_core.algorithms import KeyUsage
from hsm_core.operations import UpdateKey

MOST_VALUE_BYTES: Final = 1024 * 1024
"""Length of an attribute of a session object."""

_FIXED: Final[Template] = {
    ck.CKA_MODIFIABLE: True,
    ck.CKA_COPYABLE: True,
    ck.CKA_DESTROYABLE: True,
    ck.CKA_SIGN_RECOVER: False,
    ck.CKA_VERIFY_RECOVER: False,
    ck.CKA_WRAP_WITH_TRUSTED: False,
    ck.CKA_TRUSTED: False,
    ck.CKA_START_DATE: b"",
    ck.CKA_END_DATE: b"",
}
"""Attributes that every key has with this value."""

_READ_ONLY: Final = frozenset(
    {
        ck.CKA_LOCAL,
        ck.CKA_KEY_GEN_MECHANISM,
        ck.CKA_ALWAYS_SENSITIVE,
        ck.CKA_NEVER_EXTRACTABLE,
        ck.CKA_UNIQUE_ID,
        ck.CKA_CHECK_VALUE,
    }
)
"""Attributes that only the token sets."""

_BY_MECHANISM: Final = frozenset(
    {
        ck.CKA_CLASS,
        ck.CKA_KEY_TYPE,
        ck.CKA_MODULUS_BITS,
        ck.CKA_PUBLIC_EXPONENT,
        ck.CKA_EC_PARAMS,
        ck.CKA_PARAMETER_SET,
        ck.CKA_VALUE_LEN,
        ck.CKA_SUBJECT,
    }
)
"""Attributes that the mechanism of the call checks."""

_FLAGS: Final = frozenset(usage for table in USAGES.values() for usage in table)
_OF_KEMS: Final = frozenset({ck.CKA_ENCAPSULATE, ck.CKA_DECAPSULATE})
_PURPOSES: Final = (
    {KeyUsage.SIGN, KeyUsage.VERIFY},
    {KeyUsage.ENCRYPT, KeyUsage.DECRYPT},
    {KeyUsage.WRAP, KeyUsage.UNWRAP},
    {KeyUsage.MAC},
    {KeyUsage.DERIVE},
    {KeyUsage.ENCAPSULATE, KeyUsage.DECAPSULATE},
)
"""Usages that go together, the first that a template names counting."""


_OF_TYPES: Final[dict[object, frozenset[KeyUsage]]] = {
    ck.CKK_GENERIC_SECRET: frozenset({KeyUsage.MAC, KeyUsage.DERIVE}),
    ck.CKK_HKDF: frozenset({KeyUsage.DERIVE}),
}
"""Usages of types of keys that do not encrypt, whatever programs ask for."""


class Creation(msgspec.Struct, frozen=True):
    """
    What a template says of a new key.

    Attributes:
        name: Name of the key, or empty.
        tags: Its tags, with what its name can't say.
        usages: Its usages, for one purpose; empty for those of the algorithm.
        exportable: Whether it can be exported, wrapped.
        is_token: Whether it outlives the session.
        label: CKA_LABEL.
        note: What the template asked for and the key will not do, for the log.
        denied: Usages that the template denies.
        one_way: Tags of a key that computes MACs, where it denies half of that.
    """

    name: str
    tags: tuple[str, ...]
    usages: tuple[KeyUsage, ...]
    exportable: bool
    is_token: bool
    label: bytes = b""
    note: str = ""
    denied: frozenset[KeyUsage] = frozenset()
    one_way: tuple[str, ...] = ()

    def unnamed(self) -> Creation:
        """
        Return the same without a name, where that is taken.

        Raises:
            CryptokiError: The label is too long for a tag.
        """
        if not self.name:
            return self
        tags = (*self.tags, label_tag(self.label))
        return msgspec.structs.replace(self, name="", tags=tags)


def creation(object_class: int, template: Template, *others: Template) -> Creation:
    """
    Return what the templates of a new key say.

    Args:
        object_class: CKO_SECRET_KEY, or CKO_PRIVATE_KEY for a pair.

        template: Template of the secret or the private key.

        others: Template of the public key.

    Raises:
        CryptokiError: An attribute is unknown, read-only or not offered, or the
            templates contradict each other.
    """
    label, identifier = b"", b""
    tags = []
    usages: set[KeyUsage] = set()
    denied: set[KeyUsage] = set()
    classes = (object_class, ck.CKO_PUBLIC_KEY)
    for one, found in zip(classes, (template, *others), strict=False):
        check_template(one, found)
        usages |= _usages_of(one, found)
        denied |= _denied_by(one, found)
        label = label or _text(found, ck.CKA_LABEL)
        identifier = identifier or _text(found, ck.CKA_ID)
    is_token = template.get(ck.CKA_TOKEN) is True
    name = name_from(label) if is_token else ""
    if label and not name:
        tags.append(label_tag(label))
    if identifier:
        tags.append(id_tag(identifier))
    if not is_token:
        tags.append(SESSION_KEY)
    if template.get(ck.CKA_ALWAYS_AUTHENTICATE) is True:
        tags.append(ALWAYS_AUTHENTICATE)
    if allowed := _mechanisms_of((template, *others)):
        tags.append(mechanisms_tag(tuple(sorted(allowed))))
    wanted, refused = _one_purpose(usages, template.get(ck.CKA_KEY_TYPE))
    return Creation(
        name=name,
        tags=tuple(tags),
        usages=tuple(sorted(wanted)),
        exportable=template.get(ck.CKA_EXTRACTABLE) is True,
        is_token=is_token,
        label=label,
        note=f"The new key lacks the usage {', '.join(refused)}: it has one purpose."
        if refused
        else "",
        denied=frozenset(denied - usages),
        one_way=tuple(t for kind, t in ONE_WAY.items() if template.get(kind) is False),
    )


def _one_purpose(
    usages: set[KeyUsage], key_type: object
) -> tuple[set[KeyUsage], list[KeyUsage]]:
    """
    Return the usages of a new key of a type, and those that it does not get.

    Programs ask for everything. A key that signs and decrypts weakens both (SP 800-57
    part 1, section 5.2), and one that wraps and decrypts reveals what it wraps.
    """
    for asked in (usages & _OF_TYPES.get(key_type, usages), usages):
        for purpose in _PURPOSES:
            if wanted := purpose & asked:
                return wanted, sorted(usages - wanted)
    return set(), []


def check_template(
    object_class: int, template: Template, parts: frozenset[int] = frozenset()
) -> None:
    """
    Check the template of a new key.

    Args:
        object_class: CKO_….

        template: The template.

        parts: Attributes beside the usual ones, which are the key itself.

    Raises:
        CryptokiError: An attribute is unknown, read-only or not offered.
    """
    for kind, value in template.items():
        if kind in _READ_ONLY:
            raise CryptokiError(ck.CKR_ATTRIBUTE_READ_ONLY)
        if kind in _FIXED and value != _FIXED[kind]:
            raise CryptokiError(
                ck.CKR_TEMPLATE_INCONSISTENT,
                f"Attribute {kind:#x} must be {_FIXED[kind]!r}.",
            )
    # A key that is asked to be less protected than it will be is accepted: it is
    # sensitive, and what tries to read its value is refused.
    if object_class == ck.CKO_PUBLIC_KEY and template.get(ck.CKA_PRIVATE) is True:
        raise CryptokiError(ck.CKR_TEMPLATE_INCONSISTENT)
    # Programs ask for other usages of other classes, and mean no harm.
    foreign = _OF_KEMS - USAGES[object_class].keys()
    if any(template.get(kind) is True for kind in foreign):
        raise CryptokiError(
            ck.CKR_TEMPLATE_INCONSISTENT,
            "This class of keys lacks a usage of the template.",
        )
    known = _FIXED.keys() | _BY_MECHANISM | _FLAGS | _SETTABLE | parts
    if not template.keys() <= known:
        raise CryptokiError(ck.CKR_ATTRIBUTE_TYPE_INVALID)


_SETTABLE: Final = frozenset(
    {
        ck.CKA_TOKEN,
        ck.CKA_PRIVATE,
        ck.CKA_LABEL,
        ck.CKA_ID,
        ck.CKA_SENSITIVE,
        ck.CKA_EXTRACTABLE,
        ck.CKA_ALWAYS_AUTHENTICATE,
        ck.CKA_ALLOWED_MECHANISMS,
    }
)
"""Attributes that programs choose, within limits."""


def _usages_of(object_class: int, template: Template) -> set[KeyUsage]:
    table = USAGES[object_class]
    return {usage for kind, usage in table.items() if template.get(kind) is True}


def _denied_by(object_class: int, template: Template) -> set[KeyUsage]:
    """Return the usages that a template denies by every attribute that has them."""
    table = USAGES[object_class]
    left = {usage for kind, usage in table.items() if template.get(kind) is not False}
    return set(table.values()) - left


def _mechanisms_of(templates: Iterable[Template]) -> frozenset[int]:
    """
    Return the mechanisms that a new key is for; none if it is for all.

    Raises:
        CryptokiError: The templates of a pair name different ones.
    """
    values = (found.get(ck.CKA_ALLOWED_MECHANISMS) for found in templates)
    named = {frozenset(value) for value in values if isinstance(value, tuple) and value}
    if len(named) > 1:
        raise CryptokiError(
            ck.CKR_TEMPLATE_INCONSISTENT,
            "CKA_ALLOWED_MECHANISMS must be the same for both keys of a pair.",
        )
    return named.pop() if named else frozenset()


def _text(template: Template, kind: int) -> bytes:
    value = template.get(kind, b"")
    return value if isinstance(value, bytes) else b""


def require_unchanged(one: KeyObject, template: Template) -> None:
    """
    Check that a change leaves a key what it is.

    Raises:
        CryptokiError: An attribute other than label and CKA_ID would change.
    """
    for kind, value in template.items():
        if kind in {ck.CKA_LABEL, ck.CKA_ID}:
            continue
        if kind in _READ_ONLY or one.get(kind) != value:
            raise CryptokiError(ck.CKR_ATTRIBUTE_READ_ONLY)


def update_of(
    one: KeyObject, template: Template, *, is_name_free: bool = True
) -> UpdateKey | None:
    """
    Return the operation that gives a key another label or CKA_ID; None for no change.

    Args:
        one: The key.

        template: Its new attributes.

        is_name_free: Whether the label may become the name of the key.

    Raises:
        CryptokiError: A value is too long.
    """
    tags, name = one.info.tags, one.info.name
    if ck.CKA_LABEL in template and template[ck.CKA_LABEL] != one.get(ck.CKA_LABEL):
        label = _text(template, ck.CKA_LABEL)
        new = name_from(label) if is_name_free else ""
        tags = without(tags, label_tag(b""))
        if new:
            name = new
        else:
            tags = (*tags, label_tag(label))
    if ck.CKA_ID in template and template[ck.CKA_ID] != one.get(ck.CKA_ID):
        if not one.is_current:
            raise CryptokiError(ck.CKR_ATTRIBUTE_READ_ONLY)
        tags = (*without(tags, id_tag(b"")), id_tag(_text(template, ck.CKA_ID)))
    if (tags, name) == (one.info.tags, one.info.name):
        return None
    return UpdateKey(
        key_id=one.key_id,
        name=name if name != one.info.name else None,
        tags=tags if tags != one.info.tags else None,
    )


COPIED_ANEW: Final = frozenset({ck.CKA_LABEL, ck.CKA_ID})
"""Attributes that a copy may have for itself: it ends with its session."""


def copyable(one: Object, template: Template) -> tuple[KeyObject, Template]:
    """
    Return a key that can have another handle, and attributes of the copy alone.

    Raises:
        CryptokiError: The copy would be another key, or outlive the session.
    """
    if not isinstance(one, KeyObject):
        raise CryptokiError(ck.CKR_ACTION_PROHIBITED)
    if template.get(ck.CKA_TOKEN, one.is_token) is True:
        raise CryptokiError(
            ck.CKR_TEMPLATE_INCONSISTENT,
            "CKA_TOKEN of a copy of a key must be false: it ends with its session.",
        )
    for kind, value in template.items():
        if kind not in COPIED_ANEW | {ck.CKA_TOKEN} and one.get(kind) != value:
            raise CryptokiError(ck.CKR_TEMPLATE_INCONSISTENT)
    require_short(template)
    return one, {kind: template[kind] for kind in COPIED_ANEW & template.keys()}


_OF_DATA: Final = frozenset({ck.CKA_APPLICATION, ck.CKA_OBJECT_ID, ck.CKA_VALUE})
_OF_SESSION_OBJECT: Final = frozenset(
    {ck.CKA_CLASS, ck.CKA_TOKEN, ck.CKA_PRIVATE, ck.CKA_LABEL, ck.CKA_MODIFIABLE}
)


def session_object(template: Template) -> Object:
    """
    Return the session object of a template.

    Raises:
        CryptokiError: It would outlive the session, or is of a class that programs
            can't create.
    """
    object_class = template.get(ck.CKA_CLASS)
    if object_class is None:
        raise CryptokiError(ck.CKR_TEMPLATE_INCOMPLETE)
    require_short(template)
    if object_class != ck.CKO_DATA:
        raise CryptokiError(
            ck.CKR_TEMPLATE_INCONSISTENT, "Programs can't create objects of this class."
        )
    if template.get(ck.CKA_TOKEN) is True:
        raise CryptokiError(
            ck.CKR_TEMPLATE_INCONSISTENT,
            "CKA_TOKEN of a data object must be false: it ends with its session.",
        )
    if not template.keys() <= _OF_SESSION_OBJECT | _OF_DATA:
        raise CryptokiError(ck.CKR_ATTRIBUTE_TYPE_INVALID)
    empty: Template = dict.fromkeys((ck.CKA_LABEL, *_OF_DATA), b"")
    return Object(ck.CKO_DATA, empty | template, is_token=False)


def require_short(template: Template) -> None:
    """
    Check the length of the values of a session object.

    Raises:
        CryptokiError: One is too long.
    """
    if any(_length(value) > MOST_VALUE_BYTES for value in template.values()):
        raise CryptokiError(ck.CKR_ATTRIBUTE_VALUE_INVALID)


def _length(value: Value) -> int:
    return len(value) if isinstance(value, bytes) else 0
