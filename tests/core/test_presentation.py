# SPDX-License-Identifier: MIT
"""How operations are shown: nothing secret, and no two of them alike."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, TypeAlias

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect as kinds

from hsm_core import operations as ops
from hsm_core import wire
from hsm_core._internal.approvals.presentation import context_of, present
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.time.clock import microseconds
from hsm_core.consent import ShownField, check_shown, hidden_sha256, shown_sha256
from hsm_core.model import Caller, KeyId, Record, Role, Secret
from hsm_core.operations import OPERATIONS, Effect, Operation, PublicKey
from tests.core import consent_vectors
from tests.core.key_support import document_of

SALT = consent_vectors.SALT
AnyOp: TypeAlias = Operation[Any]
WORDS = ["", "a", "0", ".0", "items.0", "a" * 5000, "None"]
CHUNKS = [b"", b"a", b"\0", b"a" * 1024, b"a" * 1025]
INSTANTS = [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 1, tzinfo=UTC)]


def values(kind: kinds.Type) -> st.SearchStrategy[Any]:
    """Return values of a type: few and near each other, so that some are equal."""
    match kind:
        case kinds.Metadata():
            return values(kind.type)
        case kinds.StrType():
            return st.sampled_from(WORDS)
        case kinds.BytesType():
            return st.sampled_from(CHUNKS)
        case kinds.BoolType():
            return st.booleans()
        case kinds.IntType():
            return st.integers(0, 3)
        case kinds.NoneType():
            return st.none()
        case kinds.DateTimeType():
            return st.sampled_from(INSTANTS)
        case kinds.EnumType():
            return st.sampled_from(list(kind.cls)[:3])
        case kinds.UnionType():
            return st.one_of(*map(values, kind.types))
        case kinds.VarTupleType():
            return st.lists(values(kind.item_type), max_size=3).map(tuple)
        case kinds.StructType():
            return records(kind)
        case _:
            raise AssertionError(f"no values of {kind}")


def records(kind: kinds.StructType) -> st.SearchStrategy[Any]:
    """Return records of a type; fields that need not be given are left out at times."""
    needed = {f.name: values(f.type) for f in kind.fields if f.required}
    optional = {f.name: values(f.type) for f in kind.fields if not f.required}
    facts = st.fixed_dictionaries(needed, optional=optional)
    return facts.map(lambda given: kind.cls(**given))


def described(cls: type[AnyOp]) -> kinds.StructType:
    """Return the type of an operation, as data."""
    kind = kinds.type_info(cls)
    assert isinstance(kind, kinds.StructType)
    return kind


def packed(value: object) -> bytes:
    """Return the form that is hashed."""
    return msgspec.msgpack.encode(value, order="sorted")


def shown(operation: AnyOp) -> str:
    """Return the digest of what approvers see, after a look at it."""
    found = present(operation, requester="alice", document=None, salt=SALT)
    check_shown(found)
    assert len(wire.encode_packed(found)) < 24 * 1024
    return shown_sha256(SALT, found)


@pytest.mark.parametrize("cls", OPERATIONS, ids=lambda cls: cls.__name__)
@given(data=st.data())
@settings(max_examples=15)
def test_no_two_alike(cls: type[AnyOp], data: st.DataObject) -> None:
    """Operations that differ in anything have two digests, and equal ones have one."""
    kind = described(cls)
    one, other = data.draw(records(kind)), data.draw(records(kind))
    names = [f.name for f in kind.fields]
    copied = data.draw(st.sets(st.sampled_from(names)) if names else st.just(set()))
    near = msgspec.structs.replace(one, **{n: getattr(other, n) for n in copied})

    for second in (other, near):
        assert (one == second) is (shown(one) == shown(second))


def made(cls: type[AnyOp], secret: bytes = b"") -> AnyOp:
    """Return an operation that has something in each field."""
    operation: AnyOp = _made(described(cls), secret)
    return operation


def _made(kind: kinds.Type, secret: bytes, *, is_secret: bool = False) -> Any:
    match kind:
        case kinds.Metadata():
            marked = bool((kind.extra or {}).get("secret"))
            return _made(kind.type, secret, is_secret=is_secret or marked)
        case kinds.UnionType():
            first = next(k for k in kind.types if not isinstance(k, kinds.NoneType))
            return _made(first, secret, is_secret=is_secret)
        case kinds.VarTupleType():
            return (_made(kind.item_type, secret, is_secret=is_secret),) * 2
        case kinds.StructType():
            return kind.cls(**{f.name: _made(f.type, secret) for f in kind.fields})
        case kinds.BytesType():
            return secret if is_secret else b"public"
        case kinds.StrType():
            return secret.decode() if is_secret else "text"
        case kinds.EnumType():
            return next(iter(kind.cls))
        case kinds.DateTimeType():
            return INSTANTS[0]
        case kinds.BoolType():
            return True
        case _:
            return 1


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("cls", OPERATIONS, ids=lambda cls: cls.__name__)
def test_no_secret_is_shown(cls: type[AnyOp], many: bool) -> None:
    """What is marked as secret is shown by length and hash, in long batches too."""
    operation = made(cls, b"do not show this")
    items = getattr(operation, "items", None)
    if many and items is not None:
        operation = msgspec.structs.replace(operation, items=items * 40)

    found = present(operation, requester="alice", document=None, salt=SALT)

    assert b"do not show this" not in wire.encode_packed(found)


class Part(Record, frozen=True, kw_only=True):
    """A record inside of an operation."""

    word: str = ""
    secret: Secret = b""


class Left(Record, frozen=True, kw_only=True, tag=True):
    """One of two."""

    number: int = 0


class Right(Record, frozen=True, kw_only=True, tag=True):
    """The other of two."""

    number: int = 0


class Kind(StrEnum):
    """Some words."""

    USUAL = "usual"
    OTHER = "other"


SecretText: TypeAlias = Annotated[str, msgspec.Meta(extra={"secret": True})]


class Planted(Operation[PublicKey], frozen=True, kw_only=True):
    """Every shape that a field may have."""

    effect: ClassVar = Effect.USE

    secrets: tuple[Secret, ...] = ()
    password: SecretText = ""
    maybe: Secret | None = None
    part: Part | None = None
    parts: tuple[Part, ...] = ()
    side: Left | Right | None = None
    kind: Kind = Kind.USUAL
    days: int | None = 30
    usual: tuple[str, ...] = ("a",)
    made: tuple[str, ...] = msgspec.field(default_factory=lambda: ("b",))
    nested: tuple[tuple[str, ...], ...] = ()
    until: datetime | None = None
    flag: bool = True


@given(data=st.data())
@settings(max_examples=100)
def test_every_shape(data: st.DataObject) -> None:
    """Shapes that no operation has yet are told apart as well."""
    kind = described(Planted)
    one, other = data.draw(records(kind)), data.draw(records(kind))
    copied = data.draw(st.sets(st.sampled_from([f.name for f in kind.fields])))
    near = msgspec.structs.replace(one, **{n: getattr(other, n) for n in copied})

    assert (one == near) is (shown(one) == shown(near))


def test_hidden_shapes() -> None:
    """Lists of secrets, secret text and parts of records are all hidden."""
    secret = "do not show this"
    operation = Planted(
        secrets=(secret.encode(),),
        password=secret,
        maybe=secret.encode(),
        part=Part(secret=secret.encode()),
        parts=(Part(secret=secret.encode()),),
    )

    found = present(operation, requester="alice", document=None, salt=SALT)

    assert secret.encode() not in wire.encode_packed(found)
    assert (
        ShownField(
            name="password",
            length=16,
            sha256=hidden_sha256(SALT, "password", secret.encode()),
        )
        in found.fields
    )


def test_an_item_of_nothing() -> None:
    """An item that is wholly at its defaults is counted, so that it can't be added."""
    one = ops.SignBatch(key_id="k", items=(ops.SignItem(message=b"a"),))
    more = ops.SignBatch(key_id="k", items=(ops.SignItem(message=b"a"), ops.SignItem()))

    assert shown(one) != shown(more)


