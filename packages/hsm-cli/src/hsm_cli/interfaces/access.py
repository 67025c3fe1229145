# SPDX-License-Identifier: MIT
"""HSM of a local interface: a server's or an embedded one, for local programs."""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar

from hsm_cli.io.output import print_note
from hsm_core.errors import (
    ApprovalRequiredError,
    AuthenticationError,
    ConfigurationError,
    HSMError,
)
from hsm_core.model import Caller, parse_role
from hsm_core.operations import ApprovalInfo, Operation

if TYPE_CHECKING:
    from hsm_client import RemoteHSM
    from hsm_client.settings import ClientSettings
    from hsm_core import EmbeddedHSM
    from hsm_core.protocols import HSM
    from hsm_core.settings import AuditSync

R = TypeVar("R")

MAX_PIN_BYTES: Final = 255
"""Longest PIN accepted."""

MAX_WRONG_PINS: Final = 10
"""Wrong PINs in a row that lock an interface until it is started again."""

_NOTE_SECONDS: Final = 10.0
"""Period in which the same note is printed once."""

_MOST_NOTES: Final = 20
"""Notes of a period."""


class WrongPinError(AuthenticationError):
    """The PIN is wrong, or missing; ``facts["tries_left"]`` says how many are left."""


class PinLockedError(AuthenticationError):
    """Too many wrong PINs: no PIN is accepted until the interface is started again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalProgram:
    """
    Local program that uses an interface.

    Attributes:
        uid: User of the program, as the system says; None if it does not.
        name: Name that it states; not verified.
    """

    uid: int | None = None
    name: str = ""

    def __str__(self) -> str:
        """Return what records and notes show: printable ASCII."""
        name = ascii(self.name)[1:-1][:64].strip()
        user = "" if self.uid is None else f"uid {self.uid}"
        return " ".join(filter(None, (name, user)))


class Connector(Protocol):
    """Way to an HSM."""

    @property
    def shown(self) -> str:
        """Name of the profile, endpoint, or path of the store."""
        ...

    @property
    def label(self) -> str:
        """Short form of that, for tokens, whose labels have 32 bytes."""
        ...

    @property
    def takes_pin(self) -> bool:
        """Whether a PIN opens the credential."""
        ...

    @property
    def is_embedded(self) -> bool:
        """Whether the HSM is in this process: it executes what has no route."""
        ...

    @property
    def is_renewable(self) -> bool:
        """Whether a new credential may be where one was read that is refused now."""
        ...

    def open(self, pin: str) -> None:
        """
        Open the HSM; if it is open, check the PIN.

        Args:
            pin: Opens the credential, if that takes a PIN.

        Raises:
            WrongPinError: The PIN does not open it.
            HSMError: The HSM can't be opened.
        """
        ...

    def act_for(self, interface: str, program: str) -> HSM:
        """Return the open HSM, for one program that uses an interface."""
        ...

    def close(self) -> None:
        """Close the HSM. It can be opened again."""
        ...


class Access:
    """
    HSM of an interface, for all programs that use it. Thread-safe.

    If a PIN opens the credential, the HSM is open only while a program is logged in.
    Refusals, open approval requests and why the HSM can't be opened are printed on
    standard error.

    Args:
        interface: Name of the interface, such as ``pkcs11``.

        connector: Way to the HSM.

        pin: PIN that programs must give to log in, where none opens the credential.

        notify: Called with each line for the user.

    Attributes:
        label: Name of the profile or folder, or the endpoint.
        shown: Name of the profile, endpoint, or path of the store.
        takes_pin: Whether programs log in with a PIN; else the user's credential is
            enough.
    """

    def __init__(
        self,
        interface: str,
        connector: Connector,
        *,
        pin: bytes = b"",
        notify: Callable[[str], None] = print_note,
    ) -> None:
        self.interface = interface
        self.label = connector.label
        self.shown = connector.shown
        self.takes_pin = bool(pin) or connector.takes_pin
        self._connector = connector
        self._pin = pin
        self._notify = notify
        self._notes = _Notes(notify)
        self._lock = threading.Lock()
        self._logins = 0
        self._wrong = 0
        self._openings = count(1)
        self._opening = 0

    @property
    def is_embedded(self) -> bool:
        """Whether the HSM is in this process, and not a server's."""
        return self._connector.is_embedded

    @property
    def tries_left(self) -> int:
        """Number of wrong PINs until no PIN is accepted."""
        return MAX_WRONG_PINS - self._wrong

    @property
    def is_opened_by_pin(self) -> bool:
        """Whether a PIN opens the credential."""
        return self._connector.takes_pin

    @property
    def is_locked(self) -> bool:
        """Whether the credential is closed until a program logs in."""
        return self._connector.takes_pin and not self._opening

    def note(self, text: str) -> None:
        """Print a note for the user; programs that cause many print few."""
        self._notes.add(text)

    def log(self, text: str) -> None:
        """Print a line for the user each time, for what no program can cause often."""
        self._notify(text)

    def log_in(self, pin: bytes | None) -> None:
        """
        Log a program in; it logs out with `log_out`.

        Args:
            pin: PIN as UTF-8; None or anything else if the credential takes none.

        Raises:
            WrongPinError: The PIN is wrong or missing.
            PinLockedError: Too many PINs were wrong.
            HSMError: The HSM can't be opened.
        """
        with self._lock:
            if self.takes_pin:
                self._check_pin(pin or b"")
            self._open()
            self._logins += 1

    def log_out(self) -> None:
        """Log a program out; the last one closes a credential that takes a PIN."""
        with self._lock:
            self._logins -= 1
            if self._connector.takes_pin and not self._logins:
                self._close()

    def hsm(self, program: LocalProgram) -> HSM:
        """
        Return the HSM for one program; it can be used again after each login.

        Raises:
            WrongPinError: No program is logged in, and a PIN opens the credential.
            HSMError: The HSM can't be opened.
        """
        found = _ProgramHSM(self, program, self._notes)
        found.open()
        return found

    def is_open_as(self, opening: int) -> bool:
        """Return whether the HSM is open, and was not closed since an opening."""
        # Without the lock: a login that checks a slow password holds nobody up.
        return opening == self._opening

    def act_for(self, program: LocalProgram) -> Acting:
        """
        Return a connection for one program.

        Raises:
            HSMError: See `hsm`.
        """
        with self._lock:
            if self.is_locked:
                raise WrongPinError("Log in with the PIN first.")
            self._open()
            hsm = self._connector.act_for(self.interface, str(program))
            return Acting(hsm, self._opening)

    def renew(self, opening: int) -> None:
        """Read the credential again before its next use, if it may be a new one."""
        with self._lock:
            if self.is_open_as(opening) and self._connector.is_renewable:
                self._close()

    def close(self) -> None:
        """Close the HSM."""
        with self._lock:
            self._close()

    def _check_pin(self, pin: bytes) -> None:
        """Check a PIN, also if the credential is open for another program."""
        if not self.tries_left:
            raise PinLockedError(
                f"{MAX_WRONG_PINS} wrong PINs were entered. Restart hsm-cli."
            )
        if not self._is_right(pin):
            self._wrong += 1
            self._notes.add(
                f"{self.interface}: wrong PIN; {self.tries_left} tries left."
            )
            raise WrongPinError("The PIN is wrong.", tries_left=self.tries_left)
        self._wrong = 0

    def _is_right(self, pin: bytes) -> bool:
        if len(pin) > MAX_PIN_BYTES:
            return False
        if self._pin:
            return hmac.compare_digest(self._pin, pin)
        try:
            self._connector.open(pin.decode())
        except (UnicodeDecodeError, WrongPinError):
            return False
        self._opening = self._opening or next(self._openings)
        return True

    def _open(self) -> None:
        if not self._opening:
            try:
                self._connector.open("")
            except HSMError as error:
                self._notes.add(f"{self.interface}: {_reason(error)}")
                raise
            self._opening = next(self._openings)

    def _close(self) -> None:
        if self._opening:
            self._opening = 0
            self._connector.close()


