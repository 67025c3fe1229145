# SPDX-License-Identifier: MIT
"""What the commands ``sign`` and ``verify`` share: parameters, and what is sent."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import click

from hsm_cli.invocation import Invocation
from hsm_cli.io.files import Source
from hsm_cli.io.hashing import Candidate, hash_digest, hash_mus
from hsm_cli.io.operands import text_or_hex
from hsm_cli.options.parameter_types import choice
from hsm_core.algorithms import (
    Algorithm,
    AlgorithmSpec,
    HashAlgorithm,
    KeyUsage,
    SignatureEncoding,
    SignatureScheme,
    spec,
)
from hsm_core.errors import (
    IntegrityError,
    KeyUsageError,
    PayloadTooLargeError,
    UnsupportedOperationError,
)
from hsm_core.model import KeyState
from hsm_core.operations import DescribeKey, GetPublicKey, ListVersions
from hsm_core.settings import Limits

_WHOLE_BYTES: Final = 1024 * 1024
"""A longer payload is hashed here, where the key's algorithm allows it."""

_VERIFYING: Final = frozenset({KeyState.ACTIVE, KeyState.RETIRED, KeyState.REVOKED})


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureOptions:
    """
    Parameters of a signature, as the command line gave them.

    Attributes:
        prehashed: Whether the payload is to be hashed here, however short it is.
    """

    prehashed: bool = False
    scheme: SignatureScheme | None = None
    hash: HashAlgorithm | None = None
    encoding: SignatureEncoding | None = None
    context: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """
    What is sent of a payload; one of the first three is not None.

    Attributes:
        mu: It holds the context and the public key of *version* already.
        hash: The hash that *digest* was made with, or that was asked for.
        version: The version that *mu* is for.
    """

    message: bytes | None = field(default=None, repr=False)
    digest: bytes | None = None
    mu: bytes | None = None
    hash: HashAlgorithm | None = None
    context: bytes = b""
    version: int | None = None


