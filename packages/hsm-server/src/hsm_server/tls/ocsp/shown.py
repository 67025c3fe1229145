# SPDX-License-Identifier: MIT
"""Server certificate, with its stapling state."""

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
    Server certificate.

    Attributes:
        name: Its subject.
        kind: Key type, such as ``ECDSA``.
        is_must_staple: Whether clients require a staple.
        names_responder: Whether it names an OCSP responder.
        watch: Its status; None if its issuer is unknown.
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
            is_asking: Whether responders are queried.
        """
        is_asked = is_asking and self.names_responder
        was_tried = self.watch is not None and self.watch.was_tried
        if not (self.is_must_staple or is_asked or was_tried):
            return ""
        why = self._why(is_asked=is_asked)
        if not why:
            return ""
        if self.is_must_staple:
            return (
                f"The certificate {self.name} requires an OCSP staple but has none: "
                f"{why}."
            )
        return f"No OCSP staple for the certificate {self.name}: {why}."

    def _why(self, *, is_asked: bool) -> str:
        watch = self.watch
        if watch is None:
            return "its issuer certificate is unknown"
        if watch.staple or watch.is_revoked:
            return ""
        if watch.fault:
            return watch.fault.value
        if watch.was_tried:
            return "it has expired"
        return (
            "" if is_asked else ("it has no responder, and --ocsp-response is not set")
        )


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
