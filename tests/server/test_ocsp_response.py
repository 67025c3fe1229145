# SPDX-License-Identifier: MIT
"""What is believed of a response, and what isn't."""

import contextlib
import dataclasses
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from hsm_server.tls.ocsp.request import (
    NONCE_BYTES,
    Fault,
    UnusableError,
    build_request,
    get_url,
    subject_of,
)
from hsm_server.tls.ocsp.response import (
    MAX_RESPONSE_BYTES,
    Status,
    VerifiedResponse,
    check_response,
)
from tests.pki import Issued
from tests.server.ocsp_support import CA, HOUR, SHA1, failure, now_utc, twice

NOW: Final = now_utc() + 6 * HOUR
"""Later than any test runs: when a response was produced is read off the clock."""


class Authority(CA):
    """One whose answers are of that time, however late a test is run."""

    def answer(self, holder: Issued, **changes: Any) -> bytes:
        """Say something of a certificate; see `CA.answer`."""
        changes.setdefault("this_update", NOW - timedelta(minutes=1))
        return super().answer(holder, **changes)


CA_: Final = Authority()
STRANGER: Final = Authority("stranger")
SERVER: Final = CA_.issue()
OTHER: Final = CA_.issue("other")
SUBJECT: Final = CA_.subject(SERVER)
PAST: Final = NOW - 2 * HOUR
GOOD: Final = CA_.answer(SERVER, this_update=NOW)
NONCE: Final = b"n" * NONCE_BYTES


def check(der: bytes, nonce: bytes = b"") -> VerifiedResponse:
    """Check a response about the server, now."""
    return check_response(der, SUBJECT, NOW, nonce)


def said(answer: VerifiedResponse) -> VerifiedResponse:
    """Return what an answer says, without the bytes in which it does."""
    return dataclasses.replace(answer, der=b"")


class TestGood:
    @pytest.mark.parametrize(
        "key",
        [
            ec.generate_private_key(ec.SECP384R1()),
            rsa.generate_private_key(65537, 2048),
            ed25519.Ed25519PrivateKey.generate(),
            mldsa.MLDSA65PrivateKey.generate(),
        ],
        ids=["ecdsa", "rsa", "ed25519", "ml-dsa-65"],
    )
    def test_signed_by_the_issuer(self, key: Any) -> None:
        """An issuer with any kind of key is believed."""
        authority = Authority(key=key)
        server = authority.issue()
        der = authority.answer(server)

        answer = check_response(der, authority.subject(server), NOW)

        assert (Status.GOOD, der) == (answer.status, answer.der)

    @pytest.mark.parametrize("by_name", [True, False], ids=["name", "key"])
    def test_signed_by_a_delegate(self, by_name: bool) -> None:
        """Who has a certificate of the issuer for just that is believed."""
        delegate = CA_.delegate()
        der = CA_.answer(SERVER, signer=delegate, shows=(delegate,), by_name=by_name)

        assert Status.GOOD is check(der).status

    def test_delegate_of_the_same_name_as_its_issuer(self) -> None:
        """Who is called like the issuer is not taken for it."""
        key = ec.generate_private_key(ec.SECP256R1())
        delegate = CA_.issue(
            "test CA", urls=(), usage=ExtendedKeyUsageOID.OCSP_SIGNING, key=key
        )
        der = CA_.answer(SERVER, signer=delegate, shows=(delegate,), by_name=True)

        assert Status.GOOD is check(der).status

    @pytest.mark.parametrize(
        "digest",
        [SHA1, hashes.SHA256(), hashes.SHA384()],
        ids=["sha1", "sha256", "sha384"],
    )
    def test_certificate_named_by_any_digest(
        self, digest: hashes.HashAlgorithm
    ) -> None:
        """A responder names the certificate by the digest that it likes."""
        assert Status.GOOD is check(CA_.answer(SERVER, digest=digest)).status

    def test_revoked(self) -> None:
        """That a certificate is revoked is an answer, too."""
        der = CA_.answer(SERVER, status=ocsp.OCSPCertStatus.REVOKED)

        assert Status.REVOKED is check(der).status

    def test_nonce_that_is_repeated(self) -> None:
        """A nonce that comes back is right."""
        assert Status.GOOD is check(CA_.answer(SERVER, nonce=NONCE), NONCE).status

    def test_nonce_that_is_left_out(self) -> None:
        """A responder that prepares its answers knows no nonce."""
        assert Status.GOOD is check(CA_.answer(SERVER), NONCE).status

    def test_without_end(self) -> None:
        """A response without nextUpdate is good for an hour."""
        der = CA_.answer(SERVER, valid=None, this_update=NOW - HOUR / 2)

        assert NOW + HOUR / 2 == check(der).expires_at

    def test_responder_whose_clock_is_ahead(self) -> None:
        """Five minutes are forgiven."""
        der = CA_.answer(SERVER, this_update=NOW + timedelta(minutes=4))

        assert Status.GOOD is check(der).status


