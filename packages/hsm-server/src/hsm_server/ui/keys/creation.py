# SPDX-License-Identifier: MIT
"""Key creation: choose an algorithm by purpose, then enter the metadata."""

from __future__ import annotations

from collections.abc import Sequence
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
from hsm_core.operations import AlgorithmInfo, CreateKey, ListAlgorithms
from hsm_server.ui.actions import Action, FormPages, RejectedFormError, fields_of
from hsm_server.ui.forms import Field, Form, Option
from hsm_server.ui.keys.actions import metadata_fields
from hsm_server.ui.keys.presenters import CATEGORIES, explain, path_of
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
    Family.AES: "AES in a mode and with IVs chosen by programs, over PKCS#11 only.",
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
        "pkcs11",
        "Encrypt over PKCS#11",
        "For programs that choose mode and IV themselves.",
        (Family.AES,),
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


@dataclass(frozen=True, slots=True)
class Choice:
    """An algorithm to choose."""

    info: AlgorithmInfo

    @property
    def spec(self) -> AlgorithmSpec:
        """Its row of the algorithm table."""
        return ALGORITHMS[self.info.algorithm]

    @property
    def explanation(self) -> str:
        """Explanation of its family."""
        return _FAMILIES[self.spec.family]

    @property
    def is_usual(self) -> bool:
        """Whether it is the typical choice of its family."""
        return self.info.algorithm in _USUAL

    @property
    def sizes(self) -> Sequence[str]:
        """Sizes in bytes, such as ``signature 64 bytes``."""
        row = self.spec
        sizes = (
            ("key", row.key_bytes),
            ("public key", row.public_bytes or row.modulus_bits // 8),
            ("signature", row.signature_bytes),
            ("encapsulation", row.ciphertext_bytes),
            ("MAC", row.mac_bytes),
        )
        return [f"{what} {size:,} bytes" for what, size in sizes if size]

    @property
    def warning(self) -> str:
        """A caveat, or empty."""
        row = self.spec
        if row.draft:
            return f"Defined by a draft: {row.draft}. The key stores the revision."
        if row.strength_bits < _ENOUGH_BITS:
            return f"{row.strength_bits} bits of strength: do not use beyond 2030."
        if row.use_cost is Cost.SLOW:
            return "Signing may take up to a second."
        if row.generate_cost is Cost.SLOW:
            return "Key generation may take seconds."
        return ""

    @property
    def hint(self) -> str:
        """Why keys of it can't be created, or empty."""
        if self.info.status == "available":
            return ""
        if self.info.status == "stopped":
            return "Stopped: a self-test failed."
        return self.info.hint or "No provider on this server."


def _fields(choice: Choice) -> Sequence[Field]:
    """Return the fields of a new key of an algorithm."""
    usages = tuple(
        Option(usage.value, usage.value, usage in choice.spec.default_usages)
        for usage in sorted(choice.spec.usages)
    )
    return [
        *metadata_fields(),
        Field(
            name="usages",
            label="Usages",
            kind="boxes",
            options=usages,
            hint="Can't be changed later.",
            is_required=True,
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


CREATE: Final[Action[Choice]] = Action(
    name="new",
    operation=CreateKey,
    verb="Create key",
    done="Key created.",
    target=lambda choice: {"algorithm": choice.info.algorithm.value},
    fields=_fields,
    has_generation=False,
)
"""Creation of a key."""

_PATH: Final = f"{HOME}/keys/new"


async def _show(view: View) -> web.StreamResponse:
    """Show the algorithms, or the form of the chosen one."""
    wanted = view.query.get("algorithm", "")
    if wanted:
        return await _show_form(view, await _choice(view, wanted))
    by_family: dict[Family, list[Choice]] = {}
    for info in (await view.execute(ListAlgorithms())).items:
        choice = Choice(info)
        by_family.setdefault(choice.spec.family, []).append(choice)
    return view.render(
        "keys/choose.html",
        categories=CATEGORIES.items(),
        purposes=_PURPOSES,
        by_family=by_family,
        path=_PATH,
    )


async def _choice(view: View, name: str) -> Choice:
    algorithm = parse_algorithm(name)
    infos = (await view.execute(ListAlgorithms())).items
    return next(Choice(info) for info in infos if info.algorithm is algorithm)


async def _chosen(view: View, form: Form) -> Choice:
    return await _choice(view, form["algorithm"])


async def _show_form(
    view: View, choice: Choice, rejected: RejectedFormError | None = None
) -> web.Response:
    name = choice.info.algorithm.value
    return view.render_form(
        "keys/create.html",
        rejected.error if rejected else None,
        action=CREATE,
        choice=choice,
        category=CATEGORIES[choice.info.category],
        fields=fields_of(CREATE, choice, rejected),
        explained=await explain(view, CreateKey.__name__, algorithm=name),
        path=_PATH,
    )


PAGES: Final = (
    Page("GET", "/keys/new", _show, "keys.new"),
    FormPages(
        "/keys",
        "keys.create",
        find=_chosen,
        show=_show_form,
        target=lambda _, key: path_of(key.key_id),
    ).page(CREATE),
)
