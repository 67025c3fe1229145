# SPDX-License-Identifier: MIT
"""
Make the known answers that hsm-core ships from the public sources of their values.

Run from the top of the source tree, with ``FERROHSM_VECTORS`` set and OpenSSL 3.5 or
newer on the path::

    python -m tests.vectors.known_answers
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from hsm_core.algorithms import Algorithm
from tests.support import REPOSITORY, require_program, vectors_folder
from tests.vectors.known_answers_classical import collect_classical
from tests.vectors.known_answers_quantum import (
    SLH_DSA,
    collect_quantum_safe,
    openssl_signature,
)
from tests.vectors.known_answers_symmetric import collect_symmetric
from tests.vectors.records import Answers

SHIPPED = REPOSITORY / "packages/hsm-core/src/hsm_core/_internal/crypto/selftest"
"""Where the files that the self-tests read lie."""


def collect(folder: Callable[[str], Path]) -> Answers:
    """Return every known answer by algorithm, in the order of the table."""
    wycheproof = folder("wycheproof")
    answers = (
        collect_symmetric(wycheproof)
        | collect_classical(wycheproof, folder("wycheproof-secp256k1"))
        | collect_quantum_safe(folder)
    )
    return {algorithm.value: answers[algorithm] for algorithm in Algorithm}


def render(answers: Answers) -> str:
    """Return the text of the shipped file."""
    return json.dumps(answers, indent=1) + "\n"


if __name__ == "__main__":
    found = collect(vectors_folder)
    (SHIPPED / "known_answers.json").write_text(render(found), "utf-8")
    program = require_program("openssl")
    (SHIPPED / "slh_dsa_signatures.bin").write_bytes(
        b"".join(openssl_signature(program, found[a]) for a in SLH_DSA)
    )
