# SPDX-License-Identifier: MIT
"""What can be tried out with a key, as data: inputs, operation, and its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hsm_core import wire
from hsm_core.algorithms import AlgorithmSpec, KeyUsage, SignatureEncoding, spec
from hsm_core.model import KeyInfo, Record
from hsm_core.operations import (
    Ciphertext,
    ComputeMac,
    Decapsulate,
    Decrypt,
    Encapsulate,
    Encapsulation,
    Encrypt,
    Mac,
    Open,
    Operation,
    Plaintext,
    Seal,
    SharedSecret,
    Sign,
    Signature,
    Verified,
    Verify,
    VerifyMac,
)
from hsm_server.ui.forms import Form
from hsm_server.ui.keys.fields import Field, Option, number
from hsm_server.ui.keys.payloads import FORMS, MOST_BYTES, Shown, given_bytes, shown

__all__ = ["TRIALS", "Trial", "Tried", "fitting", "inputs_of", "operation_of", "tried"]

_USAGES: Final = KeyUsage
_VERSION: Final = "version"
_CONTEXT: Final = "context"


@dataclass(frozen=True, slots=True)
class Tried:
    """
    What a trial has given.

    Attributes:
        sentence: What happened.
        is_good: Whether that is good news.
        parts: Bytes that came out.
    """

    sentence: str
    is_good: bool
    parts: tuple[Shown, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """
    One thing to try out with a key.

    Attributes:
        name: In its path.
        usage: What the key must be made for.
        operation: What it becomes, for a row of the table of algorithms.
        inputs: Fields of the operation that are bytes, with their labels.
        present: Shows the result.
    """

    name: str
    title: str
    verb: str
    meaning: str
    usage: KeyUsage
    operation: Callable[[AlgorithmSpec], type[Operation[Any]]]
    inputs: Sequence[tuple[str, str, str]]
    present: Callable[[Any], Tried]


def fitting(key: KeyInfo) -> Sequence[Trial]:
    """Return what can be tried out with a key."""
    if key.algorithm is None:
        return ()
    row = spec(key.algorithm)
    return [
        trial
        for trial in TRIALS.values()
        if trial.usage in key.usages and _serves(trial, row)
    ]


def _serves(trial: Trial, row: AlgorithmSpec) -> bool:
    return trial.usage in row.usages


def inputs_of(trial: Trial, key: KeyInfo) -> Sequence[Field]:
    """Return what a trial asks for; each input has a field for its form beside it."""
    fields: list[Field] = []
    for name, label, form in trial.inputs:
        fields.append(
            Field(name=name, label=label, kind="area", longest=2 * MOST_BYTES)
        )
        fields.append(_form_field(name, label, form))
        fields.append(
            Field(
                name=f"{name}_file",
                label=f"{label}, from a file",
                kind="file",
                is_beside=True,
            )
        )
    return [*fields, *_more(trial, spec(_algorithm(key)))]


def _algorithm(key: KeyInfo) -> Any:
    return key.algorithm


def _form_field(name: str, label: str, usual: str) -> Field:
    return Field(
        name=f"{name}_form",
        label=f"{label}, written as",
        kind="select",
        is_beside=True,
        options=tuple(Option(form, form, form == usual) for form in FORMS),
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
    for name, _, _ in trial.inputs:
        tree[name] = given_bytes(form, name)
    for name in ("scheme", "encoding"):
        if form.get(name):
            tree[name] = form.get(name)
    if form.get(_CONTEXT):
        tree[_CONTEXT] = form.get(_CONTEXT).encode()
    if _VERSION in form and (version := number(form, _VERSION)) is not None:
        tree[_VERSION] = version
    operation: Operation[Record] = wire.convert(
        tree, trial.operation(spec(_algorithm(key)))
    )
    return operation


def tried(trial: Trial, result: Record) -> Tried:
    """Return a result as a page shows it."""
    return trial.present(result)


def _seals(row: AlgorithmSpec) -> bool:
    return row.is_kem


def _signature(result: Signature) -> Tried:
    said = [result.scheme.value]
    if result.hash is not None:
        said.append(result.hash.value)
    if result.encoding is not None:
        said.append(result.encoding.value)
    return Tried(
        f"Version {result.version} has signed it ({', '.join(said)}).",
        True,
        (shown("Signature", result.signature),),
    )


def _verified(result: Verified) -> Tried:
    return Tried(f"It is good: version {result.version} has made it.", True)


def _ciphertext(result: Ciphertext) -> Tried:
    return Tried(
        f"Version {result.version} has encrypted it.",
        True,
        (shown("Ciphertext", result.ciphertext),),
    )


def _plaintext(result: Plaintext) -> Tried:
    return Tried(
        f"Version {result.version} has decrypted it.",
        True,
        (shown("Plaintext", result.plaintext, is_text=True, is_secret=True),),
    )


def _encapsulation(result: Encapsulation) -> Tried:
    return Tried(
        f"A fresh shared secret, encapsulated for version {result.version}.",
        True,
        (
            shown("Encapsulation", result.ciphertext),
            shown("Shared secret", result.shared_secret, is_secret=True),
        ),
    )


def _shared_secret(result: SharedSecret) -> Tried:
    return Tried(
        f"Version {result.version} has opened it. What was made for another key, or "
        "was changed, gives another secret and no error.",
        True,
        (shown("Shared secret", result.shared_secret, is_secret=True),),
    )


def _mac(result: Mac) -> Tried:
    return Tried(
        f"Version {result.version} has computed it.", True, (shown("Code", result.mac),)
    )


_MESSAGE: Final = ("message", "Message", "text")
_AAD: Final = ("aad", "Additional data, authenticated only", "text")

_ROWS: Final = (
    Trial(
        name="sign",
        title="Sign",
        verb="Sign",
        meaning="Signs a message with the current version.",
        usage=_USAGES.SIGN,
        operation=lambda _: Sign,
        inputs=(_MESSAGE,),
        present=_signature,
    ),
    Trial(
        name="verify",
        title="Verify",
        verb="Verify",
        meaning="Checks a signature over a message.",
        usage=_USAGES.VERIFY,
        operation=lambda _: Verify,
        inputs=(_MESSAGE, ("signature", "Signature", "base64")),
        present=_verified,
    ),
    Trial(
        name="encrypt",
        title="Encrypt",
        verb="Encrypt",
        meaning="Encrypts with the current version.",
        usage=_USAGES.ENCRYPT,
        operation=lambda row: Seal if _seals(row) else Encrypt,
        inputs=(("plaintext", "Plaintext", "text"), _AAD),
        present=_ciphertext,
    ),
    Trial(
        name="decrypt",
        title="Decrypt",
        verb="Decrypt",
        meaning="Decrypts what this key has encrypted; the ciphertext names its "
        "version.",
        usage=_USAGES.DECRYPT,
        operation=lambda row: Open if _seals(row) else Decrypt,
        inputs=(("ciphertext", "Ciphertext", "base64"), _AAD),
        present=_plaintext,
    ),
    Trial(
        name="encapsulate",
        title="Encapsulate",
        verb="Encapsulate",
        meaning="Makes a fresh shared secret, and what the holder of the private key "
        "opens to get it.",
        usage=_USAGES.ENCAPSULATE,
        operation=lambda _: Encapsulate,
        inputs=(),
        present=_encapsulation,
    ),
    Trial(
        name="decapsulate",
        title="Decapsulate",
        verb="Decapsulate",
        meaning="Opens an encapsulation and shows the shared secret.",
        usage=_USAGES.DECAPSULATE,
        operation=lambda _: Decapsulate,
        inputs=(("ciphertext", "Encapsulation", "base64"),),
        present=_shared_secret,
    ),
    Trial(
        name="mac",
        title="Authenticate",
        verb="Compute the code",
        meaning="Computes a message authentication code with the current version.",
        usage=_USAGES.MAC,
        operation=lambda _: ComputeMac,
        inputs=(_MESSAGE,),
        present=_mac,
    ),
    Trial(
        name="verify-mac",
        title="Check a code",
        verb="Check",
        meaning="Checks a message authentication code of full length.",
        usage=_USAGES.MAC,
        operation=lambda _: VerifyMac,
        inputs=(_MESSAGE, ("mac", "Code", "base64")),
        present=_verified,
    ),
)

TRIALS: Final = {trial.name: trial for trial in _ROWS}
"""Every trial by its name, in the order in which they are shown."""
