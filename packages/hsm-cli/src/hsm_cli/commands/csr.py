# SPDX-License-Identifier: MIT
"""Certificate signing requests (PKCS#10, RFC 2986), signed in the HSM."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import click
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding

from hsm_cli.invocation import Invocation
from hsm_cli.io.results import deliver_public
from hsm_cli.options import ListOption
from hsm_cli.parameters import HSMCommand, file_option, key_operand
from hsm_core.algorithms import HashAlgorithm, parse_algorithm, spec
from hsm_core.errors import InvalidInputError
from hsm_core.keys import HSMEllipticCurveKey, HSMRSAKey, PrivateKey


@click.command("csr", cls=HSMCommand)
@key_operand
@click.option(
    "--subject", default="", metavar="NAME", help="Subject, such as CN=web,O=Example."
)
@click.option(
    "--dns",
    cls=ListOption,
    metavar="NAME",
    help="DNS name; repeatable or comma-separated.",
)
@click.option(
    "--ip",
    cls=ListOption,
    metavar="ADDR",
    help="IP address; repeatable or comma-separated.",
)
@click.option(
    "--email",
    cls=ListOption,
    metavar="ADDR",
    help="Email address; repeatable or comma-separated.",
)
@click.option(
    "--uri", cls=ListOption, metavar="URI", help="URI; repeatable or comma-separated."
)
@click.option("--pss", is_flag=True, help="Sign with RSASSA-PSS (RSA keys only).")
@file_option("Write the request to a file.")
@click.pass_obj
def csr(
    invocation: Invocation,
    /,
    key_id: str,
    out: str | None,
    **names: Any,
) -> None:
    """
    Create a certificate signing request (PKCS#10, PEM), signed in the HSM.

    Supported keys: RSA, ECDSA, EdDSA and ML-DSA.
    """
    from hsm_core.keys import open_private_key

    key = open_private_key(invocation, key_id)
    data = request_certificate(key, CertificateNames(**names))
    record = {"key_id": key.key_id, "csr": data.decode()}
    deliver_public(invocation.output, data, out, record)


_SHA2: TypeAlias = hashes.SHA256 | hashes.SHA384 | hashes.SHA512

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")

_HASHES: Final[dict[HashAlgorithm, type[_SHA2]]] = {
    HashAlgorithm.SHA_256: hashes.SHA256,
    HashAlgorithm.SHA_384: hashes.SHA384,
    HashAlgorithm.SHA_512: hashes.SHA512,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateNames:
    """
    Names of a certificate to request.

    Attributes:
        subject: Distinguished name (RFC 4514), most specific part first; may be empty
            if there are other names.
        dns: DNS names, in ASCII.
        ip: IP addresses.
        email: Addresses, in ASCII.
        uri: URIs, in ASCII.
        pss: Whether an RSA key signs with RSASSA-PSS, not with PKCS#1 v1.5.
    """

    subject: str = ""
    dns: Sequence[str] = ()
    ip: Sequence[str] = ()
    email: Sequence[str] = ()
    uri: Sequence[str] = ()
    pss: bool = False


def request_certificate(key: PrivateKey, wanted: CertificateNames) -> bytes:
    """
    Return a signed certificate request as PEM (RFC 7468).

    Raises:
        InvalidInputError: A name is invalid, or there is none.
        HSMError: See `Sign`.
    """
    if wanted.pss and not isinstance(key, HSMRSAKey):
        raise InvalidInputError("--pss requires an RSA key.", field="pss")
    names = _other_names(wanted)
    if not wanted.subject and not names:
        raise InvalidInputError(
            "No name for the certificate. Pass --subject, --dns, --ip, --email or "
            "--uri.",
            field="subject",
        )
    builder = x509.CertificateSigningRequestBuilder(_subject(wanted.subject))
    if names:
        # Critical where nothing else names the holder (RFC 5280, section 4.2.1.6).
        builder = builder.add_extension(
            x509.SubjectAlternativeName(names), critical=not wanted.subject
        )
    hash = _hash_of(key)
    if wanted.pss:
        mask = padding.MGF1(hashes.SHA256())
        pss = padding.PSS(mask, padding.PSS.DIGEST_LENGTH)
        signed = builder.sign(key, hash, rsa_padding=pss)
    else:
        signed = builder.sign(key, hash)
    return signed.public_bytes(Encoding.PEM)


def _hash_of(key: PrivateKey) -> _SHA2 | None:
    """Return the hash of the signature; None if the algorithm includes one."""
    match key:
        case HSMRSAKey():
            return hashes.SHA256()
        case HSMEllipticCurveKey():
            return _HASHES[spec(parse_algorithm(key.curve.name)).hashes[0]]()
        case _:
            return None


def _subject(text: str) -> x509.Name:
    if not text:
        return x509.Name([])
    try:
        return x509.Name.from_rfc4514_string(text)
    except ValueError:
        raise InvalidInputError(
            "subject must be a distinguished name such as CN=hsm.example,O=Example.",
            field="subject",
        ) from None


def _other_names(wanted: CertificateNames) -> list[x509.GeneralName]:
    return [
        *(_text_name("dns", name, x509.DNSName) for name in wanted.dns),
        *(_address(name) for name in wanted.ip),
        *(_text_name("email", name, x509.RFC822Name) for name in wanted.email),
        *(
            _text_name("uri", name, x509.UniformResourceIdentifier)
            for name in wanted.uri
        ),
    ]


def _text_name(
    field: str,
    name: str,
    kind: type[x509.DNSName]
    | type[x509.RFC822Name]
    | type[x509.UniformResourceIdentifier],
) -> x509.GeneralName:
    if kind is x509.UniformResourceIdentifier and not _SCHEME.match(name):
        raise InvalidInputError(
            f"uri must begin with a scheme, got {name[:64]!r}. Write a comma in a URI "
            "as %2C.",
            field=field,
        )
    if not name or not name.isascii() or not name.isprintable() or " " in name:
        raise InvalidInputError(
            f"{field} must be printable ASCII without spaces.", field=field
        )
    try:
        return kind(name)
    except ValueError:
        raise InvalidInputError(
            f"{field} is not a valid name: {name[:64]!r}.", field=field
        ) from None


def _address(name: str) -> x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        raise InvalidInputError(
            f"ip must be an IP address, got {name[:64]!r}.", field="ip"
        ) from None