def by_delegate(delegate: Issued, **changes: Any) -> bytes:
    """Return a response that a delegate has signed, whose certificate is with it."""
    return CA_.answer(SERVER, signer=delegate, shows=(delegate,), **changes)


SHA256_WITH_RSA: Final = bytes.fromhex("06092a864886f70d01010b")
SHA1_WITH_RSA: Final = bytes.fromhex("06092a864886f70d010105")


def _digest_name(der: bytes) -> str:
    digest = ocsp.load_der_ocsp_response(der).signature_hash_algorithm
    assert digest is not None
    return digest.name


BAD: Final[dict[str, tuple[Callable[[], bytes], Fault]]] = {
    "empty": (lambda: b"", Fault.GARBAGE),
    "garbage": (lambda: b"<html>no</html>", Fault.GARBAGE),
    "cut off": (lambda: CA_.answer(SERVER)[:-1], Fault.GARBAGE),
    "followed by more": (lambda: CA_.answer(SERVER) + b"\0", Fault.GARBAGE),
    "huge": (lambda: b"\0" * (MAX_RESPONSE_BYTES + 1), Fault.TOO_LARGE),
    "other serial": (lambda: CA_.answer(OTHER), Fault.OTHER_CERTIFICATE),
    "other issuer": (
        lambda: CA_.answer(SERVER, issuer=STRANGER.certificate),
        Fault.OTHER_CERTIFICATE,
    ),
    "two entries": (
        lambda: twice(CA_.answer(SERVER), CA_.key),
        Fault.OTHER_CERTIFICATE,
    ),
    "other signer": (
        lambda: CA_.answer(SERVER, signer=STRANGER.root, shows=(STRANGER.root,)),
        Fault.RESPONDER,
    ),
    "signer not shown": (
        lambda: CA_.answer(SERVER, signer=CA_.delegate()),
        Fault.RESPONDER,
    ),
    "signed by another key": (
        lambda: CA_.answer(SERVER, signer=Authority().root, by_name=True),
        Fault.SIGNATURE,
    ),
    "delegate for servers": (
        lambda: by_delegate(CA_.delegate(usage=ExtendedKeyUsageOID.SERVER_AUTH)),
        Fault.RESPONDER,
    ),
    "delegate for nothing": (
        lambda: by_delegate(CA_.delegate(usage=None)),
        Fault.RESPONDER,
    ),
    "delegate expired": (
        lambda: by_delegate(CA_.delegate(days=(-2, -1))),
        Fault.RESPONDER,
    ),
    "delegate not yet valid": (
        lambda: by_delegate(CA_.delegate(days=(1, 2))),
        Fault.RESPONDER,
    ),
    "delegate of another": (
        lambda: by_delegate(STRANGER.delegate()),
        Fault.RESPONDER,
    ),
    "the certificate itself": (lambda: by_delegate(SERVER), Fault.RESPONDER),
    "delegate's key": (
        lambda: CA_.answer(
            SERVER, signer=Authority().delegate(), shows=(CA_.delegate(),), by_name=True
        ),
        Fault.SIGNATURE,
    ),
    "stale": (lambda: CA_.answer(SERVER, this_update=PAST), Fault.STALE),
    "stale without end": (
        lambda: CA_.answer(SERVER, this_update=PAST, valid=None),
        Fault.STALE,
    ),
    "future": (lambda: CA_.answer(SERVER, this_update=NOW + HOUR), Fault.FUTURE),
    "other nonce": (lambda: CA_.answer(SERVER, nonce=b"x" * 32), Fault.NONCE),
    "unknown": (
        lambda: CA_.answer(SERVER, status=ocsp.OCSPCertStatus.UNKNOWN),
        Fault.UNKNOWN,
    ),
    **{
        status.name.lower(): (lambda status=status: failure(status), fault)  # type: ignore[misc]
        for status, fault in {
            ocsp.OCSPResponseStatus.TRY_LATER: Fault.TRY_LATER,
            ocsp.OCSPResponseStatus.INTERNAL_ERROR: Fault.INTERNAL_ERROR,
            ocsp.OCSPResponseStatus.MALFORMED_REQUEST: Fault.MALFORMED_REQUEST,
            ocsp.OCSPResponseStatus.UNAUTHORIZED: Fault.UNAUTHORIZED,
            ocsp.OCSPResponseStatus.SIG_REQUIRED: Fault.SIG_REQUIRED,
        }.items()
    },
}


