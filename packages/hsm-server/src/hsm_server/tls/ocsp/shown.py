# SPDX-License-Identifier: MIT
"""A certificate that the listener shows, as far as staples are concerned."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from cryptography import x509

from hsm_server.tls.certificates import kind_of
from hsm_server.tls.ocsp.errors import UnusableError
from hsm_server.tls.ocsp.pace import Clock
from hsm_server.tls.ocsp.response import check_response
from hsm_server.tls.ocsp.subject import is_must_staple, responders_of, subject_of
from hsm_server.tls.ocsp.watch import Watch
from hsm_server.tls.state import ServerPair

_NAME_CHARACTERS: Final = 128


@dataclass(frozen=True, slots=True)
class Shown:
    """
    One certificate.

    Attributes:
        name: Its subject, for people.
        kind: Of its key, such as ``ECDSA``.
        is_must_staple: Whether clients refuse it without a staple.
        names_responder: Whether its CA says where to ask after it.
        watch: What is known of it; None where its issuer isn't known.
    """

    name: str
    kind: str
    is_must_staple: bool
    names_responder: bool
    watch: Watch | None

    def problem(self, *, is_asking: bool) -> str:
        """
        Return why there should be a staple and is none; or nothing.

        Args:
            is_asking: Whether responders are asked at all.
        """
        is_asked = is_asking and self.names_responder
        was_tried = self.watch is not None and self.watch.was_tried
        if not (self.is_must_staple or is_asked or was_tried):
            return ""
        why = self._why(is_asked=is_asked)
        if not why:
            return ""
        if self.is_must_staple:
            return f"The certificate {self.name} demands a staple and has none: {why}."
        return f"No staple for the certificate {self.name}: {why}."

    def _why(self, *, is_asked: bool) -> str:
        watch = self.watch
        if watch is None:
            return "the certificate of its issuer is not known"
        if watch.staple or watch.is_revoked:
            return ""
        if watch.fault:
            return watch.fault.value
        if watch.was_tried:
            return "it has expired"
        return "" if is_asked else "there is nothing to get it from"


def shown_by(pair: ServerPair, clock: Clock, longest: timedelta) -> Shown:
    """
    Return the certificate of a pair.

    What is known of its status is the staple that it has already, if that is good.

    Args:
        pair: Certificate, its chain and its issuer.

        clock: Time by which staples expire.

        longest: Longest time between two questions.
    """
    certificate = x509.load_der_x509_certificate(pair.chain[0])
    issuer = (pair.issuer,) if pair.issuer else ()
    subject = subject_of([*pair.chain, *issuer])
    watch = Watch(subject, clock, longest) if subject is not None else None
    if watch is not None and pair.staple:
        with contextlib.suppress(UnusableError):
            watch.recall(check_response(pair.staple, watch.subject, clock.now()))
    return Shown(
        certificate.subject.rfc4514_string()[:_NAME_CHARACTERS] or "without a name",
        kind_of(certificate),
        is_must_staple(certificate),
        bool(responders_of(certificate)),
        watch,
    )
