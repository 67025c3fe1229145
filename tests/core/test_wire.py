# SPDX-License-Identifier: MIT
"""The codec: strict on reading, the same value on every way."""

from __future__ import annotations

import base64
import json
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsm_core import errors, wire
from hsm_core import operations as ops
from hsm_core.error_records import ErrorRecord, error_from_record, error_record
from hsm_core.model import Record
from hsm_core.operations import OPERATIONS, AnyOperation, Operation
from tests.core.test_roles import sample

SIGN = {"key_id": "k", "message": "aGk="}


def encoded(**fields: object) -> bytes:
    """Return a JSON body of these fields."""
    return json.dumps(fields).encode()


class TestScanner:
    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            (b'{"a":1,"a":2}', "duplicate name"),
            (b'{"x":{"a":1,"\\u0061":2}}', "duplicate name"),
            (b"[" * 17 + b"]" * 17, "deeper than 16"),
            (b'{"a":' * 40 + b"1" + b"}" * 40, "deeper than 16"),
            (b"[" * 100_000, "deeper than 16"),
            (b'["\\\\",' + b"[" * 16 + b"]" * 17, "deeper than 16"),
            (b"NaN", "NaN"),
            (b"[-Infinity]", "-Infinity"),
            (b"1" * 21, "20 digits"),
            (b"\xff", "UTF-8"),
            (b'"\\ud800"', "surrogate"),
            (b'{"\\udc00":1}', "surrogate"),
            (b"{", "Not valid JSON"),
            (b"{} {}", "Not valid JSON"),
            (b"", "Not valid JSON"),
            (b"\xef\xbb\xbf{}", "Not valid JSON"),
        ],
    )
    def test_refuses(self, text: bytes, complaint: str) -> None:
        """What is not strict JSON is refused with the reason."""
        with pytest.raises(errors.MalformedError, match=complaint):
            wire.scan_json(text)

    @pytest.mark.parametrize(
        "text",
        [
            b"[" * 16 + b"]" * 16,
            b"[" + b"[{}]," * 20 + b"[]]",
            b'"[[[[[[[[[[[[[[[[[[[[["',
            b'{"a":"\\"' + b"[{" * 20 + b'"}',
        ],
    )
    def test_counts_only_real_brackets(self, text: bytes) -> None:
        """Brackets in strings do not nest, and the limit itself is allowed."""
        assert json.loads(text) == wire.scan_json(text)

    @given(st.binary(max_size=200))
    def test_never_fails_otherwise(self, data: bytes) -> None:
        """Whatever the bytes, there is a tree or a MalformedError."""
        try:
            wire.scan_json(data)
        except errors.MalformedError:
            return

        assert json.loads(data) is not Ellipsis

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=20,
        )
    )
    def test_agrees_with_the_standard_library(self, tree: Any) -> None:
        """Strict JSON reads as any other reader would."""
        text = json.dumps(tree).encode()

        try:
            read = wire.scan_json(text)
        except errors.MalformedError as error:
            complaint = str(error)
        else:
            assert tree == read
            return

        assert "nested" in complaint or "surrogate" in complaint

    @pytest.mark.parametrize("unit", [b'\\"', b"\\\\", b"[", b'"[', b"x"])
    def test_a_long_text_is_scanned_once(self, unit: bytes) -> None:
        """A scanner that went back and forth would be busy for hours with this."""
        text = b"[]" * 17 + b'"' + unit * 500_000

        with pytest.raises(errors.MalformedError):
            wire.scan_json(text)

    @pytest.mark.parametrize(
        "unit", [b'"a",', b'"\\\\\\"",', b'"[[",', b'"",', b'"{",[],']
    )
    def test_the_depth_of_a_large_text_takes_little_memory(self, unit: bytes) -> None:
        """The depth of a text of many strings is found in about the text's memory."""
        text = b"[" * 17 + b"[" + unit * 100_000

        tracemalloc.start()
        try:
            with pytest.raises(errors.MalformedError, match="nested deeper"):
                wire.scan_json(text)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert most < 4 * len(text)


