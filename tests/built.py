# SPDX-License-Identifier: MIT
"""The wheels of this repository, as they were built: what each of them requires."""

import email
import os
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

DISTS: Final = ("hsm-core", "hsm-client", "hsm-server", "hsm-cli")
"""Names of the distributions; each is built from the folder of packages/ so named."""

WHEELS: Final = Path("dist")
"""Where they lie, seen from the top of the repository."""


def wheel_of(dist: str) -> Path:
    """
    Return the wheel of a distribution.

    Raises:
        ValueError: There is none, or there are several.
    """
    (wheel,) = WHEELS.glob(f"{dist.replace('-', '_')}-*.whl")
    return wheel


def requirements(dist: str, extras: Iterable[str] = ()) -> tuple[list[str], list[str]]:
    """
    Return what a built wheel needs: our own distributions, and everybody else's.

    Those of a required sibling are followed, for it is installed without its own.

    Args:
        dist: Name of a distribution.

        extras: Of its extras, those that are asked for.

    Returns:
        Names, the given one first; and requirements as pip takes them.
    """
    with zipfile.ZipFile(wheel_of(dist)) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    own, foreign = [dist], []
    for text in metadata.get_all("Requires-Dist", []):
        requirement = Requirement(text)
        marker, requirement.marker = requirement.marker, None
        if marker and not any(marker.evaluate({"extra": e}) for e in ("", *extras)):
            continue
        if requirement.name in DISTS:
            more_own, more_foreign = requirements(requirement.name, requirement.extras)
            own += more_own
            foreign += more_foreign
        else:
            foreign.append(str(requirement))
    return list(dict.fromkeys(own)), list(dict.fromkeys(foreign))


def copy_otherwise(source: Path, target: Path) -> None:
    """Copy a source tree, as somebody with another umask does at another time."""
    left_out = shutil.ignore_patterns("__pycache__", "dist")
    shutil.copytree(source, target, ignore=left_out)
    for path in (target, *target.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
        os.utime(path, (1_000_000_000, 1_000_000_000))
