# SPDX-License-Identifier: MIT
"""
The tables of the reference pages on vectors and standards, from counts.

A table stands between two comments in its page, ``<!-- table: NAME -->`` and
``<!-- end of table -->``; all around it is written by hand.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, TypeAlias

from hsm_core._internal.crypto.providers import default_providers
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family
from tests.support import REPOSITORY, require_service
from tests.vectors.tally import Counts

AllCounts: TypeAlias = Mapping[str, Mapping[str, Counts]]

_REFERENCE: Final = REPOSITORY / "docs/reference"
PAGES: Final = (_REFERENCE / "vectors.md", _REFERENCE / "standards.md")
"""The pages with tables."""

_TABLE: Final = re.compile(
    r"(<!-- table: (.+?) -->\n).*?(<!-- end of table -->)", re.DOTALL
)

REFUSALS: Final = {
    "composite": (
        "composites other than the seven of the table of algorithms",
        "the profiles that the drafts name, without RSA",
    ),
    "context": ("Ed448 with a context", "no other signature of its family has one"),
    "curve": (
        "P-192, P-224 and binary curves",
        "not in the table of algorithms",
    ),
    "expanded key": (
        "ML-KEM and ML-DSA private keys without their seed",
        "a seed can be checked and is the form that is kept (RFC 9935, RFC 9881)",
    ),
    "given randomness": (
        "encapsulation with a given m",
        "FIPS 203, section 3.3: it is for testing only",
    ),
    "hash": (
        "SHA-1, SHA-224, SHA-512/224, SHA-512/256, SHAKE",
        "SHA-256, SHA-384 and SHA-512 only",
    ),
    "HashML-DSA": (
        "ML-DSA over a digest",
        "an external mu does the same for pure ML-DSA",
    ),
    "inverse cipher": (
        "key wrap by the inverse of AES",
        "SP 800-38F allows it; RFC 3394 and RFC 5649 have no such form",
    ),
    "IV length": (
        "initialisation vectors other than 96 bits",
        "SP 800-38D, section 5.2.1.1, recommends 96",
    ),
    "JOSE": (
        "JWS, JWE and JWK",
        "hsm-core takes bytes and DER; it reads no JOSE objects",
    ),
    "key length": (
        "AES-192; RSA other than 2048, 3072 and 4096; "
        "HMAC keys that are not as long as the hash",
        "not in the table of algorithms",
    ),
    "MGF1 hash": ("SHA-1, SHA-224", "SHA-256, SHA-384 and SHA-512 only"),
    "password-based derivation": ("PBKDF2", "not in the table of algorithms"),
    "PKCS#1 v1.5 decryption": (
        "RSAES-PKCS1-v1_5",
        "an invitation to padding oracles; it isn't there",
    ),
    "public exponent": ("any but 65537", "65537 only"),
    "tag length": (
        "AES-GCM tags shorter than 128 bits, and truncated MACs",
        "a tag has its full length",
    ),
}
"""What is refused and why, by reason."""

_CLAUSES: Final[Mapping[str, str]] = {
    Family.AEAD: "SP 800-38D, 7.1 and 7.2",
    Algorithm.CHACHA20_POLY1305: "RFC 8439, 2.8",
    Family.RSA: "RFC 8017, 7.1 (OAEP), 8.1 (PSS), 8.2 (PKCS#1 v1.5); FIPS 186-5, 5.4",
    Family.ECDSA: "FIPS 186-5, 6.4; SP 800-56A, 5.7.1.2",
    Family.EDDSA: "FIPS 186-5, 7.6 and 7.7; RFC 8032, 5.1",
    Algorithm.ED448: "FIPS 186-5, 7.6 and 7.7; RFC 8032, 5.2",
    Family.ECDH: "RFC 7748, 5 and 6.1",
    Family.AES: "SP 800-38A, 6.2 and 6.5; SP 800-38D, 7.1 and 7.2",
    Family.MAC: "FIPS 198-1, 4",
    Family.KEY_WRAP: "SP 800-38F, 6.2 (KW) and 6.3 (KWP)",
    Family.KDF: "RFC 5869, 2.2 and 2.3; SP 800-56C, 5.1",
    Family.ML_KEM: "FIPS 203, 7.1 to 7.3",
    Family.ML_DSA: "FIPS 204, 5.1 to 5.3 and 6.2 (mu)",
    Family.SLH_DSA: "FIPS 205, 10.1 to 10.3",
    Family.COMPOSITE_KEM: "the draft, Encapsulation and Decapsulation",
    Family.COMPOSITE_SIGNATURE: "the draft, Sign and Verify",
}
"""What is implemented of the standards, by algorithm or else by family."""


def rendered(page: Path, counts: AllCounts) -> str:
    """Return the text of a page with its tables made from counts."""

    def replace(found: re.Match[str]) -> str:
        name, _, part = found[2].partition(" of ")
        lines = _TABLES[name](counts, part)
        return found[1] + "\n" + "\n".join(lines) + "\n\n" + found[3]

    return _TABLE.sub(replace, page.read_text("utf-8"))


def write_pages(counts: AllCounts) -> None:
    """Write every page anew."""
    for page in PAGES:
        page.write_text(rendered(page, counts), "utf-8")


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _number(count: int) -> str:
    return f"{count:,}" if count else ""


def _totals(counts: AllCounts, part: str) -> Iterator[str]:
    yield _row("Set", "Files", "Tests", "Agree", "Either way", "Refused", "Inside")
    yield _row(*["---"] * 7)
    everything: Counter[str] = Counter()
    files = 0
    for name, of_set in counts.items():
        sums = _sums(*of_set.values())
        everything += sums
        files += len(of_set)
        yield _row(name, len(of_set), *_cells(sums))
    yield _row("all", files, *_cells(everything))


def _sums(*of_files: Counts) -> Counter[str]:
    return Counter(
        {
            kind: sum(sum(counts[kind].values()) for counts in of_files)
            for kind in ("agree", "either", "refused", "inside")
        }
    )


def _cells(sums: Counter[str]) -> Iterator[str]:
    yield _number(sums["agree"] + sums["either"] + sums["refused"])
    for kind in ("agree", "either", "refused", "inside"):
        yield _number(sums[kind])


def _files(counts: AllCounts, part: str) -> Iterator[str]:
    yield _row("File", "Tests", "Agree", "Either way", "Refused", "Inside")
    yield _row(*["---"] * 6)
    (of_set,) = (counts[name] for name in counts if name.split()[0] == part)
    for name, of_file in of_set.items():
        sums = _sums(of_file)
        tests, agree, *_ = _cells(sums)
        named = (_list(of_file[kind]) for kind in ("either", "refused"))
        yield _row(f"`{name}`", tests, agree, *named, _number(sums["inside"]))


def _list(of_kind: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in of_kind.items())


def _summed(counts: AllCounts, kind: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for of_set in counts.values():
        for of_file in of_set.values():
            total.update(of_file[kind])
    return total


def _refusals(counts: AllCounts, part: str) -> Iterator[str]:
    yield _row("Reason", "What is refused", "Why", "Tests")
    yield _row(*["---"] * 4)
    for reason, count in sorted(
        _summed(counts, "refused").items(), key=lambda item: item[0].lower()
    ):
        yield _row(reason, *REFUSALS[reason], _number(count))


def _either_way(counts: AllCounts, part: str) -> Iterator[str]:
    yield _row("Flag", "Decision", "Tests")
    yield _row(*["---"] * 3)
    for name, count in sorted(_summed(counts, "either").items()):
        verb, _, flag = name.partition(" ")
        yield _row(f"`{flag}`", verb, _number(count))


def _standards(counts: AllCounts, part: str) -> Iterator[str]:
    agreed, inside = _summed(counts, "agree"), _summed(counts, "inside")
    yield _row("Algorithm", "Standard", "Clauses", "Provider", "Vectors", "Inside")
    yield _row(*["---"] * 6)
    providers = [p for p in default_providers() if getattr(p, "is_enabled", True)]
    for provider in providers:
        require_service(f"The provider {provider.name}", provider.algorithms())
    for row in ALGORITHMS.values():
        serving = [p.name for p in providers if row.algorithm in p.algorithms()]
        yield _row(
            row.algorithm,
            row.standard,
            _CLAUSES.get(row.algorithm) or _CLAUSES[row.family],
            ", else ".join(serving) or "composite",
            _number(agreed[row.algorithm]),
            _number(inside[row.algorithm]),
        )


_TABLES: Final[dict[str, Callable[[AllCounts, str], Iterator[str]]]] = {
    "totals": _totals,
    "files": _files,
    "refusals": _refusals,
    "decisions": _either_way,
    "algorithms": _standards,
}
