# SPDX-License-Identifier: MIT
"""Options of ``sign`` and ``verify``, and the input of a signature that is sent."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import click

from hsm_cli.invocation import Invocation
from hsm_cli.io.files import Candidate, Source, hash_digest, hash_mus
from hsm_cli.options import choice, with_options
from hsm_cli.parameters import text_or_hex
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
from hsm_core.limits import Limits
from hsm_core.model import KeyState
from hsm_core.operations.keys import DescribeKey, GetPublicKey, ListVersions

_WHOLE_BYTES: Final = 1024 * 1024
"""Longest payload that is sent whole; longer ones are hashed if possible."""

_IN_OPERATIONS: Final = ("scheme", "hash", "encoding", "context")
_VERIFYING: Final = frozenset({KeyState.ACTIVE, KeyState.RETIRED, KeyState.REVOKED})


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureOptions:
    """
    Parameters of a signature from the command line.

    Attributes:
        prehashed: Whether the client hashes the payload, whatever its length.
    """

    prehashed: bool = False
    scheme: SignatureScheme | None = None
    hash: HashAlgorithm | None = None
    encoding: SignatureEncoding | None = None
    context: bytes = b""

    def fields(self) -> dict[str, Any]:
        """Return them under the field names of the operations."""
        return {name: getattr(self, name) for name in _IN_OPERATIONS}


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureInput:
    """
    Input of a signature, as sent: exactly one of *message*, *digest* and *mu*.

    Attributes:
        mu: Covers the context and the public key of *version*.
        hash: Hash of *digest*, or the requested one.
        version: Key version of *mu*.
    """

    message: bytes | None = field(default=None, repr=False)
    digest: bytes | None = None
    mu: bytes | None = None
    hash: HashAlgorithm | None = None
    context: bytes = b""
    version: int | None = None

    def fields(self, options: SignatureOptions) -> dict[str, Any]:
        """Return it, and what else *options* say, under the operations' field names."""
        names = ("message", "digest", "mu", "hash", "context")
        return options.fields() | {name: getattr(self, name) for name in names}


def signature_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `SignatureOptions` to a command, which gets them as *options*."""

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

    return _with_options(wrapper)


_with_options: Final = with_options(
    click.option(
        "--prehash",
        "--digest",
        "prehashed",
        is_flag=True,
        help="Hash the payload on the client and send only the digest. Payloads over "
        "1 MiB always are. Not for EdDSA and SLH-DSA.",
    ),
    click.option(
        "--scheme",
        type=choice(SignatureScheme),
        metavar="NAME",
        help="Signature scheme: RSASSA-PSS (default) or RSASSA-PKCS1-v1_5; RSA only.",
    ),
    click.option(
        "--hash",
        "hash_name",
        type=choice(HashAlgorithm),
        metavar="NAME",
        help="Hash: SHA-256, SHA-384 or SHA-512. Default: that of the algorithm.",
    ),
    click.option(
        "--encoding",
        type=choice(SignatureEncoding),
        metavar="NAME",
        help="Signature format: der (default) or p1363; ECDSA only.",
    ),
    click.option(
        "--context",
        metavar="TEXT",
        help="Context of the signature, up to 255 bytes; ML-DSA, SLH-DSA and "
        "composites only. verify needs the same context.",
    ),
    click.option("--context-hex", metavar="HEX", help="Context as hex digits."),
)


def signing_input(
    invocation: Invocation, key_id: str, source: Source, options: SignatureOptions
) -> SignatureInput:
    """
    Return the input of a new signature.

    A long payload is read once, in pieces, and its digest or mu is sent.

    Raises:
        KeyUsageError: The key lacks the usage sign.
        UnsupportedOperationError: The key's algorithm does not sign digests.
        PayloadTooLargeError: It is too long to send, and can't be hashed by the client.
    """
    head, rest = _head_of(source, options)
    if rest is None:
        return _whole(head, options)
    row = _row_of(invocation, key_id, KeyUsage.SIGN)
    if not row.takes_mu:
        return _hashed(row, source, options, head, rest)
    key = invocation.prepare(GetPublicKey(key_id=key_id))
    candidate = Candidate(key.version, key.algorithm, key.der)
    return _with_mu(source, options, head, rest, [candidate])[0]


def verification_inputs(
    invocation: Invocation,
    key_id: str,
    source: Source,
    options: SignatureOptions,
    version: int | None,
) -> list[SignatureInput]:
    """
    Return the candidate inputs of a signature to verify; see `signing_input`.

    There is one, or, for mu without a version, one for each version that may have
    signed, newest first: mu depends on the public key.
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
    """Return the start of a payload, and the rest if the client is to hash it."""
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


