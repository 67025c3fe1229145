# SPDX-License-Identifier: MIT
"""ACME orders: the steps of one order, and the time of the next."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, ParamSpec, TypeVar

import msgspec
from acme import messages
from cryptography import x509

from hsm_server.certificates import UNREADABLE
from hsm_server.tls.acme.authority import (
    Asked,
    Authority,
    Failure,
    FailureKind,
    as_failure,
)
from hsm_server.tls.acme.cache import Stored, new_key
from hsm_server.tls.acme.challenges import HTTPAnswers, Proof, tls_challenge
from hsm_server.tls.state import ActiveState, Challenge

_CALL_SECONDS: Final = 90.0

P = ParamSpec("P")
T = TypeVar("T")


async def call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """
    Call a function in a thread of its own, and return what comes of it.

    Who is cancelled goes on at once. The thread then ends when its call does, and does
    not keep the process from ending: `asyncio.to_thread` would.

    Raises:
        Failure: It takes too long; or what the function raises.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(outcome: Callable[[], None]) -> None:
        if not answer.done():
            outcome()

    def run() -> None:
        try:
            found = function(*args, **kwargs)
        except Exception as error:
            failed = error
            outcome = lambda: answer.set_exception(failed)  # noqa: E731
        else:
            outcome = lambda: answer.set_result(found)  # noqa: E731
        # The event loop may have ended.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=run, name="acme", daemon=True).start()
    try:
        async with asyncio.timeout(_CALL_SECONDS):
            return await answer
    except TimeoutError:
        raise Failure(FailureKind.TOO_SLOW, "The CA did not finish in time.") from None


_PROVING_SECONDS: Final = 180.0
_ISSUING_SECONDS: Final = 180.0


async def fulfil(
    authority: Authority,
    names: Sequence[str],
    active: ActiveState,
    answers: HTTPAnswers | None,
) -> Stored:
    """
    Order a certificate, prove the names, and return it.

    Args:
        authority: The CA.

        names: DNS names and IP addresses.

        active: State that carries the challenges to front ends.

        answers: Server for HTTP-01; None uses TLS-ALPN-01.

    Raises:
        Failure: There is none.
    """
    key = await call(new_key)
    order = await call(authority.order, names, key)
    proof = Proof.TLS if answers is None else Proof.HTTP
    asked = authority.wanted(order, proof)
    if asked:
        await _prove(authority, asked, active, answers)
    chain = await _issue(authority, order)
    return Stored(key, chain)


async def show_challenges(active: ActiveState, challenges: Sequence[Challenge]) -> None:
    """
    Replace the challenges that all front ends answer.

    Raises:
        Failure: They can't.
    """
    try:
        await active.change(
            lambda state: msgspec.structs.replace(state, challenges=tuple(challenges))
        )
    except Exception as error:
        raise as_failure(error) from error


async def _prove(
    authority: Authority,
    asked: Sequence[Asked],
    active: ActiveState,
    answers: HTTPAnswers | None,
) -> None:
    """Answer challenges; the CA is notified after all front ends can answer."""
    if answers is not None:
        with answers.giving({one.token: one.authorization for one in asked}):
            await _have_checked(authority, asked)
        return
    await show_challenges(
        active, [tls_challenge(one.name, one.digest) for one in asked]
    )
    try:
        await _have_checked(authority, asked)
    except Failure:
        await show_challenges(active, [])
        raise
    # Who is cancelled leaves them: at the end of a server there is nobody to be told,
    # and a TLS manager that begins has them forgotten.
    await show_challenges(active, [])


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


_HOUR: Final = 3600.0
_FIRST_SECONDS: Final = {
    FailureKind.UNREACHABLE: 10.0,
    FailureKind.NO_ACCOUNT: 10.0,
    FailureKind.STORAGE: 30.0,
    FailureKind.TOO_SLOW: 60.0,
    FailureKind.MALFORMED: 60.0,
    FailureKind.UNUSABLE: 300.0,
    FailureKind.NOT_PROVED: 300.0,
    FailureKind.REFUSED: 300.0,
    FailureKind.RATE_LIMITED: 900.0,
}
"""Delay after the first failure; CAs limit failed validations per hour."""

_LONGEST_SECONDS: Final = 6 * _HOUR
_LONGEST_WITHOUT_SECONDS: Final = _HOUR
"""Maximum delay without a valid certificate."""

_JITTER: Final = random.SystemRandom()


def usual_renewal(certificate: x509.Certificate) -> float:
    """
    Return when to renew if the CA says nothing about it, in Unix time.

    That is at two thirds of the life, or a little sooner: not all at once.
    """
    begins, life = _life(certificate)
    return begins + life * (2 / 3 - _JITTER.uniform(0, 0.03))


def latest_renewal(certificate: x509.Certificate) -> float:
    """Return when to renew whatever the CA says: at five sixths of the life."""
    begins, life = _life(certificate)
    return begins + life * 5 / 6


def pause_seconds(certificate: x509.Certificate) -> float:
    """
    Return the minimum time between two orders.

    A CA that wants all renewed at once, again and again, would be kept busy by that.
    """
    left = certificate.not_valid_after_utc.timestamp() - time.time()
    return min(_HOUR, max(left, 3.0) / 3)


def retry_seconds(failure: Failure, failures: int, *, has_certificate: bool) -> float:
    """
    Return the delay after consecutive failures.

    Args:
        failure: The newest.

        failures: Number of failures, at least 1.

        has_certificate: Whether there is a certificate that is valid.
    """
    longest = _LONGEST_SECONDS if has_certificate else _LONGEST_WITHOUT_SECONDS
    seconds = _FIRST_SECONDS[failure.kind] * 2.0 ** min(failures - 1, 20)
    return min(seconds, longest) * _JITTER.uniform(0.75, 1.0)


def _life(certificate: x509.Certificate) -> tuple[float, float]:
    begins = certificate.not_valid_before_utc.timestamp()
    return begins, certificate.not_valid_after_utc.timestamp() - begins
