# SPDX-License-Identifier: MIT
"""
Built-in rules for post-quantum keys, as data.

A rule names algorithms, and holds for a composite if it names one of its components:
whoever may not make an ML-KEM-1024 key may not make one as half of a hybrid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from hsm_core.algorithms import Algorithm, spec
from hsm_core.model import ApprovalDemand, Role
from hsm_core.settings import PolicyProfile

__all__ = ["LIFE_CYCLE", "PROFILES", "AlgorithmRule"]

_A = Algorithm

LIFE_CYCLE: Final = frozenset(
    {
        "ActivateKey",
        "CreateKey",
        "DestroyKey",
        "ImportKey",
        "ResumeKey",
        "Rollback",
        "RotateKey",
    }
)
"""Operations that these rules are about; use is governed by roles alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlgorithmRule:
    """
    What is asked, besides a role's grant, where an algorithm is of certain ones.

    Attributes:
        name: Recorded in the trail where the rule decided.
        kinds: Operations that it is about.
        algorithms: Algorithms that it is about, alone or as half of a composite.
        roles: Only these may; None asks for no role.
        approvals: Approval demands that must be met first.
    """

    name: str
    kinds: frozenset[str]
    algorithms: frozenset[Algorithm]
    roles: frozenset[Role] | None = None
    approvals: tuple[ApprovalDemand, ...] = ()

    def concerns(self, kind: str, algorithm: Algorithm) -> bool:
        """Return whether the rule is about an operation on a key of an algorithm."""
        named = {algorithm, *spec(algorithm).components}
        return kind in self.kinds and not named.isdisjoint(self.algorithms)

    def as_text(self) -> list[object]:
        """Return the rule in a form that can be hashed."""
        return [
            self.name,
            sorted(self.kinds),
            sorted(self.algorithms),
            None if self.roles is None else sorted(self.roles),
            msgspec.to_builtins(self.approvals),
        ]


_RESTRICTED: Final = frozenset(
    {
        _A.ML_KEM_1024,
        _A.ML_DSA_87,
        _A.SLH_DSA_SHA2_256S,
        _A.SLH_DSA_SHA2_256F,
        _A.SLH_DSA_SHAKE_256S,
        _A.SLH_DSA_SHAKE_256F,
    }
)
_DUAL_CONTROL: Final = _RESTRICTED | {
    _A.ML_KEM_768,
    _A.SLH_DSA_SHA2_192S,
    _A.SLH_DSA_SHA2_192F,
    _A.SLH_DSA_SHAKE_192S,
    _A.SLH_DSA_SHAKE_192F,
}

_ADMINISTRATORS_ONLY: Final = AlgorithmRule(
    name="pqc-restricted",
    kinds=LIFE_CYCLE,
    algorithms=_RESTRICTED,
    roles=frozenset({Role.ADMINISTRATOR}),
)
_TWO_PEOPLE: Final = AlgorithmRule(
    name="pqc-dual-control",
    kinds=LIFE_CYCLE,
    algorithms=_DUAL_CONTROL,
    approvals=(ApprovalDemand(rule="pqc-dual-control"),),
)

PROFILES: Final[dict[PolicyProfile, tuple[AlgorithmRule, ...]]] = {
    PolicyProfile.DEFAULT: (_ADMINISTRATORS_ONLY,),
    PolicyProfile.STRICT: (_ADMINISTRATORS_ONLY, _TWO_PEOPLE),
}
"""The rules of each built-in policy."""
