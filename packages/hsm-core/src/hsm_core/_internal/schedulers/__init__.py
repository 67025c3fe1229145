# SPDX-License-Identifier: MIT
"""
Recurring work on keys that the HSM asks for itself: rotation, destruction.

Each scheduler walks over all keys that it may concern, a bounded number of them at a
step, and judges by what an authenticated document says; so it may be stopped at any
point, and begins anew after a start. What it does goes through the pipeline, under a
name of its own.
"""

from hsm_core._internal.schedulers.attached import Schedulers
from hsm_core._internal.schedulers.destruction import DestructionScheduler
from hsm_core._internal.schedulers.rotation import RotationScheduler

__all__ = ["DestructionScheduler", "RotationScheduler", "Schedulers"]
