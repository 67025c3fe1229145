# SPDX-License-Identifier: MIT
"""A short form of the power cuts; ``python -m tests.faults.powercut`` does many."""

import pytest

from tests.faults.powercut import KINDS, run, why_not
from tests.support import require_mounts


@pytest.mark.parametrize("kind", KINDS)
def test_power_cut(kind: str) -> None:
    """
    After the power has failed nothing acknowledged is lost, and nobody has to help.
    """
    require_mounts(why_not())

    assert (1, 0) == run(images=1, seed=7, kind=kind)