class Acting(NamedTuple):
    """
    Connection of one program.

    Attributes:
        hsm: Executes operations.
        opening: Number of the opening of the HSM that it belongs to.
    """

    hsm: HSM
    opening: int


class _ProgramHSM:
    """HSM of a program; prints why it refuses something, as programs show a code."""

    def __init__(self, access: Access, program: LocalProgram, notes: _Notes) -> None:
        self._access = access
        self._program = program
        self._who = f"{access.interface}: {program}".rstrip(": ")
        self._notes = notes
        self._acting: Acting | None = None

    def open(self) -> HSM:
        """Return the HSM; after a login that opened it again, by a new connection."""
        if self._acting is None or not self._access.is_open_as(self._acting.opening):
            self._acting = self._access.act_for(self._program)
        return self._acting.hsm

    def execute(
        self,
        operation: Operation[R],
        /,
        *,
        idempotency_key: str | None = None,
        approval_id: str = "",
        expected_generation: int = 0,
    ) -> R:
        """Execute one operation; see `HSM.execute`."""
        try:
            return self.open().execute(
                operation,
                idempotency_key=idempotency_key,
                approval_id=approval_id,
                expected_generation=expected_generation,
            )
        except HSMError as error:
            if _is_refusal(error) and self._acting is not None:
                self._access.renew(self._acting.opening)
            kind, key = type(operation).__name__, getattr(operation, "key_id", "")
            what = f"{kind} with key {key}" if key else kind
            self._notes.add(f"{self._who}: {what}: {_reason(error)}")
            raise


