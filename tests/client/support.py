# SPDX-License-Identifier: MIT
"""Types of the client's tests."""

from collections.abc import Callable
from typing import TypeAlias

from hsm_client import RemoteHSM

Remote: TypeAlias = Callable[..., RemoteHSM]
"""Makes clients of the stub, with other arguments where they are given."""
