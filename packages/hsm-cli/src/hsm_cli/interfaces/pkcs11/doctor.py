# SPDX-License-Identifier: MIT
"""Checks of the way from a program to the token."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from hsm_cli.interfaces.access import Access, LocalProgram
from hsm_cli.interfaces.pkcs11.server import HIGHEST_VERSION
from hsm_core.errors import HSMError, StoreLockedError
from hsm_core.model import Record
from hsm_core.operations import DescribeCaller, ListKeys

ADDRESS: Final = "P11_KIT_SERVER_ADDRESS"
"""Variable with which p11-kit's client module finds the socket."""

_MODULE: Final = ("lib/*/pkcs11", "lib64/pkcs11", "lib/pkcs11")
_PROVIDER: Final = ("lib/*/ossl-modules", "lib64/ossl-modules", "lib/ossl-modules")
_SYSTEM_MODULES: Final = Path("/etc/pkcs11/modules")
_PREFIX: Final = "unix:path="
_SECONDS: Final = 10


class Check(Record, frozen=True, kw_only=True):
    """
    Result of one check.

    Attributes:
        name: What was checked.
        is_needed: Whether programs can't use the token without it.
        remedy: What to do if it is not well; else empty.
    """

    name: str
    is_well: bool
    is_needed: bool
    found: str
    remedy: str = ""


def checks(access: Access) -> Iterator[Check]:
    """Check p11-kit's module, credential, socket and OpenSSL's provider, in order."""
    yield _client_module()
    yield _credential(access)
    address = os.environ.get(ADDRESS, "")
    modules = _module_files()
    if address:
        yield _socket(address)
    elif modules:
        yield _well("Token", f"p11-kit starts it: {', '.join(map(str, modules))}")
    else:
        yield _ill(
            "Token",
            f"{ADDRESS} is not set, and no module file names hsm-cli",
            "Run hsm-cli pkcs11 serve, and set the variable to unix:path=SOCKET.",
        )
    yield _provider()


def _well(name: str, found: str, *, is_needed: bool = True) -> Check:
    return Check(name=name, is_well=True, is_needed=is_needed, found=found)


def _ill(name: str, found: str, remedy: str, *, is_needed: bool = True) -> Check:
    return Check(
        name=name, is_well=False, is_needed=is_needed, found=found, remedy=remedy
    )


def _search(folders: tuple[str, ...], name: str) -> Path | None:
    usr = Path("/usr")
    return next(
        (path for folder in folders for path in usr.glob(f"{folder}/{name}")), None
    )


def _client_module() -> Check:
    name, file = "Client module", "p11-kit-client.so"
    path = _search(_MODULE, file)
    if path is not None:
        return _well(name, str(path))
    return _ill(
        name,
        f"no {file} below /usr",
        "Install p11-kit's modules (Debian: apt install p11-kit-modules).",
    )


def _credential(access: Access) -> Check:
    name = "HSM"
    if access.is_locked:
        return _well(name, f"{access.shown}: programs log in with the PIN")
    try:
        hsm = access.hsm(LocalProgram())
        caller = hsm.execute(DescribeCaller())
        keys = hsm.execute(ListKeys(per_page=1)).total
    except StoreLockedError as error:
        remedy = "Stop the process that has the HSM open, such as hsm-cli pkcs11 serve."
        return _ill(name, str(error), remedy)
    except HSMError as error:
        return _ill(name, f"{access.shown}: {error}", "Run hsm-cli login.")
    return _well(name, f"{access.shown}: {caller.principal}, {keys} keys")


def _module_files() -> list[Path]:
    """Return module files of p11-kit that start hsm-cli, or connect to a socket."""
    folders = [_SYSTEM_MODULES]
    if os.geteuid() != 0:  # p11-kit reads no files of root's own
        own = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        folders.insert(0, own / "pkcs11" / "modules")
    files = [path for folder in folders for path in sorted(folder.glob("*.module"))]
    return [path for path in files if _names_us(path)]


def _names_us(path: Path) -> bool:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return False
    remotes = [line for line in lines if line.strip().startswith("remote:")]
    return any("hsm-cli" in line or "ferrohsm" in line for line in remotes)


def _socket(address: str) -> Check:
    name, path = "Token", unquote(address.removeprefix(_PREFIX))
    if not address.startswith(_PREFIX):
        return _ill(
            name, f"{ADDRESS}={address}", f"Set it to {_PREFIX}SOCKET, without spaces."
        )
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_SECONDS)
            connection.connect(path)
            connection.sendall(bytes((HIGHEST_VERSION,)))
            answer = connection.recv(1)
    except OSError as error:
        return _ill(
            name,
            f"{path}: {error.strerror or 'no answer'}",
            f"Run hsm-cli pkcs11 serve --socket {path}.",
        )
    if not answer:
        return _ill(
            name, f"{path}: closed", "Run hsm-cli pkcs11 serve as the same user."
        )
    return _well(name, f"{path}: protocol {answer[0]}")


def _provider() -> Check:
    name = "OpenSSL's provider"
    path = _search(_PROVIDER, "pkcs11.so")
    if path is not None:
        return _well(name, str(path), is_needed=False)
    return _ill(
        name,
        "no ossl-modules/pkcs11.so below /usr",
        "OpenSSL needs it (Debian: apt install pkcs11-provider).",
        is_needed=False,
    )