class TestBad:
    @pytest.mark.parametrize("kind", BAD)
    def test_bad_response(self, kind: str) -> None:
        """A response is refused for the right reason."""
        make, fault = BAD[kind]

        with pytest.raises(UnusableError) as caught:
            check(make(), NONCE)
        assert fault is caught.value.fault

    @pytest.mark.parametrize("kind", ["sha1", "sha256"])
    def test_digest_of_the_signature(self, kind: str) -> None:
        """SHA-1 is good enough for names, and not for signatures."""
        authority = Authority(key=rsa.generate_private_key(65537, 2048))
        server = authority.issue()
        der = authority.answer(server)
        response = ocsp.load_der_ocsp_response(der)
        if kind == "sha1":
            signature = authority.key.sign(
                response.tbs_response_bytes, padding.PKCS1v15(), SHA1
            )
            der = der.replace(SHA256_WITH_RSA, SHA1_WITH_RSA)
            der = der.replace(response.signature, signature)
            assert "sha1" == _digest_name(der)
            with pytest.raises(UnusableError, match="signature"):
                check_response(der, authority.subject(server), NOW)
        else:
            assert check_response(der, authority.subject(server), NOW).der == der

    def test_short_rsa_key(self) -> None:
        """A responder with 1024 bits is not believed."""
        authority = Authority(key=rsa.generate_private_key(65537, 1024))  # noqa: S505
        server = authority.issue()

        with pytest.raises(UnusableError, match="signature"):
            check_response(authority.answer(server), authority.subject(server), NOW)

    @given(st.data())
    def test_changed_response(self, data: st.DataObject) -> None:
        """With any bytes changed it isn't believed, or says the same still."""
        changed = bytearray(GOOD)
        for _ in range(data.draw(st.integers(1, 3))):
            place = data.draw(st.integers(0, len(GOOD) - 1))
            changed[place] = data.draw(st.integers(0, 255))
        if bytes(changed) == GOOD:
            return

        # How many bits of a signature are unused, for one, changes nothing of it.
        with contextlib.suppress(UnusableError):
            assert said(check(GOOD)) == said(check(bytes(changed)))

    @given(st.binary(max_size=200))
    def test_any_bytes(self, der: bytes) -> None:
        """No bytes raise anything else."""
        with pytest.raises(UnusableError):
            check(der)


class TestRequest:
    def test_request_too_long_for_get(self) -> None:
        """A longer one is not."""
        assert get_url("http://responder.test", build_request(SUBJECT)) is not None
        long = CA_.issue("long")
        request = build_request(CA_.subject(long))
        padded = type(request)(request.der + bytes(100), b"")

        assert get_url("http://responder.test", padded) is None

    def test_chain_without_issuer(self) -> None:
        """Without its issuer nothing can be checked."""
        assert subject_of([SERVER.der]) is None
        assert subject_of([SERVER.der, STRANGER.der]) is None
