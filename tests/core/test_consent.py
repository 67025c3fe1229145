# SPDX-License-Identifier: MIT
"""What people consent to: page, second writer and product agree; nothing is unsaid."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from hsm_core import wire
from hsm_core.consent import (
    SALT_BYTES,
    ShownChange,
    ShownContext,
    ShownField,
    ShownOperation,
    changes,
    check_shown,
    headline,
    hidden_sha256,
    shown_sha256,
    statement,
)
from hsm_core.errors import InputSizeError, InvalidInputError
from tests.core.consent_vectors import (
    APPROVAL_ID,
    DESTROY,
    ENCRYPT,
    SALT,
    SIGN,
    Value,
    block,
    packed,
    vectors,
)
from tests.support import REPOSITORY

PAGE = (REPOSITORY / "docs" / "reference" / "formats-consent.md").read_text()
VECTORS = vectors()
OPERATIONS = {"destroy": DESTROY, "batch": SIGN, "encrypt": ENCRYPT}
FIELD = ShownField(name="a", number=1)


def read(tree: Value) -> ShownOperation:
    """Return a vector as the product reads it."""
    return msgspec.msgpack.decode(packed(tree), type=ShownOperation)


def test_page() -> None:
    """The page shows the vectors that the second implementation makes."""
    (shown,) = re.findall(r"```text\n(salt .*?)```", PAGE, re.DOTALL)

    assert block() == shown


@pytest.mark.parametrize("name", OPERATIONS)
def test_digest(name: str) -> None:
    """The product has the published digests, from JSON too."""
    shown = read(OPERATIONS[name])
    sent = wire.decode_json(wire.encode_json(shown), ShownOperation)

    assert VECTORS[name] == msgspec.msgpack.encode(sent, order="sorted").hex()
    assert VECTORS[f"{name} sha256"] == shown_sha256(SALT, sent)
    check_shown(sent)


def test_hidden() -> None:
    """The product has the published hashes of what is not shown."""
    message = hidden_sha256(SALT, "items.1.message", b"m" * 2000)

    assert VECTORS["hidden message"] == message
    assert VECTORS["hidden secret"] == hidden_sha256(SALT, "plaintext", b"secret")


def test_statement() -> None:
    """The product signs the published text; agreeing and denying differ."""
    digest = VECTORS["destroy sha256"]

    granted = statement(APPROVAL_ID, digest, granted=True)

    assert VECTORS["statement"] == granted.hex()
    assert granted != statement(APPROVAL_ID, digest, granted=False)


@pytest.mark.parametrize("length", [0, SALT_BYTES - 1, SALT_BYTES + 1])
def test_salt_of_another_length(length: int) -> None:
    """
    A salt of another length is refused.

    Else whoever shows an operation could count its first part as salt, and show what
    is left as another operation of the same digest.
    """
    with pytest.raises(InputSizeError, match="salt must be 32 bytes"):
        shown_sha256(bytes(length), read(DESTROY))
    with pytest.raises(InputSizeError, match="salt must be 32 bytes"):
        hidden_sha256(bytes(length), "a", b"")


@pytest.mark.parametrize(
    ("approval_id", "digest"),
    [
        (f"{APPROVAL_ID}\ngrant", "41" * 32),
        (APPROVAL_ID.upper(), "41" * 32),
        ("", "41" * 32),
        (APPROVAL_ID, "41" * 31),
        (APPROVAL_ID, "41" * 32 + "\n"),
        (APPROVAL_ID, "AB" * 32),
    ],
)
def test_lines_of_others(approval_id: str, digest: str) -> None:
    """Nothing can put lines of its own into what is signed."""
    with pytest.raises(InvalidInputError):
        statement(approval_id, digest, granted=True)


@pytest.mark.parametrize(
    "fields",
    [
        (FIELD, FIELD),
        (ShownField(name="a", number=1, text="1"),),
        (ShownField(name="a", data=b"x", length=1, sha256="41" * 32),),
        (ShownField(name="a", length=1),),
        (ShownField(name="a", sha256="41" * 32),),
        (ShownField(name="a", text="x", sha256="41" * 32),),
        (ShownField(name="a", length=1, sha256="x" * 64),),
    ],
)
def test_unclear_field(fields: tuple[ShownField, ...]) -> None:
    """A field in two forms, in half a form, or twice is not shown at all."""
    shown = ShownOperation(format=1, kind="Sign", requester="alice", fields=fields)

    with pytest.raises(InvalidInputError, match="'a' must occur once"):
        check_shown(shown)


def test_unknown_format() -> None:
    """What is shown in a form of later programs is not shown at all."""
    with pytest.raises(InvalidInputError, match="must be 1 to 2, got 3"):
        check_shown(ShownOperation(format=3, kind="Sign", requester="alice"))


CONTEXT = ShownContext(
    owner="carol",
    versions=3,
    last_used_at="2025-09-28T12:00:00Z",
    before=(
        ShownField(name="tags", number=2),
        ShownField(name="tags.0", text="dual"),
        ShownField(name="tags.1", text="prod"),
        ShownField(name="owner", text="carol"),
        ShownField(name="description", text=""),
    ),
    undo="It can't be undone.",
)
FIELDS = (
    ShownField(name="key_id", text="k"),
    ShownField(name="description", text="old"),
    ShownField(name="owner", text="dave"),
    ShownField(name="tags", number=1),
    ShownField(name="tags.0", text="prod"),
)


def test_changes() -> None:
    """Of each field that changes it is told what it is, and what it becomes."""
    shown = ShownOperation(
        format=2, kind="UpdateKey", requester="a", fields=FIELDS, context=CONTEXT
    )

    assert changes(shown) == (
        ShownChange("tags", "dual, prod", "prod", removed=("dual",)),
        ShownChange("owner", "carol", "dave"),
        ShownChange("description", "", "old"),
    )
    assert () == changes(msgspec.structs.replace(shown, context=None))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (
            {"kind": "DestroyKey"},
            "ann asks to destroy pay (AES-256-GCM, 3 versions, last used 14 months "
            "ago). It can't be undone.",
        ),
        (
            {"kind": "Sign", "context": None},
            "ann asks to sign with pay (AES-256-GCM).",
        ),
        (
            {"kind": "RevokeKey", "fields": (ShownField(name="version", number=2),)},
            "ann asks to revoke pay (AES-256-GCM, version 2, 3 versions, last used 14 "
            "months ago). It can't be undone.",
        ),
        (
            {
                "kind": "CreateKey",
                "key_id": "",
                "key_name": "",
                "fields": (ShownField(name="name", text="new"),),
                "context": ShownContext(undo="It can be undone."),
            },
            "ann asks to create key new (AES-256-GCM). It can be undone.",
        ),
        (
            {"kind": "UpdateKey", "key_name": "", "context": ShownContext(versions=1)},
            "ann asks to change k (AES-256-GCM, 1 version, never used).",
        ),
    ],
)
def test_headline(facts: dict[str, Any], expected: str) -> None:
    """A request is told in one sentence: who, what, which key, and how it is undone."""
    usual: dict[str, Any] = {
        "format": 2,
        "requester": "ann",
        "key_id": "k",
        "key_name": "pay",
        "algorithm": "AES-256-GCM",
        "version": 2,
        "context": CONTEXT,
    }
    shown = ShownOperation(**usual | facts)

    assert expected == str(headline(shown, datetime(2026, 11, 28, tzinfo=UTC)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-27T12:00:00Z", "last used 12 hours ago"),
        ("2026-11-26T23:59:00Z", "last used 1 day ago"),
        ("2026-11-28T00:00:00Z", "last used just now"),
        ("2026-11-28T01:00:00Z", "last used just now"),
        ("2026-11-28", "last used 2026-11-28"),
        ("nonsense", "last used nonsense"),
    ],
)
def test_when_it_was_used(text: str, expected: str) -> None:
    """The last use is told in words; a text that is no time is told as it is."""
    context = ShownContext(versions=1, last_used_at=text)
    shown = ShownOperation(
        format=2, kind="DestroyKey", requester="a", key_id="k", context=context
    )

    assert expected in str(headline(shown, datetime(2026, 11, 28, tzinfo=UTC)))


@pytest.mark.parametrize(
    "context",
    [ShownContext(before=(FIELD, FIELD)), ShownContext(names=(FIELD, FIELD))],
    ids=["before", "names"],
)
def test_unclear_context(context: ShownContext) -> None:
    """The context is shown in one way, too."""
    shown = ShownOperation(format=2, kind="Sign", requester="a", context=context)

    with pytest.raises(InvalidInputError, match="'a' must occur once"):
        check_shown(shown)
