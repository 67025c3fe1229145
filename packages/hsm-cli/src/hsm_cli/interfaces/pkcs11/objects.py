# SPDX-License-Identifier: MIT
"""Objects of the token: keys of the HSM as PKCS#11 sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.errors import CryptokiError
from hsm_cli.interfaces.pkcs11.names import id_of, label_of, mechanisms_of
from hsm_cli.interfaces.pkcs11.public_parts import PUBLIC_PARTS, public_part
from hsm_cli.interfaces.pkcs11.wire import Template, Value
from hsm_core.algorithms import AlgorithmSpec, Family, KeyUsage
from hsm_core.errors import AccessDeniedError, KeyNotFoundError, KeyStateError
from hsm_core.model import KeyInfo, KeyOrigin, KeyState

if TYPE_CHECKING:
    from hsm_core.operations import PublicKey
    from hsm_core.protocols import HSM

ALWAYS_AUTHENTICATE: Final = "pkcs11-always-authenticate"
"""Tag of a key whose every private use needs a login of its own."""

SESSION_KEY: Final = "pkcs11-session"
"""Tag of a key that is destroyed when the session ends that made it."""

ONE_WAY: Final = {
    ck.CKA_SIGN: "pkcs11-no-sign",
    ck.CKA_VERIFY: "pkcs11-no-verify",
}
"""Tags of HMAC keys that may only verify or only sign, by the usage they lack."""

NOT_SHOWN: Final = (AccessDeniedError, KeyNotFoundError, KeyStateError)
"""Errors of a key that is gone, or denied, by which a search passes over it."""

KEY_TYPES: Final = {
    Family.AEAD: ck.CKK_AES,
    Family.AES: ck.CKK_AES,
    Family.KEY_WRAP: ck.CKK_AES,
    Family.MAC: ck.CKK_GENERIC_SECRET,
    Family.KDF: ck.CKK_HKDF,
    Family.RSA: ck.CKK_RSA,
    Family.ECDSA: ck.CKK_EC,
    Family.EDDSA: ck.CKK_EC_EDWARDS,
    Family.ECDH: ck.CKK_EC_MONTGOMERY,
    Family.ML_KEM: ck.CKK_ML_KEM,
    Family.ML_DSA: ck.CKK_ML_DSA,
    Family.SLH_DSA: ck.CKK_SLH_DSA,
}
"""Key types by family of algorithms. Composites have none, and are not shown."""

_OF_PRIVATE: Final = {
    ck.CKA_SIGN: KeyUsage.SIGN,
    ck.CKA_DECRYPT: KeyUsage.DECRYPT,
    ck.CKA_UNWRAP: KeyUsage.UNWRAP,
    ck.CKA_DERIVE: KeyUsage.DERIVE,
    ck.CKA_DECAPSULATE: KeyUsage.DECAPSULATE,
}
_OF_PUBLIC: Final = {
    ck.CKA_VERIFY: KeyUsage.VERIFY,
    ck.CKA_ENCRYPT: KeyUsage.ENCRYPT,
    ck.CKA_WRAP: KeyUsage.WRAP,
    ck.CKA_ENCAPSULATE: KeyUsage.ENCAPSULATE,
}
_OF_SECRET: Final = {
    ck.CKA_SIGN: KeyUsage.MAC,
    ck.CKA_VERIFY: KeyUsage.MAC,
    ck.CKA_ENCRYPT: KeyUsage.ENCRYPT,
    ck.CKA_DECRYPT: KeyUsage.DECRYPT,
    ck.CKA_WRAP: KeyUsage.WRAP,
    ck.CKA_UNWRAP: KeyUsage.UNWRAP,
    ck.CKA_DERIVE: KeyUsage.DERIVE,
}
USAGES: Final = {
    ck.CKO_PRIVATE_KEY: _OF_PRIVATE,
    ck.CKO_PUBLIC_KEY: _OF_PUBLIC,
    ck.CKO_SECRET_KEY: _OF_SECRET,
}
"""Usages of keys by attribute, by object class."""

_PROTECTING: Final = frozenset(
    {ck.CKA_SIGN, ck.CKA_ENCRYPT, ck.CKA_WRAP, ck.CKA_DERIVE, ck.CKA_ENCAPSULATE}
)
"""Usages that only the current version has."""

_SECRET_PARTS: Final = frozenset(
    {
        ck.CKA_VALUE,
        ck.CKA_PRIVATE_EXPONENT,
        ck.CKA_PRIME_1,
        ck.CKA_PRIME_2,
        ck.CKA_EXPONENT_1,
        ck.CKA_EXPONENT_2,
        ck.CKA_COEFFICIENT,
        ck.CKA_SEED,
    }
)


class ObjectIdentity(NamedTuple):
    """
    What a handle of a token object names.

    Attributes:
        place: Place of a certificate in its chain.
        digest: SHA-256 of a certificate, as another one may come to its place.
    """

    key_id: str
    version: int
    object_class: int
    place: int = 0
    digest: bytes = b""


def size_of(template: Template) -> int:
    """Return the length of the values of attributes, in bytes."""
    return sum(len(value) for value in template.values() if isinstance(value, bytes))


class Object:
    """
    Object that a program finds by its attributes.

    Args:
        object_class: CKO_….

        attributes: Attributes that are known from the start.

        is_token: Whether it outlives the session.

    Attributes:
        handle: Its number in the application, once it has one.
        session: Handle of the session that it ends with; 0 for a token object.
        identity: What its handle names, if it is a token object.
    """

    identity: ObjectIdentity

    def __init__(
        self, object_class: int, attributes: Template, *, is_token: bool
    ) -> None:
        self.object_class = object_class
        self.is_token = is_token
        self.handle = 0
        self.session = 0
        self._attributes: Template = {
            ck.CKA_CLASS: object_class,
            ck.CKA_TOKEN: is_token,
            ck.CKA_PRIVATE: False,
            ck.CKA_MODIFIABLE: True,
            ck.CKA_COPYABLE: False,
            ck.CKA_DESTROYABLE: True,
            **attributes,
        }

    @property
    def is_private(self) -> bool:
        """Whether it is hidden until the user logs in."""
        return self._attributes[ck.CKA_PRIVATE] is True

    @property
    def size(self) -> int:
        """Length of its values, in bytes."""
        return size_of(self._attributes)

    def get(self, kind: int) -> Value:
        """
        Return an attribute.

        Raises:
            CryptokiError: There is none of this type, or it is secret.
        """
        value = self._attributes.get(kind)
        if value is None:
            raise CryptokiError(ck.CKR_ATTRIBUTE_TYPE_INVALID)
        return value

    def change(self, template: Template) -> None:
        """
        Change attributes of an object that a program made.

        Raises:
            CryptokiError: They are fixed.
        """
        if self._attributes[ck.CKA_MODIFIABLE] is not True:
            raise CryptokiError(ck.CKR_ACTION_PROHIBITED)
        fixed = {ck.CKA_CLASS, ck.CKA_TOKEN, ck.CKA_PRIVATE, ck.CKA_MODIFIABLE}
        for kind, value in template.items():
            if kind in fixed and value != self.get(kind):
                raise CryptokiError(ck.CKR_ATTRIBUTE_READ_ONLY)
            if kind not in self._attributes:
                raise CryptokiError(ck.CKR_ATTRIBUTE_TYPE_INVALID)
        self._attributes |= template

    def matches(self, template: Template) -> bool:
        """Return whether all attributes of a template are the object's."""
        return all(self._has(kind, value) for kind, value in template.items())

    def _has(self, kind: int, value: Value) -> bool:
        try:
            return self.get(kind) == value
        except (CryptokiError, *NOT_SHOWN):
            return False