def _is_refusal(error: HSMError) -> bool:
    """Return whether server or client refused the other one."""
    is_in_handshake = error.facts.get("reason") in {"tls", "certificate"}
    return is_in_handshake or isinstance(error, AuthenticationError)


def _reason(error: HSMError) -> str:
    """Return why an operation was refused, and what to do about it."""
    if not isinstance(error, ApprovalRequiredError):
        return f"{error} [{error.code}]"
    approval_id = error.facts.get("approval_id", "")
    request = error.approval
    missing = request.missing if isinstance(request, ApprovalInfo) else ()
    return (
        f"approval required ({'; '.join(missing) or 'see the request'}). To approve: "
        f"hsm-cli approvals approve {approval_id}; to list requests: hsm-cli approvals "
        "list. Then use the program again."
    )


class _Notes:
    """Notes for the user: each once in a period, and few of them, for all programs."""

    def __init__(self, notify: Callable[[str], None]) -> None:
        self._notify = notify
        self._printed: set[str] = set()
        self._until = 0.0

    def add(self, text: str) -> None:
        """Print a note."""
        now = time.monotonic()
        if now >= self._until:
            self._printed.clear()
            self._until = now + _NOTE_SECONDS
        if text in self._printed or len(self._printed) > _MOST_NOTES:
            return
        if len(self._printed) == _MOST_NOTES:
            text = f"further notes are suppressed for {_NOTE_SECONDS:.0f} seconds."
        self._printed.add(text)
        self._notify(text)


