# SPDX-License-Identifier: MIT
"""Catalogue: the operations of all subjects, and their union."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias, Union

import hsm_core.operations.approvals as approvals
import hsm_core.operations.audit as audit
import hsm_core.operations.certificates as certificates
import hsm_core.operations.cluster as cluster
import hsm_core.operations.encryption as encryption
import hsm_core.operations.keys as keys
import hsm_core.operations.policy as policy
import hsm_core.operations.raw as raw
import hsm_core.operations.retention as retention
import hsm_core.operations.service as service
import hsm_core.operations.signing as signing
from hsm_core.operations.approvals import *
from hsm_core.operations.audit import *
from hsm_core.operations.base import Effect as Effect
from hsm_core.operations.base import ItemError as ItemError
from hsm_core.operations.base import KeyReference as KeyReference
from hsm_core.operations.base import Operation as Operation
from hsm_core.operations.base import Route as Route
from hsm_core.operations.base import Verified as Verified
from hsm_core.operations.base import VerifiedBatch as VerifiedBatch
from hsm_core.operations.base import VerifiedItem as VerifiedItem
from hsm_core.operations.base import result_type as result_type
from hsm_core.operations.certificates import *
from hsm_core.operations.cluster import *
from hsm_core.operations.encryption import *
from hsm_core.operations.keys import *
from hsm_core.operations.policy import *
from hsm_core.operations.raw import *
from hsm_core.operations.retention import *
from hsm_core.operations.service import *
from hsm_core.operations.signing import *

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

NAMES: Final = [
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
    *(name for subject in _SUBJECTS for name in subject.__all__),
]
"""
Public names of `hsm_core.operations`.

Not ``__all__``: type checkers would have to know it before the subjects.
"""

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