def test_nothing_instead_of_something() -> None:
    """A field that is set to nothing is shown where it is something by default."""
    found = present(Planted(days=None), requester="a", document=None, salt=SALT)

    assert (ShownField(name="days"),) == found.fields


def test_unknown_shape() -> None:
    """A field of a type that can't be shown in one way only is a mistake."""

    class Wrong(Operation[PublicKey], frozen=True, kw_only=True):
        effect: ClassVar = Effect.USE

        facts: dict[str, str] = msgspec.field(default_factory=dict)

    with pytest.raises(TypeError, match="facts: unsupported type dict"):
        present(Wrong(facts={"a": "b"}), requester="a", document=None, salt=SALT)


def test_batch_of_many() -> None:
    """A batch of many items is shown by the length and the hash of all of them."""
    items = tuple(ops.SignItem(message=b"%d" % n) for n in range(1000))

    found = present(
        ops.SignBatch(key_id="k", items=items),
        requester="alice",
        document=None,
        salt=SALT,
    )

    whole = packed(items)
    assert (
        ShownField(name="key_id", text="k"),
        ShownField(
            name="items",
            length=len(whole),
            sha256=hidden_sha256(SALT, "items", whole),
        ),
    ) == found.fields


def test_vectors() -> None:
    """The published operations are what the product shows."""
    document = msgspec.structs.replace(
        document_of(1, versions=2, algorithm="ECDSA-P256"),
        key_id=KeyId(consent_vectors.KEY_ID),
    )
    named = msgspec.structs.replace(
        document, name="release-signer", owner="carol", tags=("dual", "prod")
    )
    aes = msgspec.structs.replace(document, algorithm="AES-256-GCM", current=1)
    key_id = document.key_id
    items = (
        ops.SignItem(message=b"v1.0"),
        ops.SignItem(reference="long", message=b"m" * 2000),
    )
    encrypt = ops.Encrypt(key_id=key_id, plaintext=b"secret")
    made: dict[str, tuple[AnyOp, KeyDocument]] = {
        "destroy": (ops.DestroyKey(key_id=key_id), named),
        "batch": (ops.SignBatch(key_id=key_id, items=items), document),
        "encrypt": (encrypt, aes),
    }
    alice = Caller(
        principal="alice",
        roles=frozenset({Role.ADMINISTRATOR}),
        source_address="10.1.2.3",
        certificate_subject="CN=alice",
        certificate_sha256="41" * 32,
    )
    used = microseconds(datetime(2026, 1, 1, tzinfo=UTC))
    asked = made["destroy"][0]
    context = context_of(asked, alice, named, {}, salt=SALT, last_used_at=used)
    for name, (operation, key) in made.items():
        found = present(
            operation,
            requester="alice",
            document=key,
            salt=SALT,
            context=context if name == "destroy" else None,
        )

        assert consent_vectors.vectors()[name] == packed(found).hex()


def test_version() -> None:
    """A version that is named is shown, else the current one, so that it is bound."""
    document = document_of(1, versions=3)

    for version in (None, 2):
        operation = ops.Decrypt(
            key_id=document.key_id, ciphertext=b"c", version=version
        )
        found = present(operation, requester="a", document=document, salt=SALT)
        assert (version or 3) == found.version


def test_algorithm_of_a_new_key() -> None:
    """Of a key that is to be made, the algorithm is shown."""
    operation = ops.CreateKey(algorithm="ML-DSA-65")

    found = present(operation, requester="alice", document=None, salt=SALT)

    assert "ML-DSA-65" == found.algorithm
