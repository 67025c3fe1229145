# SPDX-License-Identifier: MIT
"""What can be tried out with a key, as data: inputs, operation, and its result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from hsm_core import wire
from hsm_core.algorithms import (
    Algorithm,
    AlgorithmSpec,
    KeyUsage,
    SignatureEncoding,
    spec,
)
from hsm_core.model import KeyInfo, Record
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
from hsm_server.ui.fields import Field, Option
from hsm_server.ui.forms import Form
from hsm_server.ui.keys.outcomes import (
    Tried,
    say_ciphertext,
    say_encapsulation,
    say_mac,
    say_plaintext,
    say_shared_secret,
    say_signature,
    say_verified,
)
from hsm_server.ui.keys.payloads import FORMS, MOST_BYTES, given_bytes

_VERSION: Final = "version"
_CONTEXT: Final = "context"


@dataclass(frozen=True, slots=True)
class _Input:
    """
    Bytes that an operation takes.

    Attributes:
        name: Of the operation's field.
        label: What they are.
        form: How they are usually written, one of `FORMS`.
    """

    name: str
    label: str
    form: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """
    One thing to try out with a key.

    Attributes:
        name: In its path.
        usage: What the key must be made for.
        operation: What it becomes, for a row of the table of algorithms.
        inputs: Fields of the operation that are bytes.
        present: Shows the result.
    """

    name: str
    title: str
    verb: str
    meaning: str
    usage: KeyUsage
    operation: Callable[[AlgorithmSpec], type[Operation[Any]]]
    inputs: Sequence[_Input]
    present: Callable[[Any], Tried]


def fitting(key: KeyInfo) -> Sequence[Trial]:
    """Return what can be tried out with a key."""
    if key.algorithm is None:
        return ()
    row = spec(key.algorithm)
    return [
        trial
        for trial in TRIALS.values()
        if trial.usage in key.usages and trial.usage in row.usages
    ]


def inputs_of(trial: Trial, key: KeyInfo) -> Sequence[Field]:
    """Return what a trial asks for."""
    fields = [field for taken in trial.inputs for field in _fields_of(taken)]
    return [*fields, *_more(trial, _row_of(key))]


def _row_of(key: KeyInfo) -> AlgorithmSpec:
    # Nothing fits a key without an algorithm.
    return spec(cast(Algorithm, key.algorithm))


def _fields_of(taken: _Input) -> Iterator[Field]:
    """Give a field for what is typed, one for how it is written, and one for a file."""
    yield Field(name=taken.name, label=taken.label, kind="area", longest=2 * MOST_BYTES)
    yield Field(
        name=f"{taken.name}_form",
        label=f"{taken.label}, written as",
        kind="select",
        is_beside=True,
        options=tuple(Option(form, form, form == taken.form) for form in FORMS),
    )
    yield Field(
        name=f"{taken.name}_file",
        label=f"{taken.label}, from a file",
        kind="file",
        is_beside=True,
    )


def _more(trial: Trial, row: AlgorithmSpec) -> Sequence[Field]:
    """Return choices that some algorithms have."""
    fields = []
    signs = trial.name in {"sign", "verify"}
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
                hint="Separates the uses of a key; usually empty.",
                longest=255,
            )
        )
    if trial.name in {"verify", "verify-mac"}:
        fields.append(
            Field(
                name=_VERSION,
                label="Version",
                kind="number",
                hint="Empty tries every version that may verify.",
            )
        )
    return fields


def _choice(name: str, label: str, values: Sequence[str]) -> Field:
    options = tuple(Option(value, value) for value in values)
    return Field(name=name, label=label, kind="select", options=options)


def operation_of(trial: Trial, key: KeyInfo, form: Form) -> Operation[Record]:
    """
    Return the operation that a form asks for.

    Raises:
        InvalidInputError: An input is not written as it is said, is too long, or
            breaks a rule.
    """
    tree: dict[str, Any] = {"key_id": key.key_id}
    for taken in trial.inputs:
        tree[taken.name] = given_bytes(form, taken.name)
    for name in ("scheme", "encoding"):
        if form.get(name):
            tree[name] = form.get(name)
    if form.get(_CONTEXT):
        tree[_CONTEXT] = form.get(_CONTEXT).encode()
    version = form.number_or_none(_VERSION)
    if version is not None:
        tree[_VERSION] = version
    operation: Operation[Record] = wire.convert(tree, trial.operation(_row_of(key)))
    return operation


_MESSAGE: Final = _Input("message", "Message", "text")
_AAD: Final = _Input("aad", "Additional data, authenticated only", "text")

_ROWS: Final = (
    Trial(
        name="sign",
        title="Sign",
        verb="Sign",
        meaning="Signs a message with the current version.",
        usage=KeyUsage.SIGN,
        operation=lambda _: Sign,
        inputs=(_MESSAGE,),
        present=say_signature,
    ),
    Trial(
        name="verify",
        title="Verify",
        verb="Verify",
        meaning="Checks a signature over a message.",
        usage=KeyUsage.VERIFY,
        operation=lambda _: Verify,
        inputs=(_MESSAGE, _Input("signature", "Signature", "base64")),
        present=say_verified,
    ),
    Trial(
        name="encrypt",
        title="Encrypt",
        verb="Encrypt",
        meaning="Encrypts with the current version.",
        usage=KeyUsage.ENCRYPT,
        operation=lambda row: Seal if row.is_kem else Encrypt,
        inputs=(_Input("plaintext", "Plaintext", "text"), _AAD),
        present=say_ciphertext,
    ),
    Trial(
        name="decrypt",
        title="Decrypt",
        verb="Decrypt",
        meaning="Decrypts what this key has encrypted; the ciphertext names its "
        "version.",
        usage=KeyUsage.DECRYPT,
        operation=lambda row: Open if row.is_kem else Decrypt,
        inputs=(_Input("ciphertext", "Ciphertext", "base64"), _AAD),
        present=say_plaintext,
    ),
    Trial(
        name="encapsulate",
        title="Encapsulate",
        verb="Encapsulate",
        meaning="Makes a fresh shared secret, and what the holder of the private key "
        "opens to get it.",
        usage=KeyUsage.ENCAPSULATE,
        operation=lambda _: Encapsulate,
        inputs=(),
        present=say_encapsulation,
    ),
    Trial(
        name="decapsulate",
        title="Decapsulate",
        verb="Decapsulate",
        meaning="Opens an encapsulation and shows the shared secret.",
        usage=KeyUsage.DECAPSULATE,
        operation=lambda _: Decapsulate,
        inputs=(_Input("ciphertext", "Encapsulation", "base64"),),
        present=say_shared_secret,
    ),
    Trial(
        name="mac",
        title="Authenticate",
        verb="Compute the code",
        meaning="Computes a message authentication code with the current version.",
        usage=KeyUsage.MAC,
        operation=lambda _: ComputeMac,
        inputs=(_MESSAGE,),
        present=say_mac,
    ),
    Trial(
        name="verify-mac",
        title="Check a code",
        verb="Check",
        meaning="Checks a message authentication code of full length.",
        usage=KeyUsage.MAC,
        operation=lambda _: VerifyMac,
        inputs=(_MESSAGE, _Input("mac", "Code", "base64")),
        present=say_verified,
    ),
)

TRIALS: Final = {trial.name: trial for trial in _ROWS}
"""Every trial by its name, in the order in which they are shown."""
