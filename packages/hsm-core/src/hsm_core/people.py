# SPDX-License-Identifier: MIT
"""
People of an HSM's directory: their credentials, and their part of the policy.

The policy names each person with the fingerprint of their certificate, so a certificate
alone gives nobody access, even one that was made with a stolen CA key. The policy is
replaced last when a person is added, and first when one is removed or gets another
credential: after a crash in between, the person has no access.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from hsm_core._policies.certificate_identities import KnownPerson
from hsm_core.errors import ConfigurationError, ConflictError, InvalidInputError
from hsm_core.identities import is_reserved, same_person
from hsm_core.model import Record, Role
from hsm_core.policies import Policy, parse_policy, read_policy_file
from hsm_core.private_ca import PrivateCA, new_password
from hsm_core.private_files import replace_file
from hsm_core.secret_input import read_secret_text

__all__ = [
    "CA_FILE",
    "CA_KEY_FILE",
    "CREDENTIAL_DAYS",
    "PEOPLE_FOLDER",
    "POLICY_FILE",
    "REVOCATION_FILE",
    "NewPerson",
    "NoSuchPersonError",
    "People",
    "Person",
    "check_name",
    "policy_text",
]

CA_FILE: Final = "ca.pem"
CA_KEY_FILE: Final = "secrets/ca.key"
PEOPLE_FOLDER: Final = "people"
POLICY_FILE: Final = "policy.yaml"
REVOCATION_FILE: Final = "people/revoked.crl"

CREDENTIAL_DAYS: Final = 365
"""Default lifetime of a person's certificate, in days."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")
_BEGIN: Final = "identities:  # hsm-cli people writes the lines below"
_END: Final = "# end of the lines of hsm-cli people"
_ENTRY: Final = '  - principal: "'
_NOBODY: Final = "  []\n"
_OWN_ENTRIES: Final = re.compile(rf"{re.escape(_END)}\n(?: *(?:#[^\n]*)?\n)* +- ")
_MOST_BYTES: Final = 16 * 1024 * 1024


class NoSuchPersonError(InvalidInputError):
    """The directory has no credential of this person."""


class Person(Record, frozen=True, kw_only=True):
    """
    Person in the policy.

    Attributes:
        name: Principal.
        roles: Roles in the policy.
        expires_at: End of the certificate, Unix time; 0 without a certificate of the
            private CA.
        certificate_sha256: Its fingerprint, hex, or empty.
    """

    name: str
    roles: tuple[Role, ...]
    expires_at: float = 0.0
    certificate_sha256: str = ""


class NewPerson(Record, frozen=True, kw_only=True):
    """
    Person that was just added.

    Attributes:
        credential: PKCS#12 file.
        password: Its password; secret.
        password_file: File of the password, or None if it was not written.
    """

    repr_fields: ClassVar = ("credential",)

    credential: Path
    password: str
    password_file: Path | None = None


def policy_text(rules: str) -> str:
    """Return a policy without people, for `People`; *rules* are its other sections."""
    return f"{rules.rstrip()}\n\n{_BEGIN}\n{_NOBODY}{_END}\n"


