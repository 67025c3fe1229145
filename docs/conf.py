# SPDX-License-Identifier: MIT
"""How Sphinx builds the documentation."""

from __future__ import annotations

import re
from typing import Any

project = "FerroHSM"
author = "The FerroHSM contributors"
copyright = author

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]

default_role = "any"
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# The name alone, with its link: the module that defines a type need not be the one that
# it is imported from.
python_use_unqualified_type_names = True

napoleon_numpy_docstring = False
napoleon_custom_sections = [("Standard", "notes_style")]

# Types of other projects, whose inventories would have to be fetched, type variables,
# and what is private.
nitpick_ignore_regex = [
    (
        "py:.*",
        r"(msgspec|cryptography|datetime|os|pathlib|collections|typing|concurrent|_?asyncio)\..*",
    ),
    ("py:.*", r"(dict|tuple|list|frozenset)\[.*"),
    ("py:.*", r"hsm_(core|client)\..*\.(T|P|R|R_co|S|Op|RecordT)"),
    ("py:.*", r"hsm_core\._(internal|policies)\..*"),
    ("py:.*", r"hsm_client\.(aio_remote|remote|transport|waiting)\..*"),
    ("py:.*", r"AnyOperation|ClusterVerifier"),  # their modules are loaded on demand
]

# Quotes and dots, but no dashes: they are flags.
smartquotes_action = "qe"

html_theme = "furo"
html_title = "FerroHSM"
html_static_path = ["_static"]
html_css_files = ["tables.css"]


def _name_defaults(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: Any, returns: Any
) -> tuple[Any, Any]:
    """Write a record that is a default as a call; its repr is no expression."""
    if isinstance(signature, str):
        signature = re.sub(r"<(\w+)>", r"\1()", signature)
    return signature, returns


def setup(app: Any) -> None:
    """Connect what is done to signatures."""
    app.connect("autodoc-process-signature", _name_defaults)
