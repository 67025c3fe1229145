# SPDX-License-Identifier: MIT
"""Plan of a new HSM, and the settings and policy that it is written as."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from hsm_core.model import Role
from hsm_core.people import CA_FILE, CA_KEY_FILE, POLICY_FILE, REVOCATION_FILE
from hsm_core.settings import ApprovalStoreKind, AuditStoreKind, KeyStoreKind, Settings

PORT: Final = 8443
SETTINGS_FILE: Final = "hsm.toml"
ROOT_FILE: Final = "secrets/root.key"
AUDIT_FILE: Final = "secrets/audit.key"
SERVER_FILE: Final = "tls/server.pem"
FOLDERS: Final = ("data", "people", "secrets", "tls")

_KEYS: Final = {"sqlite": "data/keys.sqlite", "files": "data/keys"}
_POLICY_SECONDS: Final = 0.25
"""A removed person is rejected after two readings of the policy."""


class StoreKind(StrEnum):
    """Kind of all stores of a new HSM."""

    SQLITE = "sqlite"
    FILES = "files"


@dataclass(frozen=True, slots=True, kw_only=True)
class HSMPlan:
    """
    Answers to the questions.

    Attributes:
        directory: Directory of the HSM, absolute.
        host: DNS name or IP address that clients use.
        admin: First administrator.
        second: Second person, or an empty text.
        store: Kind of the stores.
        root: Existing file of the root key; None makes a new key.
    """

    directory: Path
    host: str
    admin: str
    second: str
    store: StoreKind
    root: Path | None

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the server's certificate; those of this machine for its users."""
        return tuple(dict.fromkeys((self.host, "localhost", "127.0.0.1", "::1")))

    @property
    def people(self) -> Mapping[str, tuple[Role, ...]]:
        """Roles by person: without a second person, the first one has all."""
        if self.second:
            return {
                self.admin: (Role.ADMINISTRATOR,),
                self.second: (Role.OPERATOR, Role.AUDITOR),
            }
        return {self.admin: (Role.ADMINISTRATOR, Role.OPERATOR, Role.AUDITOR)}

    @property
    def url(self) -> str:
        """URL of the server."""
        is_v6 = ":" in self.host
        return f"https://{f'[{self.host}]' if is_v6 else self.host}:{PORT}"

    def core_settings(self, directory: Path) -> Settings:
        """Return the settings of the HSM's stores below a directory."""
        is_sqlite = self.store is StoreKind.SQLITE
        return Settings(
            key_store=KeyStoreKind.SQLITE if is_sqlite else KeyStoreKind.FILESYSTEM,
            key_dir=directory / _KEYS["files"],
            sqlite_path=directory / _KEYS["sqlite"],
            audit_store=AuditStoreKind.SQLITE if is_sqlite else AuditStoreKind.FILE,
            approval_store=(
                ApprovalStoreKind.SQLITE if is_sqlite else ApprovalStoreKind.FILE
            ),
            policy_config=directory / POLICY_FILE,
            certificate_identities=True,
        )

    def settings_text(self) -> str:
        """Return the settings of the server, TOML."""
        return _SETTINGS.format(
            bind=_bind(self.host),
            storage=_STORAGE[self.store],
            # A string of JSON is one of TOML.
            root=json.dumps(f"@{self.root or ROOT_FILE}"),
        )

    def policy_rules(self) -> str:
        """Return the policy without people, YAML."""
        rules = _RULES
        if not self.second:
            note = "# With a second person, remove the '# ' of the lines below.\n"
            rules = note + "".join(f"# {line}\n" for line in rules.splitlines())
        return f"{_POLICY}\n{rules}"


def _bind(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"127.0.0.1:{PORT}" if host == "localhost" else f"0.0.0.0:{PORT}"
    if address.is_loopback:
        return f"[{host}]:{PORT}" if address.version == 6 else f"{host}:{PORT}"
    return f"[::]:{PORT}" if address.version == 6 else f"0.0.0.0:{PORT}"


_SETTINGS: Final = f"""\
# Settings of hsm-server, by hsm-server init. Paths are relative to this file.
[listener]
bind = "{{bind}}"
cert = "{SERVER_FILE}"
key = "{SERVER_FILE}"
cert-ca-key = "{CA_KEY_FILE}"
client-ca = "{CA_FILE}"
client-crl = "{REVOCATION_FILE}"
client-cert-identities = true

[storage]
{{storage}}

[secrets]
master-key = {{root}}
hmac-key = "@{AUDIT_FILE}"

[policy]
policy-config = "{POLICY_FILE}"
policy-reload-interval-secs = {_POLICY_SECONDS}
"""

_STORAGE: Final = {
    StoreKind.SQLITE: (
        f'key-store = "sqlite"\nsqlite-path = "{_KEYS["sqlite"]}"\n'
        'audit-store = "sqlite"\naudit-retention-days = 0\napproval-store = "sqlite"'
    ),
    StoreKind.FILES: f'key-store = "filesystem"\nkey-dir = "{_KEYS["files"]}"',
}

_POLICY: Final = """\
# Policy of this HSM, by hsm-server init. The server reloads it when it changes.
# Identities of your own, such as for access tokens, go below the last line.
version: 1
extends: default
"""

_RULES: Final = """\
rules:
  - name: two-people
    description: Another person approves destruction, export, revocation and recovery.
    effect: require-approval
    match:
      operations:
        - DestroyKey
        - ExportKey
        - RecoverKey
        - RecoverStore
        - ReleaseKey
        - RevokeKey
"""
