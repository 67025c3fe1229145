# SPDX-License-Identifier: MIT
"""
Import every module of an installed package, given by name.

Run where nothing is installed but the package and what it requires: a module that needs
anything else, or warns when it is loaded, is a fault. Those of an extra may miss it.
"""

import pkgutil
import sys
from typing import Final

OPTIONAL: Final = {
    "hsm_core": frozenset(
        {"boto3", "botocore", "oqs", "pqcrypto", "psycopg", "pytest", "sqlite_utils"}
    ),
    "hsm_client": frozenset({"aiohttp", "yarl"}),
    "hsm_server": frozenset({"opentelemetry"}),
    "hsm_cli": frozenset({"bcrypt"}),
}
"""What the extras of each package bring, as it is imported, and what tests have."""


def import_all(package: str, optional: frozenset[str]) -> tuple[int, list[str]]:
    """
    Import a package and everything in it but what is run by ``python -m``.

    Args:
        package: Its name.

        optional: Names of packages that may be absent.

    Returns:
        How many modules were imported, and which need something that is absent.

    Raises:
        ModuleNotFoundError: Something else is absent.
    """
    top = __import__(package)
    names = [found.name for found in pkgutil.walk_packages(top.__path__, f"{package}.")]
    imported, lacking = 1, []
    for name in names:
        if name.endswith(".__main__"):
            continue
        try:
            __import__(name)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in optional:
                raise
            lacking.append(name)
        else:
            imported += 1
    return imported, lacking


def main(package: str) -> int:
    """Import a package, say what was found, and answer 0."""
    imported, lacking = import_all(package, OPTIONAL[package])
    words = f"; an extra is needed by {', '.join(lacking)}" if lacking else ""
    sys.stdout.write(f"{imported} modules of {package} were imported{words}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
