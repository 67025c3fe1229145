# SPDX-License-Identifier: MIT
"""
Object names of a remote key store.

::

    meta/<name>                 small values, such as the sealed key ring
    keys/<key id>/document      the document of a key, framed
    keys/<key id>/vNNNNNNNN     the sealed blobs of its versions
    aborted/<operation id>      operations that may not commit any more
    uses/<material id>          how often a key's material was used
    leases/<name>               who may write

Objects of any other name are left alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from hsm_core._internal.stores.naming import is_key_id
from hsm_core.model import KeyId

KEYS: Final = "keys/"
ABORTED: Final = "aborted/"
USES: Final = "uses/"
_DOCUMENT: Final = "/document"


def document_name(key_id: KeyId) -> str:
    """Return the name of a key's document."""
    return f"{KEYS}{key_id}{_DOCUMENT}"


def blob_name(key_id: KeyId, version: int) -> str:
    """Return the name of the sealed blob of a version."""
    return f"{KEYS}{key_id}/v{version:08d}"


def meta_name(name: str) -> str:
    """Return the name of a small value."""
    return f"meta/{name}"


def aborted_name(operation_id: str) -> str:
    """Return the name of an abort mark."""
    return ABORTED + operation_id


def uses_name(material_id: str) -> str:
    """Return the name of a use counter."""
    return USES + material_id


def keys_among(names: Iterable[str]) -> set[KeyId]:
    """Return the ids of the keys that have a document among these names."""
    found = set()
    for name in names:
        if name.startswith(KEYS) and name.endswith(_DOCUMENT):
            key_id = name[len(KEYS) : -len(_DOCUMENT)]
            if is_key_id(key_id):
                found.add(KeyId(key_id))
    return found
