# SPDX-License-Identifier: MIT
"""Making a key: an algorithm is chosen with what it means, then the rest is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from aiohttp import web

from hsm_core import wire
from hsm_core.algorithms import parse_algorithm
from hsm_core.errors import HSMError, InvalidInputError, NameTakenError
from hsm_core.operations import AlgorithmInfo, CreateKey, ListAlgorithms
from hsm_server.ui.fields import Field, Option, filled, marked, tags_of
from hsm_server.ui.forms import Form
from hsm_server.ui.keys.choices import CATEGORIES, Choice, choice_of, purposes
from hsm_server.ui.keys.explaining import explain_for_me
from hsm_server.ui.keys.presenters import title_of
from hsm_server.ui.keys.subjects import path_of
from hsm_server.ui.origin import HOME
from hsm_server.ui.page import Page
from hsm_server.ui.view import View

_PATH: Final = f"{HOME}/keys/new"


def fields_of(choice: Choice) -> Sequence[Field]:
    """Return what is asked for of a key of an algorithm."""
    usages = tuple(
        Option(usage, usage, usage in choice.default_usages) for usage in choice.usages
    )
    return [
        Field(
            name="name",
            label="Name",
            hint="Lower case letters, digits, dots, hyphens and underscores; unique. "
            "A key may go without.",
            longest=64,
        ),
        Field(name="description", label="Description", kind="area", longest=1024),
        Field(
            name="tags",
            label="Tags",
            hint="With blanks or commas between; rules of the policy may go by them.",
        ),
        Field(
            name="owner",
            label="Owner",
            hint="Empty means yourself.",
            longest=128,
        ),
        Field(
            name="usages",
            label="What it may be used for",
            kind="boxes",
            options=usages,
            hint="This can't be changed later.",
        ),
        Field(
            name="exportable",
            label="Export",
            kind="box",
            options=(Option("yes", "It may leave the HSM, wrapped by another key"),),
            hint="This can't be changed later.",
        ),
        Field(
            name="staged",
            label="Stage it",
            kind="box",
            options=(Option("yes", "Stage the first version"),),
            hint="It then shows its public key and serves nothing until it is "
            "activated.",
        ),
    ]


def creation_of(form: Form) -> CreateKey:
    """
    Return the operation that a form asks for.

    Raises:
        InvalidInputError: A field breaks a rule.
    """
    usages = list(form.all("usages"))
    if not usages:
        # To the HSM, none would mean the usual ones.
        raise InvalidInputError("Tick one at least.", field="usages")
    tree: dict[str, Any] = {
        "algorithm": form["algorithm"],
        "name": form.get("name").strip(),
        "description": form.get("description"),
        "owner": form.get("owner").strip(),
        "tags": tags_of(form, "tags"),
        "usages": usages,
        "exportable": "exportable" in form,
        "staged": "staged" in form,
    }
    return wire.convert(tree, CreateKey)


async def ask(view: View) -> web.StreamResponse:
    """Show the algorithms, or what is asked for of the one that was chosen."""
    infos = (await view.execute(ListAlgorithms())).items
    wanted = view.query.get("algorithm", "")
    if not wanted:
        return view.render(
            "keys/choose.html",
            categories=CATEGORIES.items(),
            purposes=purposes(infos),
            path=_PATH,
        )
    choice = choice_of(_info(infos, wanted))
    return await _form(view, choice, fields_of(choice))


async def do(view: View) -> web.StreamResponse:
    """Make the key that a form asks for."""
    form = await view.form()
    try:
        key = await view.execute(creation_of(form), idempotency_key=form.operation_id)
    except (InvalidInputError, NameTakenError) as error:
        infos = (await view.execute(ListAlgorithms())).items
        choice = choice_of(_info(infos, form["algorithm"]))
        fields = marked(filled(fields_of(choice), form), error)
        return await _form(view, choice, fields, error)
    return view.see_other(path_of(key.key_id), f"{title_of(key)} was made.")


def _info(infos: Sequence[AlgorithmInfo], name: str) -> AlgorithmInfo:
    algorithm = parse_algorithm(name)
    return next(info for info in infos if info.algorithm is algorithm)


async def _form(
    view: View, choice: Choice, fields: Sequence[Field], error: HSMError | None = None
) -> web.Response:
    return view.render_form(
        "keys/create.html",
        error,
        choice=choice,
        fields=fields,
        explained=await explain_for_me(
            view, CreateKey.__name__, algorithm=choice.algorithm
        ),
        path=_PATH,
    )


PAGES: Final = (
    Page("GET", "/keys/new", ask, "keys.new"),
    Page("POST", "/keys/new", do, "keys.create"),
)