def signature_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command its *options*, which are `SignatureOptions`."""

    @functools.wraps(function)
    def wrapper(
        *args: Any,
        prehashed: bool,
        scheme: SignatureScheme | None,
        hash_name: HashAlgorithm | None,
        encoding: SignatureEncoding | None,
        context: str | None,
        context_hex: str | None,
        **kwargs: Any,
    ) -> Any:
        options = SignatureOptions(
            prehashed=prehashed,
            scheme=scheme,
            hash=hash_name,
            encoding=encoding,
            context=text_or_hex(context, context_hex, name="--context"),
        )
        return function(*args, options=options, **kwargs)

    decorated: Callable[..., Any] = wrapper
    for option in _OPTIONS:
        decorated = option(decorated)
    return decorated


_OPTIONS: Final = (
    click.option("--context-hex", metavar="HEX", help="The context as hex digits."),
    click.option(
        "--context",
        metavar="TEXT",
        help="ML-DSA, SLH-DSA and composites: what the signature is for, up to 255 "
        "bytes; needed again to verify.",
    ),
    click.option(
        "--encoding",
        type=choice(SignatureEncoding),
        metavar="NAME",
        help="ECDSA only: der (default) or p1363.",
    ),
    click.option(
        "--hash",
        "hash_name",
        type=choice(HashAlgorithm),
        metavar="NAME",
        help="SHA-256, SHA-384 or SHA-512; else the algorithm's default.",
    ),
    click.option(
        "--scheme",
        type=choice(SignatureScheme),
        metavar="NAME",
        help="RSA only: RSASSA-PSS (default) or RSASSA-PKCS1-v1_5.",
    ),
    click.option(
        "--prehash",
        "--digest",
        "prehashed",
        is_flag=True,
        help="Hash the payload here and send its digest only, as is done with more "
        "than 1 MiB anyway. Not with EdDSA and SLH-DSA.",
    ),
)


def what_to_sign(
    invocation: Invocation, key_id: str, source: Source, options: SignatureOptions
) -> Signed:
    """
    Return what is sent of a payload that is to be signed.

    A long payload is read once, in pieces, and its digest or mu is sent.

    Raises:
        KeyUsageError: The key was not made to sign.
        UnsupportedOperationError: A digest was asked for, and the key's algorithm has
            none.
        PayloadTooLargeError: It is too long to be sent, and can't be hashed here.
    """
    head, rest = _head_of(source, options)
    if rest is None:
        return _whole(head, options)
    row = _row_of(invocation, key_id, KeyUsage.SIGN)
    if not row.takes_mu:
        return _hashed(row, source, options, head, rest)
    key = invocation.execute(GetPublicKey(key_id=key_id))
    candidate = Candidate(key.version, key.algorithm, key.der)
    return _with_mu(source, options, head, rest, [candidate])[0]


def what_to_verify(
    invocation: Invocation,
    key_id: str,
    source: Source,
    options: SignatureOptions,
    version: int | None,
) -> list[Signed]:
    """
    Return what is sent of a payload whose signature is to be checked; else as above.

    It is one or, where mu is sent and no version is named, one for each version that
    may have signed, newest first: mu binds the public key.
    """
    head, rest = _head_of(source, options)
    if rest is None:
        return [_whole(head, options)]
    row = _row_of(invocation, key_id, KeyUsage.VERIFY)
    if not row.takes_mu:
        return [_hashed(row, source, options, head, rest)]
    candidates = _candidates(invocation, key_id, version)
    return _with_mu(source, options, head, rest, candidates)


def _head_of(
    source: Source, options: SignatureOptions
) -> tuple[list[bytes], Iterator[bytes] | None]:
    """Return the beginning of a payload, and the rest if it is to be hashed here."""
    pieces = source.pieces()
    head: list[bytes] = []
    size = 0
    if options.prehashed:
        return head, pieces
    for piece in pieces:
        head.append(piece)
        size += len(piece)
        if size > _WHOLE_BYTES:
            return head, pieces
    return head, None


def _whole(pieces: list[bytes], options: SignatureOptions) -> Signed:
    return Signed(message=b"".join(pieces), hash=options.hash, context=options.context)


def _hashed(
    row: AlgorithmSpec,
    source: Source,
    options: SignatureOptions,
    head: list[bytes],
    rest: Iterator[bytes],
) -> Signed:
    if not row.hashes:
        return _whole(
            _within_limit(row.algorithm, source, options, head, rest), options
        )
    chosen = options.hash or row.hashes[0]
    digest = hash_digest(chosen, source, head, rest)
    return Signed(digest=digest, hash=chosen, context=options.context)


def _with_mu(
    source: Source,
    options: SignatureOptions,
    head: list[bytes],
    rest: Iterator[bytes],
    candidates: list[Candidate],
) -> list[Signed]:
    mus = hash_mus(candidates, options.context, source, head, rest)
    return [
        Signed(mu=mu, hash=options.hash, version=candidate.version)
        for candidate, mu in zip(candidates, mus, strict=True)
    ]


def _within_limit(
    algorithm: Algorithm,
    source: Source,
    options: SignatureOptions,
    head: list[bytes],
    rest: Iterator[bytes],
) -> list[bytes]:
    """Return the whole of a payload that its algorithm must see as a whole."""
    if options.prehashed:
        raise UnsupportedOperationError(
            f"{algorithm} takes no digest; leave --prehash out.",
            algorithm=algorithm,
            field="digest",
        )
    pieces, most = list(head), Limits().payload_bytes
    size = 0 if source.is_base64 else source.size or 0
    read = sum(map(len, pieces))
    while max(size, read) <= most and (piece := next(rest, None)) is not None:
        pieces.append(piece)
        read += len(piece)
    if max(size, read) > most:
        raise PayloadTooLargeError.from_wire(
            f"{algorithm} signs the whole of a payload, of which an HSM takes {most} "
            f"bytes at most; {source.what} has {'' if size else 'more than '}"
            f"{size or most}. Keys of RSA, ECDSA, ML-DSA and the composites of ML-DSA "
            "sign files of any size, for these are hashed here.",
            {"field": source.what, "actual": max(size, read), "maximum": most},
        )
    return pieces


def _row_of(invocation: Invocation, key_id: str, usage: KeyUsage) -> AlgorithmSpec:
    """Return the row of a key, before a long payload is read in vain."""
    key = invocation.execute(DescribeKey(key_id=key_id))
    if key.algorithm is None:
        raise IntegrityError("Nothing is known of this key; it was tampered with.")
    if usage not in key.usages:
        raise KeyUsageError(
            f"key_id: this {key.algorithm} key may not be used to {usage}; its usages "
            f"are {', '.join(key.usages)}.",
            field="key_id",
            usage=usage.value,
        )
    return spec(key.algorithm)


def _candidates(
    invocation: Invocation, key_id: str, version: int | None
) -> list[Candidate]:
    """Return the public keys that may have signed, one for each material."""
    if version is not None:
        numbers = [version]
    else:
        found = invocation.execute(ListVersions(key_id=key_id)).items
        newest = {
            known.material_id: known.version
            for known in found
            if known.state in _VERIFYING
        }
        # Of a key that verifies nothing any more, the HSM says why.
        numbers = sorted(newest.values(), reverse=True) or [found[-1].version]
    keys = [invocation.execute(GetPublicKey(key_id=key_id, version=n)) for n in numbers]
    return [Candidate(key.version, key.algorithm, key.der) for key in keys]
