# SPDX-License-Identifier: MIT
"""Test operations on a key: inputs, operation and result."""

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
    TrialResult,
    show_ciphertext,
    show_encapsulation,
    show_mac,
    show_plaintext,
    show_shared_secret,
    show_signature,
    show_verified,
    show_verified_mac,
)
from hsm_server.ui.keys.payloads import FORMS, MOST_BYTES, read_bytes

_VERSION: Final = "version"
_CONTEXT: Final = "context"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """
    A test operation on a key.

    Attributes:
        name: Name in the path.
        usage: Usage that the key must have.
        operation: Operation that it executes, by algorithm.
        inputs: Fields of the operation that are bytes.
        present: Presents the result.
    """

    name: str
    title: str
    verb: str
    meaning: str
    usage: KeyUsage
    operation: Callable[[AlgorithmSpec], type[Operation[Any]]]
    inputs: Sequence[_Input]
    present: Callable[[Any], TrialResult]


def trials_for(key: KeyInfo) -> Sequence[Trial]:
    """Return the test operations of a key."""
    if key.algorithm is None:
        return ()
    row = spec(key.algorithm)
    return [
        trial
        for trial in TRIALS.values()
        if trial.usage in key.usages and trial.usage in row.usages
    ]


def trial_fields(trial: Trial, key: KeyInfo) -> Sequence[Field]:
    """Return the fields of a test's form."""
    fields = [field for taken in trial.inputs for field in _fields_of(taken)]
    return [*fields, *_more(trial, _row_of(key))]


def _row_of(key: KeyInfo) -> AlgorithmSpec:
    # Nothing fits a key without an algorithm.
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


def _more(trial: Trial, row: AlgorithmSpec) -> Sequence[Field]:
    """Return fields of some algorithms only."""
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
                hint="Domain separation. Usually empty.",
                longest=255,
            )
        )
    if trial.name in {"verify", "verify-mac"}:
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


def build_operation(trial: Trial, key: KeyInfo, form: Form) -> Operation[Record]:
    """
    Return the operation of a submitted form.

    Raises:
        InvalidInputError: An input is not in its encoding, too long or invalid.
    """
    tree: dict[str, Any] = {"key_id": key.key_id}
    for taken in trial.inputs:
        tree[taken.name] = read_bytes(form, taken.name)
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
_AAD: Final = _Input("aad", "Additional authenticated data (AAD)", "text")

_ROWS: Final = (
    Trial(
        name="sign",
        title="Sign",
        verb="Sign",
        meaning="Sign a message with the current version.",
        usage=KeyUsage.SIGN,
        operation=lambda _: Sign,
        inputs=(_MESSAGE,),
        present=show_signature,
    ),
    Trial(
        name="verify",
        title="Verify",
        verb="Verify",
        meaning="Verify a signature over a message.",
        usage=KeyUsage.VERIFY,
        operation=lambda _: Verify,
        inputs=(_MESSAGE, _Input("signature", "Signature", "base64")),
        present=show_verified,
    ),
    Trial(
        name="encrypt",
        title="Encrypt",
        verb="Encrypt",
        meaning="Encrypt with the current version.",
        usage=KeyUsage.ENCRYPT,
        operation=lambda row: Seal if row.is_kem else Encrypt,
        inputs=(_Input("plaintext", "Plaintext", "text"), _AAD),
        present=show_ciphertext,
    ),
    Trial(
        name="decrypt",
        title="Decrypt",
        verb="Decrypt",
        meaning="Decrypt a ciphertext of this key. The ciphertext names its version.",
        usage=KeyUsage.DECRYPT,
        operation=lambda row: Open if row.is_kem else Decrypt,
        inputs=(_Input("ciphertext", "Ciphertext", "base64"), _AAD),
        present=show_plaintext,
    ),
    Trial(
        name="encapsulate",
        title="Encapsulate",
        verb="Encapsulate",
        meaning="Create a fresh shared secret and its encapsulation for the private "
        "key.",
        usage=KeyUsage.ENCAPSULATE,
        operation=lambda _: Encapsulate,
        inputs=(),
        present=show_encapsulation,
    ),
    Trial(
        name="decapsulate",
        title="Decapsulate",
        verb="Decapsulate",
        meaning="Decapsulate and show the shared secret.",
        usage=KeyUsage.DECAPSULATE,
        operation=lambda _: Decapsulate,
        inputs=(_Input("ciphertext", "Encapsulation", "base64"),),
        present=show_shared_secret,
    ),
    Trial(
        name="mac",
        title="Compute MAC",
        verb="Compute MAC",
        meaning="Compute a message authentication code with the current version.",
        usage=KeyUsage.MAC,
        operation=lambda _: ComputeMac,
        inputs=(_MESSAGE,),
        present=show_mac,
    ),
    Trial(
        name="verify-mac",
        title="Verify MAC",
        verb="Verify MAC",
        meaning="Verify a message authentication code of full length.",
        usage=KeyUsage.MAC,
        operation=lambda _: VerifyMac,
        inputs=(_MESSAGE, _Input("mac", "MAC", "base64")),
        present=show_verified_mac,
    ),
)

TRIALS: Final = {trial.name: trial for trial in _ROWS}
"""Test operations by name, in display order."""
