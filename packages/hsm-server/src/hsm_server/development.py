# SPDX-License-Identifier: MIT
"""
Development server (``--dev``): keys in memory, on this machine alone.

Its certificate, secrets, bearer token and audit log are in a private temporary folder,
and the client finds it by a connection profile. All of them vanish with the server.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import secrets
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

from hsm_core.dev_profile import NO_HOME, DevProfile, config_folder, dev_file
from hsm_core.errors import ConfigurationError
from hsm_core.model import Role
from hsm_core.private_files import make_private_folder, replace_file
from hsm_core.settings import ApprovalStoreKind, KeyStoreKind
from hsm_server.config.file import given_file
from hsm_server.config.loading import is_loopback
from hsm_server.config.options import environment_name
from hsm_server.config.settings import Isolation, LogFormat, LogLevel
from hsm_server.starting import Start
from hsm_server.system.standard_streams import announce, say

PRINCIPAL: Final = "dev"
"""Principal of the development server's token."""

_TYPED: Final = {ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT}
_MEMO: Final = "hsm_server.development"
_FLAG: Final = "--dev"
_TOKEN_SECONDS: Final = 366 * 24 * 3600

_OWN: Final[Mapping[str, str | None]] = {
    "store": None,
    "node-mark": None,
    "key-store": KeyStoreKind.MEMORY,
    "key-dir": None,
    "sqlite-path": None,
    "audit-store": None,
    "audit-log": None,
    "audit-sqlite-path": None,
    "approval-store": ApprovalStoreKind.MEMORY,
    "approval-dir": None,
    "approval-sqlite-path": None,
    "backup-dir": None,
    "retention-ledger": None,
    "tls-mode": None,
    "cert": None,
    "key": None,
    "master-key": None,
    "hmac-key": None,
    "auth-jwt-secret": None,
    "auth-jwt-config": None,
    "auth-jwt-jwks-url": None,
    "auth-jwt-issuer": None,
    "auth-jwt-audience": None,
    "auth-jwt-max-lifetime-secs": None,
    "isolation": Isolation.INLINE,
    "vault-user": None,
    "front-end-user": None,
}
"""Settings that a development server makes, by flag; with the one value to accept."""


@dataclass(frozen=True, slots=True, repr=False)
class Development:
    """
    Files and secrets of a development server.

    Attributes:
        folder: Private temporary folder.
        token_secret: HS256 key of its bearer token.
    """

    folder: Path
    token_secret: bytes

    @property
    def audit_log(self) -> Path:
        """File of the audit log."""
        return self.folder / "audit.log"

    @property
    def server_pem(self) -> Path:
        """File with private key, certificate and CA certificate of the listener."""
        return self.folder / "server.pem"

    def values(self) -> dict[str, Any]:
        """Return the settings of the server, by name of the parameter."""
        return {
            "bind": "127.0.0.1:0",
            "cert": (str(self.server_pem),),
            "key": (str(self.server_pem),),
            "key_store": KeyStoreKind.MEMORY.value,
            "audit_log": str(self.audit_log),
            "master_key": _random_secret(),
            "hmac_key": _random_secret(),
            "auth_jwt_secret": base64.b64encode(self.token_secret).decode(),
            "auth_jwt_max_lifetime_secs": _TOKEN_SECONDS,
            "isolation": Isolation.INLINE.value,
            "log_level": LogLevel.WARNING.value,
            "log_format": LogFormat.CONSOLE.value,
        }

    @contextlib.contextmanager
    def running(self, host: str) -> Iterator[None]:
        """
        Create the files of a server, and remove its profile at the end.

        Args:
            host: Address to listen on.

        Raises:
            ConfigurationError: They can't be written.
            UnsafeFileModeError: Other users have access to the profiles' folder.
        """
        # A socket of systemd could listen on any address.
        os.environ.pop("LISTEN_FDS", None)
        _make_config_folder()
        self._write_certificate(host)
        replace_file(self.folder / "token", self._token().encode())
        say(
            "DEVELOPMENT SERVER: keys, approvals and audit log are lost when it stops. "
            "Use no real keys."
        )
        try:
            yield
        finally:
            self._remove_profile()

    def adapt(self, start: Start) -> Start:
        """Return a start that announces the development server."""
        return replace(start, on_ready=self._on_ready)

    def _on_ready(self, url: str) -> None:
        """Write the profile, and announce the server."""
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            # It ends with its terminal, in place of a reload.
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, signal.raise_signal, signal.SIGTERM)
        profile = DevProfile(
            endpoint=url,
            ca_bundle=self.folder / "ca.pem",
            token_file=self.folder / "token",
            audit_log=self.audit_log,
            pid=os.getpid(),
        )
        replace_file(dev_file(), profile.to_toml().encode())
        say(f"audit log: {self.audit_log}")
        say(f"profile 'dev' for hsm-cli: {dev_file()}")
        say(f"console: {url}/ui (token: {self.folder / 'token'})")
        announce(url)

    def _write_certificate(self, host: str) -> None:
        # OpenSSL's configuration precedes everything else of cryptography.
        import hsm_server.tls.openssl  # noqa: F401
        from hsm_core.private_ca import PrivateCA

        now = datetime.now(UTC)
        authority = PrivateCA.create("FerroHSM development server", now)
        names = dict.fromkeys(["localhost", "127.0.0.1", "::1", host])
        replace_file(self.server_pem, authority.issue_server(list(names), now))
        replace_file(self.folder / "ca.pem", authority.certificate_pem())

    def _token(self) -> str:
        from joserfc import jwt
        from joserfc.jwk import OctKey

        now = int(time.time())
        claims = {
            "sub": PRINCIPAL,
            "roles": [role.value for role in Role],
            "iat": now,
            "exp": now + _TOKEN_SECONDS,
        }
        key = OctKey.import_key(self.token_secret)
        return jwt.encode({"alg": "HS256", "typ": "JWT"}, claims, key)

    def _remove_profile(self) -> None:
        with contextlib.suppress(OSError):
            # Another development server may have replaced it.
            if f'"{self.folder}/token"' in dev_file().read_text("utf-8"):
                dev_file().unlink()