def _whole(pieces: list[bytes], options: SignatureOptions) -> SignatureInput:
    return SignatureInput(
        message=b"".join(pieces), hash=options.hash, context=options.context
    )


def _hashed(
    row: AlgorithmSpec,
    source: Source,
    options: SignatureOptions,
    head: list[bytes],
    rest: Iterator[bytes],
) -> SignatureInput:
    if not row.hashes:
        return _whole(
            _within_limit(row.algorithm, source, options, head, rest), options
        )
    chosen = options.hash or row.hashes[0]
    digest = hash_digest(chosen, source, head, rest)
    return SignatureInput(digest=digest, hash=chosen, context=options.context)


def _with_mu(
    source: Source,
    options: SignatureOptions,
    head: list[bytes],
    rest: Iterator[bytes],
    candidates: list[Candidate],
) -> list[SignatureInput]:
    mus = hash_mus(candidates, options.context, source, head, rest)
    return [
        SignatureInput(mu=mu, hash=options.hash, version=candidate.version)
        for candidate, mu in zip(candidates, mus, strict=True)
    ]


def _within_limit(
    algorithm: Algorithm,
    source: Source,
    options: SignatureOptions,
    head: list[bytes],
    rest: Iterator[bytes],
) -> list[bytes]:
    """Return a whole payload for an algorithm that does not sign digests."""
    if options.prehashed:
        raise UnsupportedOperationError(
            f"{algorithm} does not sign digests. Omit --prehash.",
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
            f"{source.what} must have at most {most} bytes with {algorithm}, got "
            f"{'' if size else 'more than '}{size or most}. RSA, ECDSA, ML-DSA and "
            "composite ML-DSA keys sign files of any size.",
            {"field": source.what, "actual": max(size, read), "maximum": most},
        )
    return pieces


def _row_of(invocation: Invocation, key_id: str, usage: KeyUsage) -> AlgorithmSpec:
    """Check a key's usage before a long payload is read; return its algorithm."""
    key = invocation.prepare(DescribeKey(key_id=key_id))
    if key.algorithm is None:
        raise IntegrityError(
            "Integrity check failed: the stored data of this key was altered."
        )
    if usage not in key.usages:
        raise KeyUsageError(
            f"key_id: this {key.algorithm} key can't be used to {usage}; its usages "
            f"are {', '.join(key.usages)}.",
            field="key_id",
            usage=usage.value,
        )
    return spec(key.algorithm)


def _candidates(
    invocation: Invocation, key_id: str, version: int | None
) -> list[Candidate]:
    """Return the public keys that may have signed, one for each key material."""
    if version is not None:
        numbers = [version]
    else:
        found = invocation.prepare(ListVersions(key_id=key_id)).items
        newest = {
            known.material_id: known.version
            for known in found
            if known.state in _VERIFYING
        }
        # If no version can verify, let the HSM report the reason.
        numbers = sorted(newest.values(), reverse=True) or [found[-1].version]
    keys = [invocation.prepare(GetPublicKey(key_id=key_id, version=n)) for n in numbers]
    return [Candidate(key.version, key.algorithm, key.der) for key in keys]