class Server:
    """
    HSM on the server of a connection.

    The PIN is the password of the client certificate, where none is stored.

    Args:
        settings: Connection and credential.

    Raises:
        HSMError: The credential can't be read.
    """

    is_embedded: Final = False

    def __init__(self, settings: ClientSettings) -> None:
        profile = settings.profile
        self.shown = profile.name if profile is not None else settings.endpoint
        self.label = self.shown
        self.takes_pin = _is_encrypted(settings)
        given = settings.token.auth_token or settings.token.jwt_secret
        self.is_renewable = (
            not self.takes_pin and not given and settings.token.private_key is None
        )
        # A descriptor is closed once it was read, and its number may be that of the
        # socket of a program by now.
        self._keeps_token = given.startswith("fd:")
        self._token: Callable[[], str] | None = None
        self._settings = settings
        self._remote: RemoteHSM | None = None

    def open(self, pin: str) -> None:
        """Connect; see `Connector.open`."""
        from msgspec.structs import replace

        from hsm_client.remote import RemoteHSM, open_remote
        from hsm_client.tokens import open_token

        settings = self._settings
        if self.takes_pin:
            settings = replace(settings, client_key_password=pin)
            if not _opens(settings):
                raise WrongPinError("The PIN is wrong.")
        if self._remote is None:
            if self._token is None or not self._keeps_token:
                has_certificate = settings.client_cert is not None
                self._token = open_token(
                    settings.token, has_certificate=has_certificate
                )
            self._remote = open_remote(RemoteHSM, settings, token=self._token)

    def act_for(self, interface: str, program: str) -> HSM:
        """Return the server's HSM; see `Connector.act_for`."""
        assert self._remote is not None  # noqa: S101 (for the type checker)
        return self._remote.for_interface(
            f"{interface}: {program}" if program else interface
        )

    def close(self) -> None:
        """Close all connections."""
        if self._remote is not None:
            self._remote.close()
            self._remote = None


def _is_encrypted(settings: ClientSettings) -> bool:
    """Return whether the client certificate needs a password that is not stored."""
    certificate = settings.client_cert
    if certificate is None or settings.client_key_password:
        return False
    from hsm_client.client_certificates import is_encrypted
    from hsm_client.profile_secrets import key_password_of

    if not is_encrypted(certificate, settings.client_key):
        return False
    try:
        return not key_password_of(settings)
    except ConfigurationError:
        return True


def _opens(settings: ClientSettings) -> bool:
    """Return whether the password opens the client certificate."""
    from hsm_client.client_certificates import has_password

    assert settings.client_cert is not None  # noqa: S101 (for the type checker)
    return has_password(
        settings.client_cert, settings.client_key, settings.client_key_password
    )


class Embedded:
    """
    HSM inside this process.

    Args:
        folder: Folder of the HSM; see `hsm_core.open`.

        root: File of the root key.

        principal: Name of the user in policy and audit log.

        roles: Names of the user's roles.

        audit_key: File of the audit key; None derives it from the root key.

        policy: Policy file; None means the built-in policy.

        audit_sync: Durability of audit records before a result; None means ``strict``.

    Raises:
        InvalidInputError: There is no such role.
    """

    takes_pin: Final = False
    is_embedded: Final = True
    is_renewable: Final = False

    def __init__(
        self,
        folder: Path,
        root: Path,
        *,
        principal: str,
        roles: Iterable[str],
        audit_key: Path | None = None,
        policy: Path | None = None,
        audit_sync: AuditSync | None = None,
    ) -> None:
        self.shown = str(folder)
        self.label = folder.resolve().name or self.shown
        self._root = root
        self._audit_key = audit_key
        self._policy = policy
        self._audit_sync = audit_sync
        self._principal = principal
        self._roles = frozenset(map(parse_role, roles))
        self._opened: EmbeddedHSM | None = None

    def open(self, pin: str) -> None:
        """Open the store; see `Connector.open`."""
        import hsm_core

        if self._opened is None:
            self._opened = hsm_core.open(
                self.shown,
                root=self._root,
                audit_key=self._audit_key,
                policy=self._policy,
                audit_sync=self._audit_sync,
            )

    def act_for(self, interface: str, program: str) -> HSM:
        """Return the HSM of the user; see `Connector.act_for`."""
        assert self._opened is not None  # noqa: S101 (for the type checker)
        caller = Caller(
            principal=self._principal,
            roles=self._roles,
            interface=interface,
            interface_claimed=program,
        )
        return self._opened.gateway.act_as(caller)

    def close(self) -> None:
        """Release the store."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None
