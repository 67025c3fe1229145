# SPDX-License-Identifier: MIT
"""One ACME order, from the names to the certificate."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import msgspec
from acme import messages
from cryptography import x509

from hsm_server.tls.acme.authority import Asked, Authority
from hsm_server.tls.acme.challenges import Proof, tls_challenge
from hsm_server.tls.acme.failures import Failure, FailureKind, as_failure
from hsm_server.tls.acme.http_answers import HTTPAnswers
from hsm_server.tls.acme.self_signed import new_key
from hsm_server.tls.acme.stored import Stored
from hsm_server.tls.acme.worker import call
from hsm_server.tls.board import Board
from hsm_server.tls.client_certificates import UNREADABLE
from hsm_server.tls.state import Challenge

_PROVING_SECONDS: Final = 180.0
_ISSUING_SECONDS: Final = 180.0


async def fulfil(
    authority: Authority,
    names: Sequence[str],
    board: Board,
    answers: HTTPAnswers | None,
) -> Stored:
    """
    Order a certificate, prove the names, and return it.

    Args:
        authority: Who issues it.

        names: Whom it is for.

        board: Where front ends learn of challenges.

        answers: Where challenges are answered over HTTP, if they are.

    Raises:
        Failure: There is none.
    """
    key = await call(new_key)
    order = await call(authority.order, names, key)
    proof = Proof.TLS if answers is None else Proof.HTTP
    asked = authority.wanted(order, proof)
    if asked:
        await _prove(authority, asked, board, answers)
    chain = await _issue(authority, order)
    return Stored(key, chain)


async def show_challenges(board: Board, challenges: Sequence[Challenge]) -> None:
    """
    Replace the challenges that all front ends answer.

    Raises:
        Failure: They can't.
    """
    try:
        await board.change(
            lambda state: msgspec.structs.replace(state, challenges=tuple(challenges))
        )
    except Exception as error:
        raise as_failure(error) from error


async def _prove(
    authority: Authority,
    asked: Sequence[Asked],
    board: Board,
    answers: HTTPAnswers | None,
) -> None:
    """Answer challenges; the CA is notified after all front ends can answer."""
    if answers is not None:
        with answers.giving({one.token: one.authorization for one in asked}):
            await _have_checked(authority, asked)
        return
    await show_challenges(board, [tls_challenge(one.name, one.digest) for one in asked])
    try:
        await _have_checked(authority, asked)
    except Failure:
        await show_challenges(board, [])
        raise
    # Who is cancelled leaves them: at the end of a server there is nobody to be told,
    # and a keeper that begins has them forgotten.
    await show_challenges(board, [])


async def _have_checked(authority: Authority, asked: Sequence[Asked]) -> None:
    end = time.monotonic() + _PROVING_SECONDS
    for one in asked:
        await call(authority.answer, one)
    for one in asked:
        while seconds := await call(authority.wait_seconds, one):
            if time.monotonic() > end:
                raise Failure(
                    FailureKind.TOO_SLOW, f"The CA has not validated {one.name} yet."
                )
            await asyncio.sleep(seconds)


async def _issue(
    authority: Authority, order: messages.OrderResource
) -> tuple[x509.Certificate, ...]:
    end = time.monotonic() + _ISSUING_SECONDS
    order = await call(authority.finalize, order)
    while not (pem := await call(authority.fetch, order)):
        if time.monotonic() > end:
            raise Failure(
                FailureKind.TOO_SLOW, "The CA has not issued the certificate yet."
            )
    try:
        return tuple(x509.load_pem_x509_certificates(pem.encode()))
    except UNREADABLE:
        raise Failure(
            FailureKind.MALFORMED, "The CA returned no valid certificate."
        ) from None
