# SPDX-License-Identifier: MIT
"""All targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from tests.fuzzing import (
    answers,
    key_forms,
    local_interfaces,
    pkcs11_calls,
    processes,
    requests,
    setting_files,
    stored_forms,
    tls_files,
    tokens,
    trails,
)
from tests.fuzzing.target import Target

_SUBJECTS: Final[tuple[Callable[[], list[Target]], ...]] = (
    stored_forms.targets,
    trails.targets,
    key_forms.targets,
    setting_files.targets,
    tokens.targets,
    tls_files.targets,
    processes.targets,
    requests.targets,
    answers.targets,
    local_interfaces.targets,
    pkcs11_calls.targets,
)


def all_targets() -> Mapping[str, Target]:
    """Return every target by its name; keys and certificates in it are made anew."""
    targets = [target for subject in _SUBJECTS for target in subject()]
    found = {target.name: target for target in targets}
    assert len(found) == len(targets)
    return found
