# SPDX-License-Identifier: MIT
"""Key creation pages: choose an algorithm, then enter the metadata."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from aiohttp import web

from hsm_core import wire
from hsm_core.algorithms import parse_algorithm
from hsm_core.errors import HSMError, InvalidInputError, NameTakenError
from hsm_core.operations import AlgorithmInfo, CreateKey, ListAlgorithms
from hsm_server.ui.fields import Field, Option, fill_fields, mark_error, read_tags
from hsm_server.ui.forms import Form
from hsm_server.ui.keys.choices import CATEGORIES, Choice, choice_of, purposes
from hsm_server.ui.keys.explaining import explain_for_caller
from hsm_server.ui.keys.presenters import title_of
from hsm_server.ui.keys.subjects import path_of
from hsm_server.ui.origin import HOME
from hsm_server.ui.page import Page
from hsm_server.ui.view import View

_PATH: Final = f"{HOME}/keys/new"


def creation_fields(choice: Choice) -> Sequence[Field]:
    """Return the fields of a new key of an algorithm."""
    usages = tuple(
        Option(usage, usage, usage in choice.default_usages) for usage in choice.usages
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


def build_creation(form: Form) -> CreateKey:
    """
    Return the operation of a submitted form.

    Raises:
        InvalidInputError: A field is invalid.
    """
    usages = list(form.all("usages"))
    if not usages:
        # An empty list would select the default usages.
        raise InvalidInputError("Select at least one usage.", field="usages")
    tree: dict[str, Any] = {
        "algorithm": form["algorithm"],
        "name": form.get("name").strip(),
        "description": form.get("description"),
        "owner": form.get("owner").strip(),
        "tags": read_tags(form, "tags"),
        "usages": usages,
        "exportable": "exportable" in form,
        "staged": "staged" in form,
    }
    return wire.convert(tree, CreateKey)


async def ask(view: View) -> web.StreamResponse:
    """Show the algorithms, or the form of the chosen one."""
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
    return await _form(view, choice, creation_fields(choice))


async def do(view: View) -> web.StreamResponse:
    """Create the key of a submitted form."""
    form = await view.form()
    try:
        key = await view.execute(
            build_creation(form), idempotency_key=form.operation_id
        )
    except (InvalidInputError, NameTakenError) as error:
        infos = (await view.execute(ListAlgorithms())).items
        choice = choice_of(_info(infos, form["algorithm"]))
        fields = mark_error(fill_fields(creation_fields(choice), form), error)
        return await _form(view, choice, fields, error)
    return view.see_other(path_of(key.key_id), f"Created {title_of(key)}.")


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
        explained=await explain_for_caller(
            view, CreateKey.__name__, algorithm=choice.algorithm
        ),
        path=_PATH,
    )


PAGES: Final = (
    Page("GET", "/keys/new", ask, "keys.new"),
    Page("POST", "/keys/new", do, "keys.create"),
)