class TestBytes:
    @pytest.mark.parametrize(
        "text",
        ["aGk", "aGk=\n", "a-_=", "aGl=", "aGk==", "=aGk", "aG k=", "aGk=aGk=", "é=="],
    )
    def test_only_canonical_base64(self, text: str) -> None:
        """A byte string has one spelling only."""
        with pytest.raises(errors.MalformedError) as caught:
            wire.decode_operation(encoded(key_id="k", message=text), ops.Sign)

        assert "message" == caught.value.facts["field"]

    @given(st.binary(max_size=100))
    def test_every_byte_string_travels(self, data: bytes) -> None:
        """What is encoded is decoded again."""
        body = encoded(key_id="k", message=base64.b64encode(data).decode())

        assert data == wire.decode_operation(body, ops.Sign).message

    def test_limit(self) -> None:
        """A byte string above the limit is refused, and the message names both."""
        body = encoded(key_id="k", message=base64.b64encode(bytes(11)).decode())

        with pytest.raises(errors.PayloadTooLargeError, match="10 bytes") as caught:
            wire.decode_operation(body, ops.Sign, payload_limit=10)

        assert ("message", 11, 10) == tuple(
            caught.value.facts[name] for name in ("field", "actual", "maximum")
        )

    @pytest.mark.parametrize("text", ["aGl=", "aGk", 7, None])
    def test_items_of_a_batch(self, text: object) -> None:
        """A byte string in an item is read as strictly, and the message says where."""
        item = {"reference": "a", "signature": text}
        good = {"signature": "aGk=", "message": "aGk="}

        with pytest.raises(errors.InvalidInputError) as caught:
            wire.decode_operation(
                encoded(key_id="k", items=[good, item]), ops.VerifyBatch
            )

        assert "items[1].signature" == caught.value.facts["field"]

    def test_limit_of_items(self) -> None:
        """The limit holds for each item, read or built."""
        item = {"message": base64.b64encode(bytes(11)).decode()}
        built = ops.SignBatch(key_id="k", items=(ops.SignItem(message=bytes(11)),))

        with pytest.raises(errors.PayloadTooLargeError) as read:
            wire.decode_operation(
                encoded(key_id="k", items=[item]), ops.SignBatch, payload_limit=10
            )
        with pytest.raises(errors.PayloadTooLargeError) as checked:
            wire.checked(built, longest=10)

        assert "items[0].message" == read.value.facts["field"]
        assert read.value.facts == checked.value.facts


class TestOperations:
    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"message": "aGk="}, "key_id"),
            (SIGN | {"extra": 1}, "extra"),
            (SIGN | {"key_id": "../../etc"}, "key_id"),
            (SIGN | {"key_id": "k\n"}, "key_id"),
            (SIGN | {"key_id": "K"}, "key_id"),
            (SIGN | {"key_id": "k" * 65}, "key_id"),
            (SIGN | {"key_id": 5}, "key_id"),
            (SIGN | {"hash": "MD5"}, "hash"),
            (SIGN | {"message": 5}, "message"),
            (SIGN | {"message": None, "digest": "A" * 88}, "digest"),
        ],
    )
    def test_a_bad_field_is_named(self, body: dict[str, Any], field: str) -> None:
        """Whatever is wrong with a body, the error names the field."""
        with pytest.raises(errors.InvalidInputError) as caught:
            wire.decode_operation(encoded(**body), ops.Sign)

        assert field in str(caught.value)

    @pytest.mark.parametrize(
        ("kind", "body", "values"),
        [
            (ops.Sign, SIGN | {"hash": "MD5"}, "SHA-256, SHA-384, SHA-512"),
            (ops.ListKeys, {"state": "gone"}, "staged, active, retired"),
            (
                ops.CreateKey,
                {"algorithm": "EC-P256", "usages": ["sign", "fly"]},
                "sign, verify, encrypt",
            ),
        ],
    )
    def test_values_of_a_choice_are_listed(
        self, kind: type[Operation[Any]], body: dict[str, Any], values: str
    ) -> None:
        """Who chooses none of several values reads which there are."""
        with pytest.raises(errors.InvalidInputError, match=f"Use one of {values}"):
            wire.decode_operation(encoded(**body), kind)

    @pytest.mark.parametrize(
        ("body", "field"),
        [({"message": "aGk="}, "key_id"), (SIGN | {"extra": 1}, "extra")],
    )
    def test_an_absent_or_unknown_field_is_a_fact(
        self, body: dict[str, Any], field: str
    ) -> None:
        """A field that is missing, or too much, is told to programs as well."""
        with pytest.raises(errors.InvalidInputError) as caught:
            wire.decode_operation(encoded(**body), ops.Sign)

        assert {"field": field} == caught.value.facts

    def test_the_path_has_the_last_word(self) -> None:
        """A field of the path can't stand in the body as well."""
        with pytest.raises(errors.InvalidInputError, match="path"):
            wire.decode_operation(encoded(**SIGN), ops.Sign, path={"key_id": "other"})

    @pytest.mark.parametrize("body", [b"[]", b'"x"', b"null", b"5"])
    def test_a_body_is_an_object(self, body: bytes) -> None:
        """A body that is JSON but no object is refused."""
        with pytest.raises(errors.InvalidInputError, match="object"):
            wire.decode_operation(body, ops.Sign)

    @pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.__name__)
    def test_round_trips(self, kind: type[Operation[Any]]) -> None:
        """Every operation survives JSON and MessagePack."""
        operation = sample(kind, "3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11")

        assert operation == wire.decode_json(wire.encode_json(operation), kind)
        packed = wire.encode_packed(operation)
        assert operation == wire.decode_packed_operation(packed)


