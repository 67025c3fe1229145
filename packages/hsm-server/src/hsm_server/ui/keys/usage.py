# SPDX-License-Identifier: MIT
"""
Test operations on a key: sign, encrypt and others, for small inputs.

Inputs and results travel in request and response bodies only and are not stored.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from aiohttp import web

from hsm_core import wire
from hsm_core.algorithms import (
    Algorithm,
    AlgorithmSpec,
    KeyUsage,
    SignatureEncoding,
    spec,
)
from hsm_core.errors import (
    ApprovalRequiredError,
    DecryptionError,
    HSMError,
    InvalidInputError,
    KeyUsageError,
    PayloadTooLargeError,
    VerificationError,
)
from hsm_core.model import KeyInfo
from hsm_core.operations import (
    ComputeMac,
    Decapsulate,
    Decrypt,
    Encapsulate,
    Encrypt,
    Open,
    Operation,
    Seal,
    Sign,
    Verify,
    VerifyMac,
)
from hsm_core.wire import asked_approval
from hsm_server.http.problems import problem_of, status_of
from hsm_server.ui.actions import Action, RejectedFormError, Tree, submit
from hsm_server.ui.forms import Field, Form, Option, fill_fields
from hsm_server.ui.keys.presenters import KEY, find_key, path_of
from hsm_server.ui.view import Page, View

MOST_BYTES: Final = 64 * 1024
"""Maximum length of an input, in bytes."""

_LONGEST_HEX: Final = 1024


@dataclass(frozen=True, slots=True)
class OutputBytes:
    """
    Bytes as a page shows them.

    Attributes:
        label: Label.
        text: As text, if requested and printable UTF-8; else None.
        hex: Empty if longer than 1024 bytes.
        is_secret: Whether they are folded until requested.
    """

    label: str
    length: int
    base64: str
    hex: str
    text: str | None
    is_secret: bool


def shown(
    label: str, data: bytes, *, is_text: bool = False, is_secret: bool = False
) -> OutputBytes:
    """Return bytes as a page shows them."""
    return OutputBytes(
        label,
        len(data),
        base64.b64encode(data).decode(),
        data.hex() if len(data) <= _LONGEST_HEX else "",
        _readable(data) if is_text else None,
        is_secret,
    )


def _readable(data: bytes) -> str | None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    plain = all(character.isprintable() or character in "\n\t" for character in text)
    return text if plain else None


def read_bytes(form: Form, name: str) -> bytes:
    """
    Return the bytes of a field, or of the file ``<name>_file``.

    ``<name>_form`` is the field's encoding.

    Raises:
        InvalidInputError: It is not in its encoding, or there is a file too.
        PayloadTooLargeError: It is longer than `MOST_BYTES`.
    """
    text, data = form.get(name), form.file(f"{name}_file")
    if text and data:
        raise InvalidInputError("Enter text or choose a file, not both.", field=name)
    data = data or _read(text, form.get(f"{name}_form", "text"), name)
    if len(data) > MOST_BYTES:
        raise PayloadTooLargeError(name, actual=len(data), maximum=MOST_BYTES)
    return data


def _read(text: str, form: str, name: str) -> bytes:
    if form not in _READERS:
        raise InvalidInputError("Encoding must be text, base64 or hex.", field=name)
    try:
        return _READERS[form](text)
    except (binascii.Error, ValueError):
        raise InvalidInputError(f"Not valid {form}.", field=name) from None


def _base64(text: str) -> bytes:
    return base64.b64decode("".join(text.split()), validate=True)


_READERS: Final[dict[str, Callable[[str], bytes]]] = {
    "text": str.encode,
    "base64": _base64,
    "hex": bytes.fromhex,
}
FORMS: Final = tuple(_READERS)
"""Encodings of an input."""


@dataclass(frozen=True, slots=True)
class UsageResult:
    """
    Result of a test operation.

    Attributes:
        sentence: Summary.
        is_good: Whether it succeeded.
        parts: Output bytes.
    """

    sentence: str
    is_good: bool
    parts: tuple[OutputBytes, ...] = ()


_VERSION: Final = "version"
_CONTEXT: Final = "context"
_PARAMETERS: Final = ("scheme", "hash", "encoding")


@dataclass(frozen=True, slots=True)
class _Input:
    """
    Bytes that an operation takes.

    Attributes:
        name: Name of the operation's field.
        label: Label.
        form: Usual encoding, one of `FORMS`.
    """

    name: str
    label: str
    form: str


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
    is_idempotent: bool = False
    has_generation: bool = False

    def form_fields(self, subject: KeyInfo) -> Sequence[Field]:
        """Return the fields of the form: inputs, then parameters of the algorithm."""
        fields = [field for taken in self.inputs for field in _fields_of(taken)]
        return [*fields, *_more(self, _row_of(subject))]

    def operation_for(self, subject: KeyInfo) -> type[Operation[Any]]:
        """Return the operation on keys of this algorithm."""
        if self.kem_operation is not None and _row_of(subject).is_kem:
            return self.kem_operation
        return self.operation

    def present(self, result: Any) -> UsageResult:
        """Return the result as a page shows it."""
        chosen = (getattr(result, name, None) for name in _PARAMETERS)
        words = ", ".join(choice.value for choice in chosen if choice is not None)
        return UsageResult(
            self.done.format(version=result.version, parameters=words),
            True,
            tuple(
                shown(
                    output.label,
                    getattr(result, output.name),
                    is_text=output.is_text,
                    is_secret=output.is_secret,
                )
                for output in self.outputs
            ),
        )

    def build(self, form: Form, subject: KeyInfo) -> Operation[Any]:
        """
        Return the operation of a submitted form.

        Raises:
            InvalidInputError: An input is not in its encoding, too long or invalid.
        """
        tree: Tree = {"key_id": subject.key_id}
        for taken in self.inputs:
            tree[taken.name] = read_bytes(form, taken.name)
        for name in ("scheme", "encoding"):
            if form.get(name):
                tree[name] = form.get(name)
        if form.get(_CONTEXT):
            tree[_CONTEXT] = form.get(_CONTEXT).encode()
        version = form.number_or_none(_VERSION)
        if version is not None:
            tree[_VERSION] = version
        return wire.convert(tree, self.operation_for(subject))


def usages_for(key: KeyInfo) -> Sequence[UsageAction]:
    """Return the test operations of a key."""
    if key.algorithm is None:
        return ()
    row = spec(key.algorithm)
    return [
        action
        for action in USAGES.values()
        if action.usage in key.usages and action.usage in row.usages
    ]


def _row_of(key: KeyInfo) -> AlgorithmSpec:
    # No action fits a key without an algorithm.
    return spec(cast(Algorithm, key.algorithm))


def _fields_of(taken: _Input) -> Iterator[Field]:
    """Yield a text field, its encoding, and a file field."""
    yield Field(name=taken.name, label=taken.label, kind="area", longest=2 * MOST_BYTES)
    yield Field(
        name=f"{taken.name}_form",
        label=f"{taken.label} encoding",
        kind="select",
        is_beside=True,
        options=tuple(Option(form, form, form == taken.form) for form in FORMS),
    )
    yield Field(
        name=f"{taken.name}_file",
        label=f"{taken.label} file",
        kind="file",
        is_beside=True,
    )


def _more(action: UsageAction, row: AlgorithmSpec) -> Sequence[Field]:
    """Return fields of some algorithms only."""
    fields = []
    signs = action.name in {"sign", "verify"}
    if signs and len(row.schemes) > 1:
        fields.append(_choice("scheme", "Scheme", [s.value for s in row.schemes]))
    if signs and row.coordinate_bytes:
        encodings = [encoding.value for encoding in SignatureEncoding]
        fields.append(_choice("encoding", "Encoding", encodings))
    if signs and row.max_context_bytes:
        fields.append(
            Field(
                name=_CONTEXT,
                label="Context",
                hint="Domain separation. Usually empty.",
                longest=255,
            )
        )
    if action.name in {"verify", "verify-mac"}:
        fields.append(
            Field(
                name=_VERSION,
                label="Version",
                kind="number",
                hint="Empty: all versions that may verify.",
            )
        )
    return fields


def _choice(name: str, label: str, values: Sequence[str]) -> Field:
    options = tuple(Option(value, value) for value in values)
    return Field(name=name, label=label, kind="select", options=options)


_MESSAGE: Final = _Input("message", "Message", "text")
_AAD: Final = _Input("aad", "Additional authenticated data (AAD)", "text")

_SECRET: Final = _Output("shared_secret", "Shared secret", is_secret=True)

_ROWS: Final = (
    UsageAction(
        name="sign",
        title="Sign",
        verb="Sign",
        meaning="Sign a message with the current version.",
        usage=KeyUsage.SIGN,
        operation=Sign,
        inputs=(_MESSAGE,),
        done="Signed by version {version} ({parameters}).",
        outputs=(_Output("signature", "Signature"),),
    ),
    UsageAction(
        name="verify",
        title="Verify",
        verb="Verify",
        meaning="Verify a signature over a message.",
        usage=KeyUsage.VERIFY,
        operation=Verify,
        inputs=(_MESSAGE, _Input("signature", "Signature", "base64")),
        done="Valid signature (version {version}).",
    ),
    UsageAction(
        name="encrypt",
        title="Encrypt",
        verb="Encrypt",
        meaning="Encrypt with the current version.",
        usage=KeyUsage.ENCRYPT,
        operation=Encrypt,
        kem_operation=Seal,
        inputs=(_Input("plaintext", "Plaintext", "text"), _AAD),
        done="Encrypted by version {version}.",
        outputs=(_Output("ciphertext", "Ciphertext"),),
    ),
    UsageAction(
        name="decrypt",
        title="Decrypt",
        verb="Decrypt",
        meaning="Decrypt a ciphertext of this key. The ciphertext names its version.",
        usage=KeyUsage.DECRYPT,
        operation=Decrypt,
        kem_operation=Open,
        inputs=(_Input("ciphertext", "Ciphertext", "base64"), _AAD),
        done="Decrypted by version {version}.",
        outputs=(_Output("plaintext", "Plaintext", is_secret=True, is_text=True),),
    ),
    UsageAction(
        name="encapsulate",
        title="Encapsulate",
        verb="Encapsulate",
        meaning="Create a fresh shared secret and its encapsulation for the private "
        "key.",
        usage=KeyUsage.ENCAPSULATE,
        operation=Encapsulate,
        inputs=(),
        done="Fresh shared secret, encapsulated for version {version}.",
        outputs=(
            _Output("ciphertext", "Encapsulation"),
            _SECRET,
        ),
    ),
    UsageAction(
        name="decapsulate",
        title="Decapsulate",
        verb="Decapsulate",
        meaning="Decapsulate and show the shared secret.",
        usage=KeyUsage.DECAPSULATE,
        operation=Decapsulate,
        inputs=(_Input("ciphertext", "Encapsulation", "base64"),),
        done="Decapsulated by version {version}. An altered encapsulation, or one "
        "for another key, yields a different secret and no error.",
        outputs=(_SECRET,),
    ),
    UsageAction(
        name="mac",
        title="Compute MAC",
        verb="Compute MAC",
        meaning="Compute a message authentication code with the current version.",
        usage=KeyUsage.MAC,
        operation=ComputeMac,
        inputs=(_MESSAGE,),
        done="Computed by version {version}.",
        outputs=(_Output("mac", "MAC"),),
    ),
    UsageAction(
        name="verify-mac",
        title="Verify MAC",
        verb="Verify MAC",
        meaning="Verify a message authentication code of full length.",
        usage=KeyUsage.MAC,
        operation=VerifyMac,
        inputs=(_MESSAGE, _Input("mac", "MAC", "base64")),
        done="Valid MAC (version {version}).",
    ),
)

USAGES: Final = {action.name: action for action in _ROWS}
"""Test operations by name, in display order."""


_PATH: Final = f"{KEY}/try/{{trial:{'|'.join(USAGES)}}}"


async def _show(view: View) -> web.StreamResponse:
    """Show the form."""
    key, action = await _found(view)
    return _page(view, key, action, action.form_fields(key))


async def _execute(view: View) -> web.StreamResponse:
    """Execute the form and show the result with its inputs."""
    form = await view.form()
    key, action = await _found(view)
    fields = fill_fields(action.form_fields(key), form)
    try:
        result = await submit(view, action, key, form)
    except ApprovalRequiredError as error:
        asked = asked_approval(error)
        approval_id = asked.approval_id if asked else ""
        return _page(view, key, action, fields, error=error, approval_id=approval_id)
    except (VerificationError, DecryptionError) as error:
        failed = UsageResult(problem_of(error, "").detail, False)
        return _page(view, key, action, fields, outcome=failed, error=error)
    except RejectedFormError as rejected:
        return _page(view, key, action, rejected.fields, error=rejected.error)
    return _page(view, key, action, fields, outcome=action.present(result))


async def _found(view: View) -> tuple[KeyInfo, UsageAction]:
    key = await find_key(view)
    action = USAGES[view.request.match_info["trial"]]
    if action not in usages_for(key):
        raise KeyUsageError(f"This key does not allow the operation: {action.title}.")
    return key, action


def _page(
    view: View,
    key: KeyInfo,
    action: UsageAction,
    fields: Sequence[Field],
    *,
    outcome: UsageResult | None = None,
    error: HSMError | None = None,
    approval_id: str = "",
) -> web.Response:
    if error is not None:
        view.exchange.code = error.code
    return view.render(
        "keys/try.html",
        status=status_of(type(error)) if error else 200,
        key=key,
        action=action,
        actions=usages_for(key),
        fields=fields,
        outcome=outcome,
        error=problem_of(error, "").detail if error and outcome is None else "",
        approval_id=approval_id,
        most=MOST_BYTES // 1024,
        back=path_of(key.key_id),
    )


PAGES: Final = (
    Page("GET", _PATH, _show, "keys.try"),
    Page("POST", _PATH, _execute, "keys.tried"),
)
