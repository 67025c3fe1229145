# SPDX-License-Identifier: MIT
"""Key creation: choose an algorithm by purpose, then enter the metadata."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from hsm_core.algorithms import (
    ALGORITHMS,
    Algorithm,
    AlgorithmSpec,
    Cost,
    Family,
    parse_algorithm,
)
from hsm_core.errors import InvalidInputError
from hsm_core.operations import AlgorithmInfo, CreateKey, ListAlgorithms
from hsm_server.ui.actions import Action, RejectedFormError, Tree, fields_of, submit
from hsm_server.ui.forms import Field, Form, Option, read_tags
from hsm_server.ui.keys.policy import explain_for_caller
from hsm_server.ui.keys.presenters import CATEGORIES, path_of
from hsm_server.ui.security import HOME
from hsm_server.ui.view import Page, View

_FAMILIES: Final = {
    Family.AEAD: "Authenticated encryption: detects altered data. The same key "
    "encrypts and decrypts.",
    Family.RSA: "Signatures, encryption of short data and key wrapping. Widely "
    "supported. Large keys, slow to generate.",
    Family.ECDSA: "Short signatures, widely supported.",
    Family.EDDSA: "Short, fast, deterministic signatures without parameters.",
    Family.ECDH: "Key agreement with another party.",
    Family.MAC: "Message authentication with a shared secret key.",
    Family.KEY_WRAP: "Wraps other keys for export and import.",
    Family.KDF: "Derives other keys from this key.",
    Family.ML_KEM: "Key encapsulation and public-key encryption. Quantum-safe.",
    Family.ML_DSA: "Fast signatures of a few kilobytes. Quantum-safe.",
    Family.SLH_DSA: "Hash-based signatures: the most conservative choice, large and "
    "slow. Quantum-safe.",
    Family.COMPOSITE_KEM: "Hybrid of a post-quantum and a traditional KEM: secure "
    "while either is unbroken.",
    Family.COMPOSITE_SIGNATURE: "Hybrid of a post-quantum and a traditional "
    "signature: secure while either is unbroken.",
}

_PURPOSES: Final = (
    (
        "sign",
        "Sign",
        "Others verify your signatures with the public key.",
        (
            *(Family.EDDSA, Family.ECDSA, Family.RSA, Family.ML_DSA),
            *(Family.COMPOSITE_SIGNATURE, Family.SLH_DSA),
        ),
    ),
    (
        "encrypt",
        "Encrypt data",
        "Encrypt and decrypt with a secret key that stays in the HSM.",
        (Family.AEAD,),
    ),
    (
        "encapsulate",
        "Receive secrets",
        "Others encrypt or encapsulate with the public key. Only this HSM decrypts.",
        (Family.ML_KEM, Family.COMPOSITE_KEM),
    ),
    (
        "authenticate",
        "Authenticate messages",
        "Compute and verify message authentication codes with one key.",
        (Family.MAC,),
    ),
    (
        "derive",
        "Derive or agree on keys",
        "Derive further keys from this one.",
        (Family.KDF, Family.ECDH),
    ),
    (
        "wrap",
        "Wrap other keys",
        "Transport keys from one HSM to another.",
        (Family.KEY_WRAP,),
    ),
)

_ENOUGH_BITS: Final = 128
_USUAL: Final = frozenset(
    {
        Algorithm.AES_256_GCM,
        Algorithm.ED25519,
        Algorithm.ML_DSA_65,
        Algorithm.MLDSA65_ED25519_SHA512,
        Algorithm.ML_KEM_768,
        Algorithm.MLKEM768_X25519_SHA3_256,
        Algorithm.HMAC_SHA_256,
        Algorithm.HKDF_SHA_256,
        Algorithm.AES_256_KW,
    }
)
"""Typical choice of each family."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """
    An algorithm to choose.

    Attributes:
        sizes: Sizes in bytes, such as ``signature 64 bytes``.
        warning: A caveat, or empty.
        hint: Why it is not available, or empty.
    """

    info: AlgorithmInfo
    spec: AlgorithmSpec
    explanation: str
    sizes: tuple[str, ...]
    warning: str
    hint: str

    @property
    def is_available(self) -> bool:
        """Whether keys of the algorithm can be created."""
        return self.info.status == "available"

    @property
    def is_usual(self) -> bool:
        """Whether it is the typical choice of its family."""
        return self.info.algorithm in _USUAL


@dataclass(frozen=True, slots=True)
class FamilyChoices:
    """The algorithms of one family."""

    family: str
    explanation: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True)
class KeyPurpose:
    """A purpose of keys, and its families of algorithms."""

    name: str
    title: str
    explanation: str
    families: tuple[FamilyChoices, ...]


def purposes(infos: Iterable[AlgorithmInfo]) -> Sequence[KeyPurpose]:
    """Return all algorithms by main purpose."""
    by_family: dict[str, list[Choice]] = {}
    for info in infos:
        by_family.setdefault(info.family, []).append(choice_of(info))
    return [
        KeyPurpose(
            name,
            title,
            explanation,
            tuple(
                FamilyChoices(
                    family.value, _FAMILIES[family], tuple(by_family[family.value])
                )
                for family in families
                if family.value in by_family
            ),
        )
        for name, title, explanation, families in _PURPOSES
    ]


def choice_of(info: AlgorithmInfo) -> Choice:
    """Return an algorithm as a choice."""
    row = ALGORITHMS[info.algorithm]
    return Choice(
        info=info,
        spec=row,
        explanation=_FAMILIES[row.family],
        sizes=tuple(_sizes(row)),
        warning=_warning(row),
        hint=_hint(info),
    )


def _sizes(row: AlgorithmSpec) -> Iterable[str]:
    modulus = row.modulus_bits // 8
    sizes = (
        ("key", row.key_bytes),
        ("public key", row.public_bytes or modulus),
        ("signature", row.signature_bytes),
        ("encapsulation", row.ciphertext_bytes),
        ("MAC", row.mac_bytes),
    )
    return (f"{what} {size:,} bytes" for what, size in sizes if size)


def _warning(row: AlgorithmSpec) -> str:
    if row.draft:
        return f"Defined by a draft: {row.draft}. The key stores the revision."
    if row.strength_bits < _ENOUGH_BITS:
        return f"{row.strength_bits} bits of strength: do not use beyond 2030."
    if row.use_cost is Cost.SLOW:
        return "Signing may take up to a second."
    if row.generate_cost is Cost.SLOW:
        return "Key generation may take seconds."
    return ""


def _hint(info: AlgorithmInfo) -> str:
    if info.status == "available":
        return ""
    if info.status == "stopped":
        return "Stopped: a self-test failed."
    return info.hint or "No provider on this server."


def _fields(choice: Choice) -> Sequence[Field]:
    """Return the fields of a new key of an algorithm."""
    spec = choice.spec
    usages = tuple(
        Option(usage.value, usage.value, usage in spec.default_usages)
        for usage in sorted(spec.usages)
    )
    return [
        Field(
            name="name",
            label="Name",
            hint="Optional. Lowercase letters, digits, dots, hyphens and underscores. "
            "Unique.",
            longest=64,
        ),
        Field(name="description", label="Description", kind="area", longest=1024),
        Field(
            name="tags",
            label="Tags",
            hint="Separated by spaces or commas. Policy rules may depend on them.",
        ),
        Field(
            name="owner",
            label="Owner",
            hint="Default: you.",
            longest=128,
        ),
        Field(
            name="usages",
            label="Usages",
            kind="boxes",
            options=usages,
            hint="Can't be changed later.",
        ),
        Field(
            name="exportable",
            label="Export",
            kind="box",
            options=(Option("yes", "Allow export, wrapped by another key"),),
            hint="Can't be changed later.",
        ),
        Field(
            name="staged",
            label="Staging",
            kind="box",
            options=(Option("yes", "Stage the first version"),),
            hint="Until you activate it, only its public key is available.",
        ),
    ]


def _read(form: Form, choice: Choice) -> Tree:
    """Return the fields of a creation; an empty list would mean the default usages."""
    usages = list(form.all("usages"))
    if not usages:
        raise InvalidInputError("Select at least one usage.", field="usages")
    return {
        "algorithm": choice.info.algorithm.value,
        "name": form.get("name").strip(),
        "description": form.get("description"),
        "owner": form.get("owner").strip(),
        "tags": read_tags(form, "tags"),
        "usages": usages,
        "exportable": "exportable" in form,
        "staged": "staged" in form,
    }


CREATE: Final[Action[Choice]] = Action(
    name="new",
    operation=CreateKey,
    verb="Create key",
    done="Key created.",
    fields=_fields,
    read=_read,
    has_generation=False,
)
"""Creation of a key."""

_PATH: Final = f"{HOME}/keys/new"


async def _show(view: View) -> web.StreamResponse:
    """Show the algorithms, or the form of the chosen one."""
    infos = (await view.execute(ListAlgorithms())).items
    wanted = view.query.get("algorithm", "")
    if wanted:
        return await _form(view, choice_of(_info(infos, wanted)))
    return view.render(
        "keys/choose.html",
        categories=CATEGORIES.items(),
        purposes=purposes(infos),
        path=_PATH,
    )


async def _create(view: View) -> web.StreamResponse:
    """Create the key of a submitted form."""
    form = await view.form()
    infos = (await view.execute(ListAlgorithms())).items
    choice = choice_of(_info(infos, form["algorithm"]))
    try:
        key = await submit(view, CREATE, choice, form)
    except RejectedFormError as rejected:
        return await _form(view, choice, rejected)
    return view.see_other(path_of(key.key_id), CREATE.done)


def _info(infos: Sequence[AlgorithmInfo], name: str) -> AlgorithmInfo:
    algorithm = parse_algorithm(name)
    return next(info for info in infos if info.algorithm is algorithm)


async def _form(
    view: View, choice: Choice, rejected: RejectedFormError | None = None
) -> web.Response:
    return view.render_form(
        "keys/create.html",
        rejected.error if rejected else None,
        action=CREATE,
        choice=choice,
        category=CATEGORIES[choice.info.category],
        fields=fields_of(CREATE, choice, rejected),
        explained=await explain_for_caller(
            view, CreateKey.__name__, algorithm=choice.info.algorithm.value
        ),
        path=_PATH,
    )


PAGES: Final = (
    Page("GET", "/keys/new", _show, "keys.new"),
    Page("POST", "/keys/new", _create, "keys.create"),
)