class TestMessagePack:
    @pytest.mark.parametrize(
        "frame",
        [
            b"",
            b"\xc1",
            b"\x82\xa4type\xa6Status\xa4type\xa6Status",
            b"\x81\xa4type\xd9\x06Status",
            b"\x81\xa4type\xa6Status\x00",
            b"\x91" * 10_000,
        ],
        ids=["empty", "unused", "repeated", "longer", "trailing", "deep"],
    )
    def test_one_form_only(self, frame: bytes) -> None:
        """A frame in any but its deterministic form is refused."""
        with pytest.raises((errors.MalformedError, errors.InvalidInputError)):
            wire.decode_packed_operation(frame)

    @settings(max_examples=300)
    @given(st.binary(max_size=80))
    def test_never_fails_otherwise(self, data: bytes) -> None:
        """Whatever the bytes, there is an operation or one of two errors."""
        try:
            operation = wire.decode_packed_operation(data)
        except errors.InvalidInputError:
            return

        assert data == wire.encode_packed(operation)

    def test_the_order_of_fields_does_not_matter(self) -> None:
        """Equal operations have equal bytes, so a digest of them means something."""
        one = msgspec.convert({"type": "Sign", **SIGN}, AnyOperation)
        two = msgspec.convert(
            dict(reversed({"type": "Sign", **SIGN}.items())), AnyOperation
        )

        assert wire.encode_packed(one) == wire.encode_packed(two)


class TestErrors:
    @pytest.mark.parametrize("code", errors.error_classes())
    def test_every_error_travels(self, code: str) -> None:
        """An error arrives as the same class, with its message and facts."""
        cls = errors.error_classes()[code]
        sent = cls.from_wire("A sentence.", {"field": "x", "limit": 5})

        record = wire.decode_json(wire.encode_json(error_record(sent)), ErrorRecord)
        arrived = error_from_record(record)

        assert (cls, "A sentence.", {"field": "x", "limit": 5}) == (
            type(arrived),
            str(arrived),
            arrived.facts,
        )

    def test_an_unknown_code_is_still_an_error(self) -> None:
        """An error of a newer release becomes the root of the tree."""
        record = ErrorRecord(code="from_the_future", message="Later.")

        assert errors.HSMError is type(error_from_record(record))


def records() -> list[type[Record]]:
    """Return every public record type."""
    found, waiting = [], [Record]
    while waiting:
        cls = waiting.pop()
        found.append(cls)
        waiting.extend(cls.__subclasses__())
    return found


def test_no_repr_tells_anything() -> None:
    """The repr of a record names its type and public facts, so that no log leaks."""
    marker = "sentinel-4711"

    for kind in OPERATIONS:
        operation = sample(kind, marker)
        assert f"<{kind.__name__}>" == repr(operation)
    for cls in records():
        types = {field.name: field.type for field in msgspec.structs.fields(cls)}
        assert cls.__repr__ is Record.__repr__
        assert not any("bytes" in repr(types[name]) for name in cls.repr_fields)


def test_secrets_are_marked() -> None:
    """Every field that holds a plaintext, a key or randomness is marked as secret."""
    marked = {
        (cls.__name__, field.name)
        for cls in records()
        if cls.__module__.startswith(("hsm_core.operations.", "hsm_core.model"))
        and cls is not Record
        for field in msgspec.structs.fields(cls)
        if "'secret': True" in repr(field.type)
    }

    assert {
        ("DataKey", "plaintext"),
        ("DecryptedItem", "plaintext"),
        ("Encapsulation", "shared_secret"),
        ("Encrypt", "plaintext"),
        ("EncryptItem", "plaintext"),
        ("Plaintext", "plaintext"),
        ("RandomBytes", "random"),
        ("RawEncrypt", "plaintext"),
        ("Seal", "plaintext"),
        ("SharedSecret", "shared_secret"),
    } == marked


@pytest.mark.parametrize("body", [b"\n", b" ", b"\t\r\n"])
def test_white_space_is_no_body(body: bytes) -> None:
    """Nothing at all stands for no fields; white space alone is not JSON."""
    assert ops.SelfTest() == wire.decode_operation(b"", ops.SelfTest)
    with pytest.raises(errors.MalformedError):
        wire.decode_operation(body, ops.SelfTest)


@pytest.mark.parametrize(
    "at", ["0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01"]
)
def test_a_time_outside_of_all_years(at: str) -> None:
    """What can't be written in UTC is refused as the field that it is."""
    body = json.dumps({"reason": "lost", "compromised_at": at}).encode()
    path = {"key_id": "signer"}
    with pytest.raises(errors.InvalidInputError) as caught:
        wire.decode_operation(body, ops.RevokeKey, path=path)

    assert {"field": "compromised_at"} == caught.value.facts


def test_the_first_and_last_time() -> None:
    """Both can be asked for, and travel."""
    tree = {"since": "0001-01-01T00:00:00Z", "until": "9999-12-31T23:59:59Z"}
    asked = wire.convert(tree, ops.ListAuditEvents)

    assert asked == wire.decode_packed_operation(wire.encode_packed(asked))
