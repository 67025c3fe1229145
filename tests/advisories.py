# SPDX-License-Identifier: MIT
"""
What pip-audit answered about known vulnerabilities, told apart.

It finds "no known vulnerabilities" in a package that it could not ask about; the
session `audit` must not.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Verdict(NamedTuple):
    """
    What is known of a number of packages.

    Attributes:
        clean: Names of those that were asked about, and have no known vulnerability.

        vulnerable: One line for each vulnerability.

        unknown: Names of those about which there is no answer.
    """

    clean: list[str]
    vulnerable: list[str]
    unknown: list[str]


def judge(answers: Mapping[str, Any]) -> Verdict:
    """
    Tell apart what pip-audit answered.

    Args:
        answers: What ``pip-audit --format json`` writes.
    """
    packages: Sequence[Mapping[str, Any]] = answers["dependencies"]
    verdict = Verdict([], [], [])
    for package in packages:
        faults = package.get("vulns")
        if faults is None:
            verdict.unknown.append(package["name"])
        elif not faults:
            verdict.clean.append(package["name"])
        verdict.vulnerable.extend(_line(package, fault) for fault in faults or ())
    return verdict


def _line(package: Mapping[str, Any], fault: Mapping[str, Any]) -> str:
    mended = " or ".join(fault["fix_versions"]) or "no version"
    return f"{package['name']} {package['version']}: {fault['id']}, mended in {mended}"
