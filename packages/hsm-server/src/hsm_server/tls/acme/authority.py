# SPDX-License-Identifier: MIT
"""
ACME client, step by step.

All calls wait for the network, but none for long: the caller polls.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from acme import client, errors, messages
from acme.challenges import KeyAuthorizationChallenge
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from josepy.jwk import JWK, JWKEC

from hsm_server.tls.acme.cache import Account
from hsm_server.tls.acme.challenges import Proof
from hsm_server.tls.acme.failures import Failure, FailureKind, as_failure
from hsm_server.tls.acme.network import Network
from hsm_server.tls.acme.self_signed import general_names

P = ParamSpec("P")
T = TypeVar("T")

_POLL_SECONDS: Final = 1.5
"""The library waits for a second before it asks, and gives up after this."""

_SOONEST_SECONDS: Final = 0.25
_LATEST_SECONDS: Final = 10.0


class Asked:
    """
    Requested challenge.

    Args:
        name: DNS name or IP address.

        resource: Its authorization.

        body: The challenge.

        key: Key of the account.
    """

    def __init__(
        self,
        name: str,
        resource: messages.AuthorizationResource,
        body: messages.ChallengeBody,
        key: JWK,
    ) -> None:
        self.name = name
        self.resource = resource
        self.body = body
        challenge: KeyAuthorizationChallenge = body.chall
        self.token: str = challenge.encode("token")
        self.response = challenge.response(key)
        self.authorization = challenge.key_authorization(key)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the key authorization."""
        return hashlib.sha256(self.authorization.encode()).digest()


class Authority:
    """
    An ACME CA, with one account.

    Each method raises `Failure`.

    Args:
        directory: Directory URL of the CA.

        authorities: PEM file of CAs that verify its certificate, or None.

        key: Key of the account.
    """

    def __init__(
        self, directory: str, authorities: Path | None, key: ec.EllipticCurvePrivateKey
    ) -> None:
        self._jwk = JWKEC(key=key)
        self._key_digest = digest_of_key(key)
        self._network = Network(self._jwk, authorities)
        try:
            found = self._ask(client.ClientV2.get_directory, directory, self._network)
        except Failure:
            self.close()
            raise
        self._client = client.ClientV2(found, self._network)

    def close(self) -> None:
        """Close the connections."""
        self._network.session.close()

    def enter(self, account: Account | None, contacts: Sequence[str]) -> Account:
        """
        Use an account, or open one; return what is known of it.

        Args:
            account: What is known of it already.

            contacts: Whom the CA may write to.
        """
        wanted = tuple(contacts)
        if account is None or account.key_digest != self._key_digest:
            uri = self._open(wanted)
        else:
            uri = account.uri
            self._use(uri)
            if account.contacts != wanted:
                self._change(uri, wanted)
        return Account(uri=uri, contacts=wanted, key_digest=self._key_digest)

    def order(
        self, names: Sequence[str], key: ec.EllipticCurvePrivateKey
    ) -> messages.OrderResource:
        """Order a certificate for names and a private key."""
        builder = x509.CertificateSigningRequestBuilder(x509.Name([]))
        builder = builder.add_extension(
            x509.SubjectAlternativeName(general_names(names)), critical=False
        )
        request = builder.sign(key, hashes.SHA256())
        return self._ask(self._client.new_order, request.public_bytes(Encoding.PEM))

    def wanted(self, order: messages.OrderResource, proof: Proof) -> list[Asked]:
        """Return the challenges of one type that are to be proved."""
        return [
            self._asked(resource, proof)
            for resource in order.authorizations
            if resource.body.status != messages.STATUS_VALID
        ]

    def answer(self, asked: Asked) -> None:
        """Notify the CA that the challenge can be validated."""
        self._ask(self._client.answer_challenge, asked.body, asked.response)

    def wait_seconds(self, asked: Asked) -> float:
        """
        Return 0 if something is proved, or after how many seconds to ask again.

        Raises:
            Failure: It won't be.
        """
        resource, response = self._ask(self._client.poll, asked.resource)
        if resource.body.status == messages.STATUS_VALID:
            return 0.0
        if resource.body.status not in (
            messages.STATUS_PENDING,
            messages.STATUS_PROCESSING,
        ):
            raise as_failure(errors.ValidationError([resource]))
        told = response.headers.get("Retry-After", "")
        seconds = float(told) if told.isascii() and told.isdigit() else 1.0
        return min(max(seconds, _SOONEST_SECONDS), _LATEST_SECONDS)

    def finalize(self, order: messages.OrderResource) -> messages.OrderResource:
        """Finalize the order after validation."""
        try:
            return self._ask(self._client.begin_finalization, order)
        except Failure as failure:
            cause = failure.__cause__
            if isinstance(cause, messages.Error) and cause.code == "orderNotReady":
                # The library asks again when it fetches.
                return order
            raise

    def fetch(self, order: messages.OrderResource) -> str:
        """Return the certificate with its chain as PEM; empty if it isn't there yet."""
        # The library compares with a naive local time.
        deadline = datetime.now() + timedelta(seconds=_POLL_SECONDS)
        try:
            done = self._client.poll_finalization(order, deadline)
        except errors.TimeoutError:
            return ""
        except Exception as error:
            raise as_failure(error, self._network.retry_after) from error
        return str(done.fullchain_pem)

    def renewal(self, certificate: x509.Certificate) -> tuple[float | None, float]:
        """
        Return when to renew a certificate, and when to ask that again, in Unix time.

        The former is None where the CA has nothing to say about it.

        Standard:
            RFC 9773, section 4.
        """
        pem = certificate.public_bytes(Encoding.PEM)
        when, again = self._ask(self._client.renewal_time, pem)
        return (None if when is None else when.timestamp()), again.timestamp()

    def _open(self, contacts: tuple[str, ...]) -> str:
        """Open an account; one that this key has already is used."""
        wanted = messages.NewRegistration(
            contact=contacts, terms_of_service_agreed=True
        )
        try:
            uri = self._ask(self._client.new_account, wanted).uri
        except Failure as failure:
            if not isinstance(failure.__cause__, errors.ConflictError):
                raise
            self._use(failure.__cause__.location)
            return failure.__cause__.location
        if not uri:
            reason = "The CA returned no account URL."
            raise Failure(FailureKind.MALFORMED, reason)
        return uri

    def _use(self, uri: str) -> messages.RegistrationResource:
        account = messages.RegistrationResource(body=messages.Registration(), uri=uri)
        self._network.account = account
        return account

    def _change(self, uri: str, contacts: tuple[str, ...]) -> None:
        account = self._use(uri)
        wanted = messages.Registration(contact=contacts)
        self._ask(self._client.update_registration, account, wanted)

    def _asked(self, resource: messages.AuthorizationResource, proof: Proof) -> Asked:
        name = resource.body.identifier.value
        for body in resource.body.challenges:
            if body.chall.typ == proof:
                return Asked(name, resource, body, self._jwk)
        raise Failure(
            FailureKind.REFUSED, f"The CA offers no {proof} challenge for {name}."
        )

    def _ask(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the library, with our words for what goes wrong."""
        self._network.retry_after = None
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise as_failure(error, self._network.retry_after) from error


def digest_of_key(key: ec.EllipticCurvePrivateKey) -> str:
    """Return the digest of a key's public half."""
    public = key.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(public).hexdigest()