class KeyObject(Object):
    """
    Private, public or secret key: one version of a key of the HSM.

    Args:
        object_class: CKO_PRIVATE_KEY, CKO_PUBLIC_KEY or CKO_SECRET_KEY.

        info: Metadata of the key.

        spec: Its algorithm.

        version: Version; the current one of *info* if 0.

        state: State of the version.

        load: Returns the public key of the version.

        is_token: False for a key that ends with its session, or a copy of a key.

        executor: Executes operations with it in place of the HSM, which has not got it.

    Attributes:
        identity: What its handle names.
        is_copy: Whether it is another handle of a key, which the key outlives.
    """

    def __init__(
        self,
        object_class: int,
        info: KeyInfo,
        spec: AlgorithmSpec,
        *,
        version: int,
        state: KeyState | None,
        load: Callable[[], PublicKey],
        is_token: bool = True,
        executor: HSM | None = None,
    ) -> None:
        self.identity = ObjectIdentity(info.key_id, version, object_class)
        self.spec = spec
        self.algorithm = spec.algorithm
        self.key_id = info.key_id
        self.version = version
        self.key_type = KEY_TYPES[spec.family]
        self.is_copy = False
        self._state = state
        self._load = load
        self._executor = executor
        self._own: Template = {}
        super().__init__(object_class, {}, is_token=is_token)
        self._info = info
        self._attributes |= self._of_key()

    @property
    def info(self) -> KeyInfo:
        """Metadata of the key, as of the last search."""
        return self._info

    @info.setter
    def info(self, info: KeyInfo) -> None:
        self._info = info
        self._attributes |= self._of_key() | self._own

    @property
    def is_current(self) -> bool:
        """Whether it is the current version."""
        return self.version == self._info.version

    @property
    def is_suspended(self) -> bool:
        """Whether its version was suspended when it was read."""
        return self._state is KeyState.SUSPENDED

    @property
    def needs_login(self) -> bool:
        """Whether each use needs a login of its own."""
        is_public = self.object_class == ck.CKO_PUBLIC_KEY
        return not is_public and ALWAYS_AUTHENTICATE in self._info.tags

    @property
    def is_key_itself(self) -> bool:
        """Whether the key in the HSM ends with the object."""
        return not self.is_copy and self.object_class != ck.CKO_PUBLIC_KEY

    def copied(self, own: Template) -> KeyObject:
        """
        Return another object of the same key, for a session.

        Args:
            own: Label and CKA_ID of the copy, where they differ from the key's.
        """
        copied = KeyObject(
            self.object_class,
            self._info,
            self.spec,
            version=self.version,
            state=self._state,
            load=self._load,
            is_token=False,
            executor=self._executor,
        )
        copied.is_copy = True
        copied.rename(self._own | own)
        return copied

    def follow(self, key: KeyObject) -> None:
        """Take metadata and state of the key, which was read again."""
        self._state = key._state
        self.info = key.info

    def rename(self, own: Template) -> None:
        """Give a copy a label or CKA_ID of its own."""
        self._own |= own
        self._attributes |= own

    def executor(self, hsm: HSM) -> HSM:
        """Return what executes operations with it: *hsm*, if that has the key."""
        return self._executor or hsm

    def public_key(self) -> PublicKey:
        """Return the public key of this version."""
        return self._load()

    def require_mechanism(self, kind: int) -> None:
        """
        Check that the key is for a mechanism.

        Raises:
            CryptokiError: CKA_ALLOWED_MECHANISMS names others.
        """
        allowed = self._attributes.get(ck.CKA_ALLOWED_MECHANISMS)
        if isinstance(allowed, tuple) and kind not in allowed:
            raise CryptokiError(
                ck.CKR_MECHANISM_INVALID,
                f"CKA_ALLOWED_MECHANISMS of key {self.key_id} lacks this mechanism.",
            )

    def require_usage(self, usage: int) -> None:
        """
        Check that the key has a usage, given as an attribute.

        Raises:
            CryptokiError: It has not.
        """
        if self._attributes.get(usage) is not True:
            raise CryptokiError(ck.CKR_KEY_FUNCTION_NOT_PERMITTED)

    def require_version(self, version: int) -> None:
        """
        Check that the HSM, which takes the current version, took this one.

        Raises:
            CryptokiError: The key was rotated since the program found it.
        """
        if version != self.version:
            usages = _PROTECTING & self._attributes.keys()
            self._attributes |= dict.fromkeys(usages, False)
            raise CryptokiError(
                ck.CKR_KEY_FUNCTION_NOT_PERMITTED,
                f"Key {self.key_id} was rotated. Let the program search for it again.",
            )

    def get(self, kind: int) -> Value:
        """Return an attribute; see `Object.get`."""
        if kind in PUBLIC_PARTS and self.object_class != ck.CKO_SECRET_KEY:
            value = public_part(self, kind)
            if value is not None:
                return value
        if kind in _SECRET_PARTS and self.object_class != ck.CKO_PUBLIC_KEY:
            raise CryptokiError(ck.CKR_ATTRIBUTE_SENSITIVE)
        return super().get(kind)

    def _of_key(self) -> Template:
        info = self.info
        is_public = self.object_class == ck.CKO_PUBLIC_KEY
        found: Template = {
            ck.CKA_PRIVATE: not is_public,
            ck.CKA_COPYABLE: True,
            ck.CKA_LABEL: label_of(info),
            ck.CKA_ID: id_of(info, self.version),
            ck.CKA_UNIQUE_ID: self._unique_id(),
            ck.CKA_KEY_TYPE: self.key_type,
            ck.CKA_START_DATE: b"",
            ck.CKA_END_DATE: b"",
            ck.CKA_DERIVE: False,
            ck.CKA_LOCAL: info.origin is KeyOrigin.GENERATED,
            ck.CKA_KEY_GEN_MECHANISM: self._generator(),
            **{usage: self._has_usage(usage) for usage in USAGES[self.object_class]},
        }
        allowed = mechanisms_of(info)
        if allowed is not None:
            found[ck.CKA_ALLOWED_MECHANISMS] = allowed
        if is_public:
            return found | {
                ck.CKA_SUBJECT: b"",
                ck.CKA_VERIFY_RECOVER: False,
                ck.CKA_TRUSTED: False,
            }
        found |= {
            ck.CKA_SENSITIVE: True,
            ck.CKA_ALWAYS_SENSITIVE: info.origin is KeyOrigin.GENERATED,
            ck.CKA_EXTRACTABLE: info.exportable,
            ck.CKA_NEVER_EXTRACTABLE: not info.exportable
            and info.origin is KeyOrigin.GENERATED,
            ck.CKA_WRAP_WITH_TRUSTED: False,
            ck.CKA_ALWAYS_AUTHENTICATE: self.needs_login,
        }
        if self.object_class == ck.CKO_PRIVATE_KEY:
            return found | {
                ck.CKA_SUBJECT: b"",
                ck.CKA_SIGN_RECOVER: False,
            }
        return found | {
            ck.CKA_TRUSTED: False,
            ck.CKA_VALUE_LEN: self.spec.key_bytes,
        }

    def _has_usage(self, attribute: int) -> bool:
        usage = USAGES[self.object_class][attribute]
        if usage not in self.info.usages:
            return False
        if usage is KeyUsage.MAC and ONE_WAY[attribute] in self.info.tags:
            return False
        if self.object_class == ck.CKO_PUBLIC_KEY:
            return self.is_current or attribute not in _PROTECTING
        if attribute in _PROTECTING:
            return self.is_current and self._state is KeyState.ACTIVE
        return self._state in {KeyState.ACTIVE, KeyState.RETIRED}

    def _unique_id(self) -> bytes:
        return b"%b.%d.%d" % (self.key_id.encode(), self.version, self.object_class)

    def _generator(self) -> int:
        if self.info.origin is not KeyOrigin.GENERATED:
            return ck.CK_UNAVAILABLE_INFORMATION
        return _GENERATORS.get(self.spec.family, ck.CK_UNAVAILABLE_INFORMATION)