def dev_option() -> click.Option:
    """Return the option that selects a development server."""
    return click.Option(
        [_FLAG],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        help="Run a development server on a loopback address, with a certificate and "
        "a token of its own. All data is lost when it stops. 'hsm-cli' finds it "
        "automatically.",
        callback=_prepare,
    )


def development_of(context: click.Context) -> Development | None:
    """
    Return the development server that a command line asks for, or None.

    Raises:
        click.UsageError: A setting contradicts it.
    """
    found: Development | None = context.meta.get(_MEMO)
    if found is None:
        return None
    given = [
        f"--{flag} ({environment_name(flag)})"
        for flag, accepted in _OWN.items()
        if _is_given(context, flag.replace("-", "_"))
        and context.params[flag.replace("-", "_")] != accepted
    ]
    if given:
        raise click.UsageError(
            f"--dev sets {', '.join(given)} itself. Remove the flag, variable or "
            "setting, or start without --dev for an HSM that keeps its keys."
        )
    host = context.params["bind"].host
    if not is_loopback(host):
        raise click.UsageError(
            f"--dev listens on a loopback address only, such as 127.0.0.1; --bind is "
            f"{host}."
        )
    return found


def _prepare(context: click.Context, option: click.Parameter, value: bool) -> None:
    if not value or context.resilient_parsing:
        return
    # They load a dozen modules, which no other server needs.
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="ferrohsm-dev-"))
    context.call_on_close(lambda: shutil.rmtree(folder, ignore_errors=True))
    found = Development(folder, secrets.token_bytes(32))
    context.meta[_MEMO] = found
    context.default_map = {**found.values(), **(context.default_map or {})}


def _is_given(context: click.Context, name: str) -> bool:
    file = given_file(context)
    is_in_file = file is not None and name in file.lines
    return is_in_file or context.get_parameter_source(name) in _TYPED


def _random_secret() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def _make_config_folder() -> None:
    folder = config_folder()
    if folder.is_relative_to(NO_HOME):
        raise ConfigurationError(
            "The home directory of this user is unknown. Set XDG_CONFIG_HOME to the "
            "directory for connection profiles."
        )
    try:
        make_private_folder(folder)
    except OSError as error:
        raise ConfigurationError(
            f"{folder}, the directory of connection profiles, can't be created "
            f"({error.strerror}). Set XDG_CONFIG_HOME to another directory."
        ) from None