class People:
    """
    People of a directory that ``hsm-server init`` has made.

    Args:
        directory: Directory of the HSM.

    Raises:
        ConfigurationError: It is none.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._folder = directory / PEOPLE_FOLDER
        self._policy = directory / POLICY_FILE
        self._revocations = directory / REVOCATION_FILE
        if not (directory / CA_FILE).is_file() or not self._folder.is_dir():
            raise ConfigurationError(
                f"{directory} was not created by hsm-server init: it has no "
                f"{CA_FILE} or no {PEOPLE_FOLDER}/. Pass the directory of the HSM.",
                field="directory",
            )

    def all(self) -> tuple[Person, ...]:
        """
        Return all people of the policy, by name.

        Raises:
            ConfigurationError: A file can't be read.
            InvalidInputError: The policy is not valid.
        """
        return tuple(map(self._person, self._parsed().people))

    def add(
        self,
        name: str,
        roles: Sequence[Role],
        *,
        days: int = CREDENTIAL_DAYS,
        keeps_password: bool = False,
        replaces: bool = False,
    ) -> NewPerson:
        """
        Add a person, with a new credential.

        Args:
            name: Principal; also the name of their files.

            roles: At least one; none keeps those of a person who is replaced.

            days: Lifetime of the certificate.

            keeps_password: Whether to write the password to a file.

            replaces: Whether to replace the credential of a person; the former
                certificate is revoked.

        Raises:
            InvalidInputError: The name can't be used, or no role is given.
            ConflictError: There is such a person, and *replaces* is not set.
            ConfigurationError: A file can't be read or written.
        """
        check_name(name)
        with self._locked():
            present = self._present(name)
            if replaces and not roles:
                roles = self._roles(present)
            if not roles:
                raise InvalidInputError(
                    f"{name} needs at least one role.", field="roles"
                )
            if present and not replaces:
                raise ConflictError(
                    f"{present} already has a credential. Pass --replace to revoke it "
                    "and issue a new one.",
                    field="name",
                )
            return self._issue(
                name, roles, days, present=present, keeps_password=keeps_password
            )

    def remove(self, name: str) -> None:
        """
        Remove a person from the policy, and revoke their certificate.

        Raises:
            NoSuchPersonError: There is no such person.
            ConfigurationError: A file can't be read or written.
        """
        _check_form(name)
        with self._locked():
            # A policy that is not valid at present keeps nobody's access.
            with contextlib.suppress(InvalidInputError):
                name = self._present(name) or name
            if not self._withdraw(name):
                raise NoSuchPersonError(
                    f"No person is named {name}. See 'hsm-cli people list'.",
                    field="name",
                )

    def _person(self, known: KnownPerson) -> Person:
        certificate = self._certificate(known.principal)
        roles = tuple(sorted(known.roles))
        if certificate is None:
            return Person(name=known.principal, roles=roles)
        return Person(
            name=known.principal,
            roles=roles,
            expires_at=certificate.not_valid_after_utc.timestamp(),
            certificate_sha256=_fingerprint(certificate),
        )

    def _issue(
        self,
        name: str,
        roles: Sequence[Role],
        days: int,
        *,
        present: str,
        keeps_password: bool,
    ) -> NewPerson:
        password = new_password()
        made = self._authority().issue_person(
            name, datetime.now(UTC), days=days, password=password
        )
        head, entries, tail = self._split_policy()
        entries = _without(present, entries)
        entries.append(_entry(name, roles, _fingerprint(made.certificate)))
        # A server would not load a policy that is not valid, nor later removals in it.
        parse_policy(_policy_with(head, entries, tail))
        if present:
            # A repeated call need not name the roles.
            self._write_policy(head, entries, tail)
        pem = self._file(name, "pem")
        self._revoke_credential(present or name, but=pem)
        # Its serial number is known from now on: an interrupted call is revoked.
        self._write(pem, made.certificate.public_bytes(Encoding.PEM))
        self._write(self._file(name, "p12"), made.pkcs12)
        password_file = self._file(name, "password") if keeps_password else None
        if password_file is not None:
            self._write(password_file, f"{password}\n".encode())
        if not present:
            self._write_policy(head, entries, tail)
        return NewPerson(
            credential=self._file(name, "p12"),
            password=password,
            password_file=password_file,
        )

    def _withdraw(self, name: str) -> bool:
        """Withdraw what a person has; return whether there was anything."""
        try:
            head, entries, tail = self._split_policy()
            left = _without(name, entries)
            had_entry = left != entries
            if had_entry:
                self._write_policy(head, left, tail)
        finally:
            had_credential = self._revoke_credential(name)
        return had_entry or had_credential

    def _revoke_credential(self, name: str, *, but: Path | None = None) -> bool:
        """
        Revoke a person's certificates, and remove their files but one.

        An interrupted call may have left one in another spelling of the name.
        """
        had_one = False
        found = {path.stem for path in self._folder.glob("*.pem")}
        for one in {name, *(other for other in found if same_person(other, name))}:
            certificate = self._certificate(one)
            if certificate is not None:
                self._revoke(certificate)
                had_one = True
            # The certificate goes last: until then, a repeated call revokes it.
            for suffix in ("p12", "password", "pem"):
                path = self._file(one, suffix)
                if path != but:
                    with _reported(path, "remove"):
                        path.unlink(missing_ok=True)
        return had_one

    def _revoke(self, certificate: x509.Certificate) -> None:
        now, serials = datetime.now(UTC), {}
        former = self._read(self._revocations)
        try:
            for revoked in x509.load_pem_x509_crl(former):
                serials[revoked.serial_number] = revoked.revocation_date_utc
        except ValueError:
            raise ConfigurationError(
                f"{self._revocations} contains no revocation list in PEM form.",
                field="directory",
            ) from None
        if serials.setdefault(certificate.serial_number, now) == now:
            crl = self._authority().revocation_list(serials, now)
            self._write(self._revocations, crl)

    def _authority(self) -> PrivateCA:
        # Refuses a key that other users can read.
        key = read_secret_text(
            f"@{self._directory / CA_KEY_FILE}", field="private key of the CA"
        )
        data = self._read(self._directory / CA_FILE)
        try:
            certificate = x509.load_pem_x509_certificate(data)
        except ValueError:
            raise ConfigurationError(
                f"{self._directory / CA_FILE} contains no PEM certificate.",
                field="directory",
            ) from None
        return PrivateCA.load(key.encode(), certificate)

    def _certificate(self, name: str) -> x509.Certificate | None:
        path = self._file(name, "pem")
        if not _NAME.match(name) or not path.exists():
            return None
        try:
            return x509.load_pem_x509_certificate(self._read(path))
        except ValueError:
            raise ConfigurationError(
                f"{path} contains no PEM certificate.", field="directory"
            ) from None

    def _roles(self, name: str) -> tuple[Role, ...]:
        """Return the roles of a person in the policy; none if there is nobody."""
        people = self._parsed().people
        found = (person.roles for person in people if person.principal == name)
        return tuple(sorted(next(found, frozenset())))

    def _present(self, name: str) -> str:
        """
        Return the name of the same person in the policy, or an empty text.

        Raises:
            ConflictError: The person stands elsewhere in the policy.
        """
        people = [person.principal for person in self._parsed().people]
        found = next((one for one in people if same_person(one, name)), "")
        own = f'{_ENTRY}{found}"\n'
        if found and not any(e.startswith(own) for e in self._split_policy()[1]):
            raise ConflictError(
                f"{self._policy} lists {found} outside the lines of hsm-cli people. "
                "Edit the file instead.",
                field="name",
            )
        return found

    def _write_policy(self, head: str, entries: Sequence[str], tail: str) -> None:
        self._write(self._policy, _policy_with(head, entries, tail).encode())

    def _split_policy(self) -> tuple[str, list[str], str]:
        """Return the policy before, in, and after the lines of people."""
        text = self._policy_text()
        head, begun, rest = text.partition(f"{_BEGIN}\n")
        lines, ended, tail = rest.partition(f"{_END}\n")
        if not begun or not ended:
            raise ConfigurationError(
                f"{self._policy} lacks the line '{_BEGIN}' or the line '{_END}'. "
                "Restore both, with the entries of people between them.",
                field="directory",
            )
        entries = re.split(r"(?m)^(?=  - )", lines)[1:]
        return head, entries, ended + tail

    def _parsed(self) -> Policy:
        return parse_policy(self._policy_text())

    def _policy_text(self) -> str:
        return read_policy_file(self._policy, for_use=True).decode()

    def _file(self, name: str, suffix: str) -> Path:
        return self._folder / f"{name}.{suffix}"

    def _read(self, path: Path) -> bytes:
        with _reported(path, "read"), path.open("rb") as file:
            return file.read(_MOST_BYTES)

    def _write(self, path: Path, data: bytes) -> None:
        with _reported(path, "write"):
            replace_file(path, data)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Exclude other processes that change people."""
        with _reported(self._folder, "lock"):
            descriptor = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._check_owner(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._remove_partial()
            yield
        finally:
            os.close(descriptor)

    def _remove_partial(self) -> None:
        """Remove what an interrupted `replace_file` left, such as a credential."""
        for path in (
            *self._folder.glob(".*.????????"),
            *self._directory.glob(f".{POLICY_FILE}.????????"),
        ):
            with _reported(path, "remove"):
                path.unlink(missing_ok=True)

    def _check_owner(self, descriptor: int) -> None:
        # The server could not read files of another user, such as a policy without a
        # removed person.
        owner = os.fstat(descriptor).st_uid
        if owner != os.geteuid():
            raise ConfigurationError(
                f"{self._folder} belongs to user {owner}. Run the command as that "
                "user, for example with sudo -u.",
                field="directory",
            )


def check_name(name: str) -> None:
    """
    Check that a person can have this name.

    Raises:
        InvalidInputError: It has another form, or is reserved.
    """
    _check_form(name)
    if is_reserved(name):
        raise InvalidInputError(f"{name!r} is reserved for the HSM.", field="name")


def _check_form(name: str) -> None:
    if not _NAME.match(name):
        raise InvalidInputError(
            "A name must be 1 to 64 letters, digits, '.', '_', '@' or '-', and begin "
            f"with a letter or digit, got {name!r:.80}.",
            field="name",
        )


def _without(name: str, entries: Sequence[str]) -> list[str]:
    """Return the lines of all people but one."""
    own = f'{_ENTRY}{name}"\n'
    return [entry for entry in entries if not entry.startswith(own)]


def _policy_with(head: str, entries: Sequence[str], tail: str) -> str:
    """Return a policy with these lines of people."""
    # The operator's own entries follow the last line.
    nobody = "" if _OWN_ENTRIES.match(tail) else _NOBODY
    return f"{head}{_BEGIN}\n{''.join(entries) or nobody}{tail}"


def _entry(name: str, roles: Sequence[Role], fingerprint: str) -> str:
    named = ", ".join(dict.fromkeys(roles))
    return (
        f'{_ENTRY}{name}"\n    roles: [{named}]\n    certificates: ["{fingerprint}"]\n'
    )


def _fingerprint(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()


@contextlib.contextmanager
def _reported(path: Path, verb: str) -> Iterator[None]:
    """Report an error of the operating system with the file's name."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"Cannot {verb} {path} ({error.strerror}).", field="directory"
        ) from None