def require_no_login(key: KeyObject) -> None:
    """
    Refuse a key whose every use needs a login, in calls that have no place for one.

    Raises:
        CryptokiError: It is one.
    """
    if key.needs_login:
        raise CryptokiError(
            ck.CKR_KEY_FUNCTION_NOT_PERMITTED,
            "A key with CKA_ALWAYS_AUTHENTICATE can't wrap, be wrapped or derive.",
        )


_GENERATORS: Final = {
    Family.AEAD: ck.CKM_AES_KEY_GEN,
    Family.AES: ck.CKM_AES_KEY_GEN,
    Family.KEY_WRAP: ck.CKM_AES_KEY_GEN,
    Family.MAC: ck.CKM_GENERIC_SECRET_KEY_GEN,
    Family.KDF: ck.CKM_HKDF_KEY_GEN,
    Family.RSA: ck.CKM_RSA_PKCS_KEY_PAIR_GEN,
    Family.ECDSA: ck.CKM_EC_KEY_PAIR_GEN,
    Family.EDDSA: ck.CKM_EC_EDWARDS_KEY_PAIR_GEN,
    Family.ECDH: ck.CKM_EC_MONTGOMERY_KEY_PAIR_GEN,
    Family.ML_KEM: ck.CKM_ML_KEM_KEY_PAIR_GEN,
    Family.ML_DSA: ck.CKM_ML_DSA_KEY_PAIR_GEN,
    Family.SLH_DSA: ck.CKM_SLH_DSA_KEY_PAIR_GEN,
}
