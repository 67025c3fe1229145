# SPDX-License-Identifier: MIT
"""What the tests need from outside the Python environment, and how they ask for it."""

import os
import shutil
from pathlib import Path

import pytest

__all__ = [
    "REPOSITORY",
    "require_mounts",
    "require_program",
    "require_service",
    "vectors_folder",
]

REPOSITORY = Path(__file__).resolve().parent.parent
"""Top of the source tree."""


def require_service(name: str, found: object) -> None:
    """
    Skip the running test when something it needs is absent.

    With ``FERROHSM_REQUIRE_SERVICES=1`` in the environment the test fails
    instead, so that a run that must be complete cannot pass by skipping.

    Args:
        name: What is needed, as a reader of the report would call it.

        found: Whatever the search for it gave; its truth value counts.
    """
    if found:
        return
    reason = f"{name} is not available."
    if os.environ.get("FERROHSM_REQUIRE_SERVICES") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def require_mounts(reason: str) -> None:
    """
    Skip the running test where file systems can't be mounted.

    That is the kernel's to allow, and not something to install: a run that must be
    complete says with ``FERROHSM_REQUIRE_MOUNTS=1`` that it is allowed here.

    Args:
        reason: Why they can't be; empty if they can.
    """
    if not reason:
        return
    text = f"File systems can't be mounted here: {reason}."
    if os.environ.get("FERROHSM_REQUIRE_MOUNTS") == "1":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


def require_program(name: str) -> str:
    """
    Return the path of a program on the ``PATH``, or skip the running test.

    Args:
        name: Name of the program, such as ``openssl``.

    Returns:
        Its absolute path.
    """
    path = shutil.which(name)
    require_service(f"The program {name}", path)
    assert path is not None
    return path


def vectors_folder(name: str) -> Path:
    """
    Return one folder of the public test vectors, or skip the running test.

    The vectors are not part of the source tree: ``FERROHSM_VECTORS`` names the
    folder that holds them.

    Args:
        name: Name of the set, such as ``wycheproof``.

    Returns:
        The folder of that set.
    """
    root = os.environ.get("FERROHSM_VECTORS", "")
    folder = Path(root) / name
    require_service(
        f"The vector set {name!r} (FERROHSM_VECTORS={root!r})",
        root and folder.is_dir(),
    )
    return folder
