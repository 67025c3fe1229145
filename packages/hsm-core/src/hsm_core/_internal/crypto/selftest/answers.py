# SPDX-License-Identifier: MIT
"""
The known answers, as the package ships them.

They are those of NIST, the RFCs, the drafts and Wycheproof; each names its source in
``known_answers.json``, and a test compares the file with these sources. Signatures of
SLH-DSA are long and lie in ``slh_dsa_signatures.bin``, one after the other in the
order of the table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Final

from hsm_core.algorithms import ALGORITHMS, Algorithm, Family

_SIGNATURES: Final = "slh_dsa_signatures.bin"


def known_answers(algorithm: Algorithm) -> Mapping[str, bytes]:
    """Return the known answers of an algorithm by name."""
    answers = _answers()[algorithm]
    if ALGORITHMS[algorithm].family is not Family.SLH_DSA:
        return answers
    return {**answers, "signature": _slh_dsa_signatures()[algorithm]}


@cache
def _answers() -> dict[str, dict[str, bytes]]:
    text = files(__package__).joinpath("known_answers.json").read_text("utf-8")
    return {
        algorithm: {
            name: bytes.fromhex(value)
            for name, value in answers.items()
            if name != "source"
        }
        for algorithm, answers in json.loads(text).items()
    }


@cache
def _slh_dsa_signatures() -> dict[Algorithm, bytes]:
    data = files(__package__).joinpath(_SIGNATURES).read_bytes()
    signatures, start = {}, 0
    for algorithm, row in ALGORITHMS.items():
        if row.family is Family.SLH_DSA:
            signatures[algorithm] = data[start : start + row.signature_bytes]
            start += row.signature_bytes
    return signatures
