# SPDX-License-Identifier: MIT
"""
Test operations on a key: sign, encrypt and others, for small inputs.

Inputs and results travel in request and response bodies only and are not stored.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from aiohttp import web

from hsm_core import operations as ops
from hsm_core.algorithms import (
    Algorithm,
    AlgorithmSpec,
    KeyUsage,
    SignatureEncoding,
    spec,
)
from hsm_core.error_records import asked_approval
from hsm_core.errors import (
    ApprovalRequiredError,
    DecryptionError,
    HSMError,
    KeyUsageError,
    VerificationError,
)
from hsm_core.model import KeyInfo
from hsm_core.operations import Operation
from hsm_server.http.problems import problem_of, status_of
from hsm_server.ui.actions import Action, RejectedFormError, Tree, submit
from hsm_server.ui.forms import ENCODINGS, MOST_INPUT_BYTES, Field, Option, fill_fields
from hsm_server.ui.keys.presenters import KEY, find_key, path_of
from hsm_server.ui.view import Page, View

_LONGEST_HEX: Final = 1024
_PARAMETERS: Final = ("scheme", "hash", "encoding")


@dataclass(frozen=True, slots=True)
class _Input:
    """
    Bytes that an operation takes.

    Attributes:
        name: Name of the operation's field.
        label: Label.
        encoding: Usual encoding, one of `ENCODINGS`.
    """

    name: str
    label: str
    encoding: str

    def fields(self) -> Iterator[Field]:
        """Yield a text field, its encoding, and a file field."""
        name, label, longest = self.name, self.label, 2 * MOST_INPUT_BYTES
        yield Field(name=name, label=label, kind="bytes", longest=longest)
        yield Field(
            name=f"{name}_form",
            label=f"{label} encoding",
            kind="select",
            is_beside=True,
            options=tuple(Option(e, e, e == self.encoding) for e in ENCODINGS),
        )
        yield Field(
            name=f"{name}_file", label=f"{label} file", kind="file", is_beside=True
        )


@dataclass(frozen=True, slots=True)
class _Output:
    """
    Bytes that an operation returns.

    Attributes:
        name: Name of the result's field.
        label: Label.
        is_secret: Whether they are folded until requested.
        is_text: Whether they are also shown as text, if printable.
    """

    name: str
    label: str
    is_secret: bool = False
    is_text: bool = False

    def present(self, result: object) -> dict[str, Any]:
        """Return the bytes in a result as a page shows them."""
        data: bytes = getattr(result, self.name)
        return {
            "label": self.label,
            "length": len(data),
            "base64": base64.b64encode(data).decode(),
            "hex": data.hex() if len(data) <= _LONGEST_HEX else "",
            "text": _readable(data) if self.is_text else None,
            "is_secret": self.is_secret,
        }


def _readable(data: bytes) -> str | None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    plain = all(character.isprintable() or character in "\n\t" for character in text)
    return text if plain else None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageAction(Action[KeyInfo]):
    """
    A test operation on a key.

    Attributes:
        usage: Usage that the key must have.
        inputs: Fields of the operation that are bytes.
        outputs: Fields of the result that are bytes.
        kem_operation: Operation on keys of a KEM, if it is another.
    """

    usage: KeyUsage
    inputs: Sequence[_Input]
    outputs: Sequence[_Output] = ()
    kem_operation: type[Operation[Any]] | None = None
    target: Callable[[KeyInfo], Tree] = lambda key: {"key_id": key.key_id}
    is_idempotent: bool = False
    has_generation: bool = False

    def own_fields(self, subject: KeyInfo) -> Sequence[Field]:
        """Return the fields of the form: inputs, then parameters of the algorithm."""
        fields = [field for taken in self.inputs for field in taken.fields()]
        return [*fields, *_parameters(self.name, _row_of(subject))]

    def operation_for(self, subject: KeyInfo) -> type[Operation[Any]]:
        """Return the operation on keys of this algorithm."""
        if self.kem_operation is not None and _row_of(subject).is_kem:
            return self.kem_operation
        return self.operation

    def summary(self, result: Any) -> str:
        """Return a result in a sentence, with the parameters of the operation."""
        chosen = (getattr(result, name, None) for name in _PARAMETERS)
        words = ", ".join(choice.value for choice in chosen if choice is not None)
        return self.done.format(version=result.version, parameters=words)


def usages_for(key: KeyInfo) -> Sequence[UsageAction]:
    """Return the test operations of a key."""
    if key.algorithm is None:
        return ()
    usable = _row_of(key).usages & set(key.usages)
    return [action for action in USAGES if action.usage in usable]


def _row_of(key: KeyInfo) -> AlgorithmSpec:
    # No action fits a key without an algorithm.
    return spec(cast(Algorithm, key.algorithm))


def _parameters(action: str, row: AlgorithmSpec) -> Iterator[Field]:
    """Yield fields of some operations with some algorithms only."""
    if action in {"sign", "verify"}:
        encodings = tuple(SignatureEncoding) if row.coordinate_bytes else ()
        for label, values in (("Scheme", row.schemes), ("Encoding", encodings)):
            if len(values) > 1:
                options = tuple(Option(value.value, value.value) for value in values)
                name = label.lower()
                yield Field(name=name, label=label, kind="select", options=options)
        if row.max_context_bytes:
            yield Field(
                name="context",
                label="Context",
                kind="context",
                hint="Domain separation. Usually empty.",
                longest=255,
            )
    if action in {"verify", "verify-mac"}:
        yield Field(
            name="version",
            label="Version",
            kind="number",
            hint="Empty: all versions that may verify.",
        )


_MESSAGE: Final = _Input("message", "Message", "text")
_AAD: Final = _Input("aad", "Additional authenticated data (AAD)", "text")

_SECRET: Final = _Output("shared_secret", "Shared secret", is_secret=True)

USAGES: Final = (
    UsageAction(
        name="sign",
        verb="Sign",
        meaning="Sign a message with the current version.",
        usage=KeyUsage.SIGN,
        operation=ops.Sign,
        inputs=(_MESSAGE,),
        done="Signed by version {version} ({parameters}).",
        outputs=(_Output("signature", "Signature"),),
    ),
    UsageAction(
        name="verify",
        verb="Verify",
        meaning="Verify a signature over a message.",
        usage=KeyUsage.VERIFY,
        operation=ops.Verify,
        inputs=(_MESSAGE, _Input("signature", "Signature", "base64")),
        done="Valid signature (version {version}).",
    ),
    UsageAction(
        name="encrypt",
        verb="Encrypt",
        meaning="Encrypt with the current version.",
        usage=KeyUsage.ENCRYPT,
        operation=ops.Encrypt,
        kem_operation=ops.Seal,
        inputs=(_Input("plaintext", "Plaintext", "text"), _AAD),
        done="Encrypted by version {version}.",
        outputs=(_Output("ciphertext", "Ciphertext"),),
    ),
    UsageAction(
        name="decrypt",
        verb="Decrypt",
        meaning="Decrypt a ciphertext of this key. The ciphertext names its version.",
        usage=KeyUsage.DECRYPT,
        operation=ops.Decrypt,
        kem_operation=ops.Open,
        inputs=(_Input("ciphertext", "Ciphertext", "base64"), _AAD),
        done="Decrypted by version {version}.",
        outputs=(_Output("plaintext", "Plaintext", is_secret=True, is_text=True),),
    ),
    UsageAction(
        name="encapsulate",
        verb="Encapsulate",
        meaning="Create a fresh shared secret and its encapsulation for the private "
        "key.",
        usage=KeyUsage.ENCAPSULATE,
        operation=ops.Encapsulate,
        inputs=(),
        done="Fresh shared secret, encapsulated for version {version}.",
        outputs=(
            _Output("ciphertext", "Encapsulation"),
            _SECRET,
        ),
    ),
    UsageAction(
        name="decapsulate",
        verb="Decapsulate",
        meaning="Decapsulate and show the shared secret.",
        usage=KeyUsage.DECAPSULATE,
        operation=ops.Decapsulate,
        inputs=(_Input("ciphertext", "Encapsulation", "base64"),),
        done="Decapsulated by version {version}. An altered encapsulation, or one "
        "for another key, yields a different secret and no error.",
        outputs=(_SECRET,),
    ),
    UsageAction(
        name="mac",
        verb="Compute MAC",
        meaning="Compute a message authentication code with the current version.",
        usage=KeyUsage.MAC,
        operation=ops.ComputeMac,
        inputs=(_MESSAGE,),
        done="Computed by version {version}.",
        outputs=(_Output("mac", "MAC"),),
    ),
    UsageAction(
        name="verify-mac",
        verb="Verify MAC",
        meaning="Verify a message authentication code of full length.",
        usage=KeyUsage.MAC,
        operation=ops.VerifyMac,
        inputs=(_MESSAGE, _Input("mac", "MAC", "base64")),
        done="Valid MAC (version {version}).",
    ),
)
"""Test operations in display order."""


def _pages(action: UsageAction) -> Iterator[Page]:
    path = f"{KEY}/try/{action.name}"

    async def show(view: View) -> web.StreamResponse:
        key = await _key(view, action)
        return _page(view, key, action, action.form_fields(key))

    async def execute(view: View) -> web.StreamResponse:
        """Execute the form and show the result with its inputs."""
        form = await view.form()
        key = await _key(view, action)
        fields = fill_fields(action.form_fields(key), form)
        try:
            result = await submit(view, action, key, form)
        except (ApprovalRequiredError, VerificationError, DecryptionError) as error:
            return _page(view, key, action, fields, error=error)
        except RejectedFormError as rejected:
            return _page(view, key, action, rejected.fields, error=rejected.error)
        return _page(view, key, action, fields, result=result)

    yield Page("GET", path, show, "keys.try")
    yield Page("POST", path, execute, "keys.tried")


async def _key(view: View, action: UsageAction) -> KeyInfo:
    key = await find_key(view)
    if action not in usages_for(key):
        raise KeyUsageError(f"This key does not allow the operation: {action.verb}.")
    return key


def _page(
    view: View,
    key: KeyInfo,
    action: UsageAction,
    fields: Sequence[Field],
    *,
    result: object = None,
    error: HSMError | None = None,
) -> web.Response:
    if error is not None:
        view.exchange.code = error.code
    asked = asked_approval(error) if error else None
    return view.render(
        "keys/try.html",
        status=status_of(type(error)) if error else 200,
        key=key,
        action=action,
        actions=usages_for(key),
        fields=fields,
        sentence=action.summary(result) if result else "",
        parts=[output.present(result) for output in action.outputs if result],
        problem=problem_of(error, "").detail if error else "",
        has_failed=isinstance(error, VerificationError | DecryptionError),
        approval_id=asked.approval_id if asked else "",
        most=MOST_INPUT_BYTES // 1024,
        back=path_of(key.key_id),
    )


PAGES: Final = tuple(page for action in USAGES for page in _pages(action))
