# SPDX-License-Identifier: MIT
"""
Secret input: sources and encoding of secrets.

One string says both::

    AAAA…=    standard base64 of the secret (RFC 4648, section 4)
    text:…    the secret itself, as UTF-8
    @PATH     a file that holds one of the two above and is its owner's alone, or
              root's and ours
    fd:N      an open file descriptor that holds one of them; it is closed

There is no guessing: what is not base64 in its one canonical form is refused rather
than taken as text. No message ever repeats what was given.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
import stat
from typing import Final

from hsm_core._files import is_open_to_others, others_may_change
from hsm_core.errors import ConfigurationError, UnsafeFileModeError

__all__ = [
    "MAX_SECRET_FILE_BYTES",
    "database_problem",
    "fingerprint",
    "is_literal_secret",
    "is_open_to_others",
    "others_may_change",
    "read_secret",
    "read_secret_text",
    "split_password",
    "without_secrets",
]

MAX_SECRET_FILE_BYTES: Final = 64 * 1024
"""Maximum size of a secret file, in bytes."""

_FINGERPRINT_LABEL: Final = b"FerroHSM fingerprint of a secret"
_FINGERPRINT_BYTES: Final = 6
_TEXT: Final = "text:"
_USER: Final = r"(://)[^/?#\s]*@"
_QUERY: Final = r"(://[^?#\s]*\?)[^#\s]*"
# libpq takes all up to an @ before the first / as user and password, ? and # too.
_USER_OF_URL: Final = r"([a-z][a-z0-9+.-]*://)([^/?#]*|[^/@]*)@"
_HOST: Final = r"(?:\[[0-9A-Fa-f:.%]*\]|[^][:@/?,]*)(?::\d*)?"
_DATABASE: Final = (
    rf"(?s)postgresql://(?:[^][:@/?]*@)?{_HOST}(?:,{_HOST})*(?:/[^@?]*)?(?:\?.*)?"
)
_PASSWORDS: Final = frozenset({"password", "sslpassword"})
_DESCRIPTOR: Final = re.compile(r"fd:(0|[1-9][0-9]{0,6})\Z")


def is_literal_secret(value: str) -> bool:
    """Return whether *value* is the secret itself, not a file or descriptor."""
    return not value.startswith(("@", "fd:"))


def without_secrets(text: str) -> str:
    """
    Return text without user, password and query of URLs in it.

    A token may be in each of them.

    Example:
        >>> without_secrets("vault:https://ada:secret@store.example/x?pin=1")
        'vault:https://***@store.example/x?***'
    """
    return re.sub(_QUERY, r"\1***", re.sub(_USER, r"\1***@", text))


def split_password(url: str) -> tuple[str, str]:
    """
    Return a URL without its password, and the password; empty if there is none.

    Example:
        >>> split_password("postgresql://ada:secret@db.example/hsm")
        ('postgresql://ada@db.example/hsm', 'secret')
    """
    found = ""
    if user := re.match(_USER_OF_URL, url):
        name, _, found = user[2].partition(":")
        url = f"{user[1]}{name}@{url[user.end() :]}"
    address, _, query = url.partition("?")
    kept = []
    for part in query.split("&"):
        name, _, value = part.partition("=")
        name = _percent_decoded(name)
        if "://" not in address or name not in _PASSWORDS:
            kept.append(part)
        elif name == "password":
            found = found or value
    query = "&".join(kept)
    return f"{address}?{query}" if query else address, _percent_decoded(found)


def database_problem(url: str) -> str:
    """
    Return what is wrong with the address of a database, or an empty text.

    In an address of another form, nobody could tell the password from the rest.

    Example:
        >>> database_problem("postgresql://ada@db.example/hsm?sslmode=verify-full")
        ''
    """
    if any(
        _percent_decoded(part.partition("=")[0]) == "sslpassword"
        for part in url.partition("?")[2].split("&")
    ):
        return "must not contain sslpassword. Use a key file without a passphrase."
    if re.fullmatch(_DATABASE, split_password(url)[0]) is None:
        return (
            "must be postgresql://USER@HOST:PORT/DATABASE. Percent-encode / : ? # @ % "
            "in user and password, such as %2F for /."
        )
    return ""


def _percent_decoded(text: str) -> str:
    if "%" not in text:
        return text
    # It is slow to load.
    from urllib.parse import unquote

    return unquote(text)


def fingerprint(secret: bytes) -> str:
    """
    Return the fingerprint of a secret, such as ``4F2A-91C0-77DE``.

    It identifies a secret of 32 random bytes and tells nothing of it. Do not publish it
    for a secret that could be guessed.
    """
    digest = hmac.digest(secret, _FINGERPRINT_LABEL, "sha256")
    text = digest[:_FINGERPRINT_BYTES].hex().upper()
    return "-".join(text[i : i + 4] for i in range(0, len(text), 4))


def read_secret(
    value: str,
    *,
    field: str,
    minimum: int,
    exact: int | None,
    check_modes: bool = True,
) -> bytes:
    """
    Return the secret that *value* holds or names.

    Args:
        value: See the head of this module.

        field: Name of the setting, for messages.

        minimum: Shortest secret accepted, in bytes after decoding.

        exact: The one length accepted, in bytes; None accepts any from *minimum* on.

        check_modes: Whether a file that others may read or write is refused.

    Raises:
        UnsafeFileModeError: Others than its owner may read or write the file, or it
            belongs to another user.
        ConfigurationError: It can't be read, and then ``facts`` hold ``unreadable``;
            or it is in neither form, or too short. No message repeats *value*.
    """
    text = read_secret_text(value, field=field, check_modes=check_modes)
    secret = _decode(text, field)
    if exact is not None and len(secret) != exact:
        raise ConfigurationError(
            f"{field} must be {exact} bytes after decoding, got {len(secret)}.",
            field=field,
        )
    if len(secret) < minimum:
        raise ConfigurationError(
            f"{field} must be at least {minimum} bytes after decoding, "
            f"got {len(secret)}.",
            field=field,
        )
    return secret


def read_secret_text(value: str, *, field: str, check_modes: bool = True) -> str:
    """
    Return the text that *value* holds or names, without decoding it.

    Meant for secrets that are text already, such as bearer tokens; arguments and errors
    are those of `read_secret`.
    """
    if value.startswith("@"):
        return _read_file(value[1:], field, check_modes=check_modes)
    if value.startswith("fd:"):
        return _read_descriptor(value, field)
    return value


def _read_file(path: str, field: str, *, check_modes: bool) -> str:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:
        raise _unreadable(field, error) from None
    return _read_all(descriptor, field, check_modes=check_modes)


def _read_descriptor(value: str, field: str) -> str:
    found = _DESCRIPTOR.match(value)
    if found is None:
        raise ConfigurationError(
            f"{field} must name a file descriptor as fd:N.", field=field
        )
    return _read_all(int(found[1]), field, check_modes=False)


def _read_all(descriptor: int, field: str, *, check_modes: bool) -> str:
    try:
        with os.fdopen(descriptor, "rb") as file:
            if check_modes:
                _check_owner_alone(file.fileno(), field)
            data = file.read(MAX_SECRET_FILE_BYTES + 1)
    except OSError as error:
        raise _unreadable(field, error) from None
    if len(data) > MAX_SECRET_FILE_BYTES:
        raise ConfigurationError(
            f"{field}: the file must be at most {MAX_SECRET_FILE_BYTES} bytes.",
            field=field,
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise _undecodable(field) from None
    return text.removesuffix("\n").removesuffix("\r")


def _check_owner_alone(descriptor: int, field: str) -> None:
    status = os.fstat(descriptor)
    if is_open_to_others(descriptor):
        mode = stat.S_IMODE(status.st_mode)
        raise UnsafeFileModeError(
            f"{field}: the file has mode {mode:04o}. Only its owner may have access; "
            "use mode 0600.",
            field=field,
        )
    if status.st_uid not in {0, os.geteuid()}:
        raise UnsafeFileModeError(
            f"{field}: the file must be owned by root or this user.", field=field
        )


def _unreadable(field: str, error: OSError | ValueError) -> ConfigurationError:
    reason = getattr(error, "strerror", None) or "invalid name"
    return ConfigurationError(
        f"{field}: the file or descriptor can't be read ({reason}).",
        field=field,
        unreadable=True,
    )


def _undecodable(field: str) -> ConfigurationError:
    return ConfigurationError(
        f"{field} must be standard base64 (RFC 4648, section 4, with padding), or a "
        f"plain secret with the prefix {_TEXT}.",
        field=field,
    )


def _decode(text: str, field: str) -> bytes:
    if text.startswith(_TEXT):
        try:
            return text.removeprefix(_TEXT).encode("utf-8")
        except UnicodeEncodeError:
            # An environment variable that is not UTF-8 comes with lone surrogates.
            raise _undecodable(field) from None
    try:
        secret = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        raise _undecodable(field) from None
    if base64.b64encode(secret).decode() != text:
        raise _undecodable(field)
    return secret
