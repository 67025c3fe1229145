# SPDX-License-Identifier: MIT
"""
Directory of a new HSM: complete, or not there.

Everything is made in a hidden folder beside it, which one rename puts in its place.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from hsm_core.errors import ConfigurationError
from hsm_core.people import (
    CA_FILE,
    CA_KEY_FILE,
    POLICY_FILE,
    REVOCATION_FILE,
    NewPerson,
    People,
    policy_text,
)
from hsm_core.private_ca import SERVER_DAYS, PrivateCA
from hsm_core.private_files import replace_file, sync_folder
from hsm_core.secret_input import read_secret
from hsm_server.bootstrap.stores import create_stores
from hsm_server.init.plan import (
    AUDIT_FILE,
    FOLDERS,
    ROOT_FILE,
    SERVER_FILE,
    SETTINGS_FILE,
    HSMPlan,
)

_KEY_BYTES: Final = 32
_TAKEN: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR})


class DirectoryTakenError(ConfigurationError):
    """There is something in the directory, perhaps an HSM. It is not touched."""


def check_free(directory: Path) -> None:
    """
    Check that a directory is missing or empty.

    Raises:
        DirectoryTakenError: It is neither.
        ConfigurationError: It can't be read, or its parent is missing.
    """
    try:
        found = sorted(os.listdir(directory))
    except FileNotFoundError:
        if directory.parent.is_dir():
            return
        raise ConfigurationError(
            f"The directory {directory.parent} does not exist. Create it first."
        ) from None
    except NotADirectoryError:
        raise DirectoryTakenError(
            f"{directory} is not a directory. Pass a new one."
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"Cannot read {directory} ({error.strerror})."
        ) from None
    if SETTINGS_FILE in found:
        raise DirectoryTakenError(
            f"{directory} already holds an HSM ({SETTINGS_FILE}). It was not changed."
        )
    owner = directory.stat().st_uid
    if not found and owner != os.geteuid():
        raise ConfigurationError(
            f"{directory} belongs to user {owner}. Run the command as that user, and "
            f"pass a new directory in it, such as {directory / 'hsm'}."
        )
    if found:
        raise DirectoryTakenError(
            f"{directory} is not empty: it contains {found[0]}. It was not changed. "
            "Pass a new or empty directory."
        )


@contextlib.contextmanager
def new_directory(directory: Path) -> Iterator[Path]:
    """
    Yield a hidden folder that becomes the directory, if the block succeeds.

    Otherwise it is removed. What a killed call left over is removed by the next one.

    Raises:
        DirectoryTakenError: The directory is no longer free.
        ConfigurationError: The folder can't be made, or can't become the directory.
    """
    parent, prefix = directory.parent, f".{directory.name}.init-"
    _sweep(parent, prefix)
    try:
        staging = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    except OSError as error:
        advice = (
            f"Pass a new directory in it, such as {directory / 'hsm'}"
            if directory.exists()
            else "Pass a directory whose parent is writable"
        )
        raise ConfigurationError(
            f"Cannot create a directory in {parent} ({error.strerror}). {advice}."
        ) from None
    try:
        with _locked(staging):
            yield staging
            for folder, _, _ in os.walk(staging):
                sync_folder(Path(folder))
            _put_in_place(staging, directory)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _put_in_place(staging: Path, directory: Path) -> None:
    try:
        os.rename(staging, directory)
    except OSError as error:
        if error.errno in _TAKEN:
            check_free(directory)
        raise ConfigurationError(
            f"Cannot create {directory} ({error.strerror}). If it is a mount point, "
            f"pass a directory in it, such as {directory / 'hsm'}."
        ) from None
    sync_folder(directory.parent)


@contextlib.contextmanager
def _locked(staging: Path) -> Iterator[None]:
    """Mark a folder as in use."""
    descriptor = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _sweep(parent: Path, prefix: str) -> None:
    """Remove what killed calls left over, and no other folder of such a name."""
    made = re.compile(f"{re.escape(prefix)}[a-z0-9_]{{8}}")
    for left in filter(lambda path: made.fullmatch(path.name), parent.iterdir()):
        with contextlib.suppress(OSError), _locked(left):
            found = left.lstat()
            if found.st_uid == os.geteuid() and found.st_mode & 0o777 == 0o700:
                shutil.rmtree(left, ignore_errors=True)


def fill(
    staging: Path,
    plan: HSMPlan,
    *,
    keeps_passwords: bool,
    report: Callable[[str], object],
) -> tuple[bytes, list[NewPerson]]:
    """
    Make everything of a new HSM.

    Args:
        staging: Empty folder.

        plan: Answers.

        keeps_passwords: Whether passwords of credentials are written to files.

        report: Called with each step that is done.

    Returns:
        Root key, and the people with their passwords.

    Raises:
        HSMError: Something can't be made.
    """
    for name in FOLDERS:
        (staging / name).mkdir(mode=0o700)
    root = _root_key(staging, plan)
    audit = secrets.token_bytes(_KEY_BYTES)
    _write_secret(staging / AUDIT_FILE, audit)
    report("root key, audit key")
    _issue(staging, plan)
    report(
        f"private CA, certificate for {plan.host} ({SERVER_DAYS} days, renewed by "
        "the server)"
    )
    _write(staging / POLICY_FILE, policy_text(plan.policy_rules()).encode())
    people = [
        People(staging).add(name, roles, keeps_password=keeps_passwords)
        for name, roles in plan.people.items()
    ]
    report(f"credentials for {_credentials(plan)}")
    begun = time.monotonic()
    create_stores(plan.core_settings(staging), master_key=root, hmac_key=audit)
    report(f"self-tests, stores ({plan.store}, {time.monotonic() - begun:.1f} s)")
    _write(staging / SETTINGS_FILE, plan.settings_text().encode())
    return root, people


def _root_key(staging: Path, plan: HSMPlan) -> bytes:
    if plan.root is not None:
        return read_secret(
            f"@{plan.root}", field="--root", minimum=_KEY_BYTES, exact=_KEY_BYTES
        )
    root = secrets.token_bytes(_KEY_BYTES)
    _write_secret(staging / ROOT_FILE, root)
    return root


def _issue(staging: Path, plan: HSMPlan) -> None:
    """Make the CA, the server's certificate, and the empty revocation list."""
    now = datetime.now(UTC)
    ca = PrivateCA.create(f"FerroHSM CA of {plan.host}", now)
    _write(staging / CA_KEY_FILE, ca.key_pem())
    _write(staging / CA_FILE, ca.certificate_pem())
    _write(staging / SERVER_FILE, ca.issue_server(plan.names, now))
    _write(staging / REVOCATION_FILE, ca.revocation_list({}, now))


def _credentials(plan: HSMPlan) -> str:
    return " and ".join(
        f"{name} ({', '.join(roles).lower()})" for name, roles in plan.people.items()
    )


def _write_secret(path: Path, secret: bytes) -> None:
    _write(path, base64.b64encode(secret) + b"\n")


def _write(path: Path, data: bytes) -> None:
    try:
        replace_file(path, data)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot write {path.name} ({error.strerror})."
        ) from None
