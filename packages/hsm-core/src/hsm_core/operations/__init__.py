# SPDX-License-Identifier: MIT
"""
Every operation of an HSM, with its result: the only list of what an HSM can do.

A request is a value. ``Sign(key_id=…, message=…)`` is written down the same way in
a program, in a REST body, in an IPC frame and (as a digest) in the trail.

Wherever a ``key_id`` is asked for, the unique name of a key is accepted too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias, Union

from hsm_core.operations import (
    approvals,
    audit,
    certificates,
    cluster,
    encryption,
    keys,
    policy,
    raw,
    retention,
    service,
    signing,
)
from hsm_core.operations.approvals import *
from hsm_core.operations.audit import *
from hsm_core.operations.base import (
    Effect,
    ItemError,
    KeyReference,
    Operation,
    Route,
    Verified,
    VerifiedBatch,
    VerifiedItem,
    result_type,
)
from hsm_core.operations.certificates import *
from hsm_core.operations.cluster import *
from hsm_core.operations.encryption import *
from hsm_core.operations.keys import *
from hsm_core.operations.policy import *
from hsm_core.operations.raw import *
from hsm_core.operations.retention import *
from hsm_core.operations.service import *
from hsm_core.operations.signing import *

__all__ = [
    "LOCAL_OPERATIONS",
    "OPERATIONS",
    "AnyOperation",
    "Effect",
    "ItemError",
    "KeyReference",
    "Operation",
    "Route",
    "Verified",
    "VerifiedBatch",
    "VerifiedItem",
    "result_type",
]
__all__ += keys.__all__
__all__ += certificates.__all__
__all__ += signing.__all__
__all__ += encryption.__all__
__all__ += raw.__all__
__all__ += service.__all__
__all__ += cluster.__all__
__all__ += audit.__all__
__all__ += policy.__all__
__all__ += approvals.__all__
__all__ += retention.__all__

_SUBJECTS: Final = (
    keys,
    certificates,
    signing,
    encryption,
    raw,
    service,
    cluster,
    audit,
    policy,
    approvals,
    retention,
)

OPERATIONS: Final[tuple[type[Operation[Any]], ...]] = tuple(
    kind
    for subject in _SUBJECTS
    for kind in vars(subject).values()
    if isinstance(kind, type) and issubclass(kind, Operation) and "route" in vars(kind)
)
"""Operations with a REST route, in the order of the reference. :meta hide-value:"""

LOCAL_OPERATIONS: Final[tuple[type[Operation[Any]], ...]] = (
    raw.RawEncrypt,
    raw.RawDecrypt,
)
"""Operations without a REST route, for interfaces over an embedded HSM."""

if TYPE_CHECKING:
    AnyOperation: TypeAlias = Operation[Any]
else:
    AnyOperation = Union[OPERATIONS]  # noqa: UP007 (the members are computed)
"""
Tagged union of all operations.

:meta hide-value:
"""
