# SPDX-License-Identifier: MIT
"""
ACME client: requests to the CA, step by step, and their failures.

All calls wait for the network, but none for long: the caller polls.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import requests
from acme import client, errors, messages
from acme.challenges import KeyAuthorizationChallenge
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from josepy.jwa import ES256
from josepy.jwk import JWK, JWKEC
from requests.adapters import HTTPAdapter
from requests.exceptions import ConnectionError as BrokenError
from requests.exceptions import ReadTimeout

from hsm_core.errors import HSMError
from hsm_server.__about__ import __version__
from hsm_server.system.standard_streams import sentence
from hsm_server.tls.acme.cache import Account, general_names
from hsm_server.tls.acme.challenges import Proof

_MOST_BYTES: Final = 1024 * 1024
_CONNECT_SECONDS: Final = 5.0
_SILENT_SECONDS: Final = 10.0
"""Time limit without any data."""

_ANSWER_SECONDS: Final = 20.0
"""Time limit of a whole response."""

_CHUNK_BYTES: Final = 16 * 1024
_MOST_NONCES: Final = 12
"""Maximum number of retries after a rejected nonce."""


class Network(client.ClientNetwork):
    """
    Network access of the ACME library.

    Args:
        key: Key of the account.

        authorities: PEM file of CAs that verify the CA's certificate.

    Attributes:
        retry_after: Retry-After header of the last refusal.

    Standard:
        RFC 8555, sections 6.1, 6.5 and 6.6.
    """

    def __init__(self, key: JWK, authorities: Path | None) -> None:
        super().__init__(
            key,
            alg=ES256,
            user_agent=f"ferrohsm/{__version__} acme-python",
        )
        self.retry_after: str | None = None
        # What a library takes from environment and home is not for this program.
        self.session.trust_env = False
        if authorities is not None:
            self.session.verify = str(authorities)
            self.verify_ssl = str(authorities)  # type: ignore[assignment]
        self.session.adapters.clear()
        self.session.mount("https://", _Limited(self._note))

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request, again as long as its nonce is what is wrong with it."""
        for _ in range(_MOST_NONCES):
            try:
                return super().post(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return super().post(*args, **kwargs)

    def _note(self, response: requests.Response) -> None:
        if not response.ok:
            self.retry_after = response.headers.get("Retry-After")


class _Limited(HTTPAdapter):
    """Adapter that limits size and time of responses."""

    def __init__(self, note: Callable[[requests.Response], None]) -> None:
        super().__init__()
        self._tell = note

    def send(  # type: ignore[override]
        self, request: requests.PreparedRequest, **options: Any
    ) -> requests.Response:
        """Send a request; its answer is read by who asks."""
        end = time.monotonic() + _ANSWER_SECONDS
        options |= {"stream": True, "timeout": (_CONNECT_SECONDS, _SILENT_SECONDS)}
        response = super().send(request, **options)
        response.raw = _Body(response.raw, end)
        self._tell(response)
        return response


class _Body:
    """Body of a response, limited in length and time."""

    def __init__(self, raw: Any, end: float) -> None:
        self._raw = raw
        self._end = end

    def stream(self, amount: int, decode_content: bool = True) -> Iterator[bytes]:
        """Yield the body in pieces."""
        try:
            yield from self._pieces(decode_content)
        except BaseException:
            # Its rest is not to be taken for another answer.
            self._raw.close()
            raise
        self._raw.release_conn()

    def _pieces(self, decode_content: bool) -> Iterator[bytes]:
        length = 0
        # Its own `stream` waits until there is as much as it was asked for.
        while piece := self._raw.read1(_CHUNK_BYTES, decode_content=decode_content):
            length += len(piece)
            if length > _MOST_BYTES:
                raise BrokenError("The response is too long.")
            if time.monotonic() > self._end:
                raise ReadTimeout("The response timed out.")
            yield piece

    def read(self, amount: int = _CHUNK_BYTES, decode_content: bool = True) -> bytes:
        """Read what a redirection has for a body."""
        return bytes(self._raw.read(amount, decode_content=decode_content))

    def close(self) -> None:
        """Close the connection."""
        self._raw.close()

    def release_conn(self) -> None:
        """Let the connection be used again."""
        self._raw.release_conn()

    @property
    def headers(self) -> Mapping[str, str]:
        """Of the answer."""
        return self._raw.headers  # type: ignore[no-any-return]


_LONGEST_TEXT: Final = 400
_LONGEST_WAIT: Final = 7 * 24 * 3600.0


class FailureKind(StrEnum):
    """Kinds of failures; values of a metric label."""

    UNREACHABLE = "unreachable"
    MALFORMED = "malformed"
    RATE_LIMITED = "rate_limited"
    NO_ACCOUNT = "no_account"
    REFUSED = "refused"
    NOT_PROVED = "not_proved"
    TOO_SLOW = "too_slow"
    UNUSABLE = "unusable"
    STORAGE = "storage"


class Failure(Exception):  # noqa: N818 (what it is)
    """
    Failed order.

    Attributes:
        kind: Kind for metrics.
        reason: A sentence for people.
        retry_at: Earliest next request, in Unix time, or 0.
    """

    def __init__(self, kind: FailureKind, reason: str, retry_at: float = 0.0) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.retry_at = retry_at


def as_failure(error: Exception, retry_after: str | None = None) -> Failure:
    """
    Return the failure of an exception.

    Args:
        error: Anything that the library raises.

        retry_after: Header of the answer that it is about, if there is one.
    """
    match error:
        case Failure():
            return error
        case messages.Error():
            return _refusal(error, retry_after)
        case errors.ValidationError():
            words = " ".join(_complaints(error))
            return Failure(FailureKind.NOT_PROVED, _said("Validation failed", words))
        case errors.IssuanceError():
            return _refusal(error.error, retry_after)
        case errors.TimeoutError() | TimeoutError():
            return Failure(FailureKind.TOO_SLOW, "The CA did not finish in time.")
        case requests.exceptions.InvalidSchema():
            reason = "The CA returned a URL that is not https."
            return Failure(FailureKind.MALFORMED, reason)
        case requests.exceptions.JSONDecodeError():
            return Failure(FailureKind.MALFORMED, "The response of the CA is not JSON.")
        case requests.RequestException():
            return Failure(FailureKind.UNREACHABLE, _unreachable(error))
        case HSMError():
            return Failure(FailureKind.UNUSABLE, sentence(error))
        case OSError():
            return Failure(FailureKind.UNREACHABLE, "Cannot connect to the CA.")
        case errors.Error():
            until = instant_after(retry_after)
            reason = "The CA sent an unexpected response."
            return Failure(FailureKind.MALFORMED, reason, until)
        case _:
            reason = f"The response of the CA is malformed ({type(error).__name__})."
            return Failure(FailureKind.MALFORMED, reason)


def instant_after(retry_after: str | None) -> float:
    """
    Return when a ``Retry-After`` is over, in Unix time; 0 if there is none.

    Standard:
        RFC 9110, section 10.2.3; no more than a week is waited for.
    """
    if retry_after is None:
        return 0.0
    now = time.time()
    try:
        if retry_after.isascii() and retry_after.isdigit():
            until = now + int(retry_after[:9])
        else:
            until = parsedate_to_datetime(retry_after).timestamp()
    except (ValueError, OverflowError):
        return 0.0
    return min(until, now + _LONGEST_WAIT)


def _refusal(error: messages.Error, retry_after: str | None) -> Failure:
    match error.code:
        case "rateLimited":
            kind = FailureKind.RATE_LIMITED
        case "accountDoesNotExist":
            kind = FailureKind.NO_ACCOUNT
        case _:
            kind = FailureKind.REFUSED
    words = f"{error.code or 'unknown'}: {error.detail or ''}"
    return Failure(
        kind, _said("The CA rejected the request", words), instant_after(retry_after)
    )


def _complaints(error: errors.ValidationError) -> Iterator[str]:
    for resource in error.failed_authzrs:
        for challenge in resource.body.challenges:
            if challenge.error is not None:
                name = resource.body.identifier.value
                yield f"{name}: {challenge.error.code}: {challenge.error.detail}"


def _said(what: str, words: str) -> str:
    """Return a sentence that quotes foreign text."""
    printable = "".join(c if c.isprintable() else " " for c in words)
    return f"{what} ({printable[:_LONGEST_TEXT].strip()})."


def _unreachable(error: requests.RequestException) -> str:
    match error:
        case requests.exceptions.SSLError():
            return (
                "The certificate of the CA's server is not trusted. Pass "
                "--acme-ca-bundle FILE."
            )
        case requests.exceptions.Timeout():
            return "The CA did not respond in time."
        case _:
            return "Cannot connect to the CA."


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
        Use an account, or register one; return it.

        Args:
            account: The stored account, if there is one.

            contacts: Contact addresses, as URIs.
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
