# SPDX-License-Identifier: MIT
"""Command ``check``: faults of a configuration, and what a start would do."""

from __future__ import annotations

import contextlib
import hmac
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from hsm_core.errors import ConfigurationError, HSMError, WrongMasterKeyError
from hsm_core.policies import load_policy
from hsm_core.retention_policy import parse_retention_policy
from hsm_core.secret_input import fingerprint, read_secret, without_secrets
from hsm_core.setting_files import read_setting_file
from hsm_core.settings import KeyStoreKind, Settings
from hsm_server.config.annotations import build
from hsm_server.config.exit_codes import ExitCode, exit_code_of
from hsm_server.config.file import check_places, config_option, take_store
from hsm_server.config.loading import (
    check_sign_in,
    metrics_warning,
    root_warning,
    settings_from,
)
from hsm_server.config.options import (
    GROUPS,
    Command,
    options,
    options_in,
    secret_flags,
    table_of,
)
from hsm_server.config.rendering import is_shown, toml_of
from hsm_server.config.settings import LaunchSettings, ServerSettings
from hsm_server.system.secret_handover import SECRET_LENGTHS, TOKEN_SECRET
from hsm_server.system.standard_streams import sentence
from hsm_server.text import escaped

_HELP = """
Check a configuration without starting a server.

It accepts every option of 'hsm-server serve', and the same environment variables. It
reads all files that they name, compares the root key with the key store, and reports
what a start would do. It creates and changes nothing, so it is safe while a server
runs.

The exit code is 0, or the one that 'hsm-server serve' would return for the first error.
Keys and audit logs are not read: only a start finds damage in them.
"""

_ROOT: Final = "master-key"


class _Report:
    """Lines of the report, written as they are found."""

    def __init__(self) -> None:
        self.status = ExitCode.OK

    def look(self, part: str, check: Callable[[], str]) -> None:
        """Write the result of a check, or its fault."""
        try:
            found = check()
        except HSMError as error:
            self.fault(part, sentence(error), exit_code_of(error))
        else:
            if found:
                self._write("ok", part, found)

    def fault(self, part: str, reason: str, status: ExitCode) -> None:
        """Write a fault."""
        self.status = self.status or status
        self._write("error", part, reason)

    def warn(self, text: str) -> None:
        """Write a warning, unless it is empty."""
        if text:
            self._write("warning", "", text)

    def tell(self, text: str) -> None:
        """Write what a start would do."""
        self._write("note", "", text)

    def _write(self, kind: str, part: str, text: str) -> None:
        click.echo(f"{kind:8}{part and f'{part}: '}{escaped(text)}")


def _run(root_copy: str | None, previous: str | None, **values: Any) -> None:
    context, report = click.get_current_context(), _Report()
    check_places(context, values)
    if previous is not None:
        for change in _changes(previous, values):
            report.tell(change)
    report.look("secrets", lambda: _secrets(values))
    try:
        if password := take_store(values):
            os.environ["PGPASSWORD"] = password
        settings = settings_from(values)
    except HSMError as error:
        report.fault("settings", sentence(error), exit_code_of(error))
    else:
        launched = build(LaunchSettings, values)
        _check_files(report, settings, launched)
        report.warn(metrics_warning(settings))
        report.warn(root_warning(launched))
        if values["master_key"] is not None:
            report.look("key store", lambda: _store(report, settings.core, values))
    if root_copy is not None:
        report.look("copy of the root key", lambda: _compare(root_copy, values))
    raise SystemExit(report.status)


def _changes(previous: str, values: Mapping[str, Any]) -> Iterator[str]:
    """Yield how the settings differ from those with another configuration file."""
    with check.make_context("check", ["--config", previous]) as context:
        before = context.params
    for title in GROUPS:
        for _, setting in options_in(title):
            old, new = before[setting.name], values[setting.name]
            if old == new:
                continue
            name = f"{table_of(title)}.{setting.flag}"
            if is_shown(setting, old) and is_shown(setting, new):
                texts = [toml_of(setting, one) or "not set" for one in (old, new)]
                yield f"{name} changes: {' → '.join(texts)}."
            else:
                yield f"{name} changes."


def _secrets(values: Mapping[str, Any]) -> str:
    """
    Check every secret, and that there is a way to authenticate.

    Raises:
        ConfigurationError: One is missing, or not valid.
    """
    for flag in secret_flags():
        name = flag.replace("-", "_")
        if values[name] is not None:
            _read(flag, values[name])
        elif flag != TOKEN_SECRET:
            raise ConfigurationError(f"{flag} is missing.", field=flag)
    check_sign_in(values)
    return f"root key {fingerprint(_read(_ROOT, values['master_key']))}"


def _read(flag: str, value: str) -> bytes:
    return read_secret(value, field=flag, minimum=32, exact=SECRET_LENGTHS[flag])


def _check_files(
    report: _Report, settings: ServerSettings, launched: LaunchSettings
) -> None:
    """Read every file that the settings name."""
    core, tokens = settings.core, settings.token_config
    report.look("certificates", lambda: _certificates(report, settings))
    report.look("policy", lambda: _policy(report, core))
    if core.retention_config is not None:
        report.look("retention policy", lambda: _retention(core.retention_config))
    if tokens.path is not None:
        report.look("token keys", lambda: _token_keys(settings))
    report.look(
        "token issuers", lambda: _issuers(report, settings, launched.token_issuers)
    )
    if launched.oidc_config is not None:
        report.look("OpenID Connect", lambda: _provider(launched.oidc_config))


def _certificates(report: _Report, settings: ServerSettings) -> str:
    # It takes a third of a second to load, and OpenSSL's configuration comes first.
    import hsm_server.tls.openssl  # noqa: F401
    from hsm_server.tls.contexts import try_state
    from hsm_server.tls.sources import (
        client_problem,
        describe_pairs,
        first_state,
        now_utc,
        pair_problem,
    )

    if settings.tls is None or settings.tls.acme is not None:
        return "issued by the CA at the start (ACME)"
    # Nothing is renewed here.
    state = first_state(msgspec.structs.replace(settings.tls, ca_key=None))
    try_state(state)
    now = now_utc()
    report.warn(client_problem(state.client, now))
    for pair in state.pairs:
        report.warn(pair_problem(pair, now))
    return describe_pairs(state)


def _policy(report: _Report, core: Settings) -> str:
    if core.policy_config is None:
        return f"built-in policy {core.policy_profile}"
    policy = load_policy(core.policy_config, for_use=True)
    for text in policy.warnings:
        report.warn(text)
    return f"{core.policy_config}, {len(policy.rules)} rules"


def _retention(path: Path | None) -> str:
    if path is None:
        return ""
    file = read_setting_file(path, field="retention-config")
    return f"{path}, {parse_retention_policy(file.data).default_days} days by default"


def _token_keys(settings: ServerSettings) -> str:
    from hsm_server.identity.token_config import load_token_config

    path = settings.token_config.path
    if path is None:
        return ""
    least = 0 if settings.token_config.key_set_url else 1
    found = load_token_config(path, settings.tokens, least=least)
    return f"{path}, {len(found.keys)} keys"


def _issuers(report: _Report, settings: ServerSettings, path: Path | None) -> str:
    """
    Check the issuers and their key files, and compare them with the policy.

    Raises:
        HSMError: A file is not valid.
    """
    from hsm_server.identity.issuer_config import load_token_issuers
    from hsm_server.identity.token_config import load_key_set

    found = () if path is None else load_token_issuers(path)
    for issuer in found:
        if issuer.jwks_file is not None:
            load_key_set(issuer.jwks_file, settings.tokens)
    trusted, named = {issuer.issuer for issuer in found}, frozenset[str]()
    if settings.core.policy_config is not None:
        with contextlib.suppress(HSMError):  # It is reported with the policy.
            named = load_policy(settings.core.policy_config).token_issuers
    for name in sorted(trusted - named):
        report.warn(f"No identity of the policy matches tokens of {name}.")
    for name in sorted(named - trusted):
        report.warn(
            f"The policy has identities of {name}, which is not a token issuer."
        )
    return "" if path is None else f"{path}, {len(found)} issuers"


def _provider(path: Path | None) -> str:
    from hsm_server.identity.oidc_config import load_oidc_config

    return "" if path is None else load_oidc_config(path).issuer


def _store(report: _Report, core: Settings, values: Mapping[str, Any]) -> str:
    """
    Compare the root key with the key store.

    Raises:
        HSMError: A start would end so.
    """
    from hsm_server.bootstrap.stores import StoreState, inspect_store

    where = _place(core)
    root = _read(_ROOT, values["master_key"])
    found = inspect_store(core, master_key=root)
    result, effect = {
        StoreState.NEW: ("does not exist yet", "creates a new HSM"),
        StoreState.OPENS: ("opens with this root key", "uses the existing keys"),
        StoreState.IN_USE: (
            "is in use, and was not compared with the root key",
            "fails until the other process ends",
        ),
        StoreState.ELSEWHERE: (
            "is not on this machine, and was not compared with the root key",
            "opens the HSM, or creates a new one",
        ),
    }[found]
    report.tell(f"A start {effect}: {where}.")
    report.warn(_shortage(core.folder))
    for text in _removals(core):
        report.tell(f"The server removes {text}.")
    return f"{where} {result}"


def _place(core: Settings) -> str:
    if core.key_store == KeyStoreKind.FILESYSTEM:
        return str(core.key_dir)
    if core.key_store == KeyStoreKind.SQLITE:
        return str(core.sqlite_path)
    if core.store:
        return without_secrets(core.store)
    return (
        "memory"
        if core.key_store == KeyStoreKind.MEMORY
        else without_secrets(core.key_store)
    )


def _shortage(folder: Path) -> str:
    """Return a warning if a folder's file system is full, or an empty text."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return ""
    if found.f_bavail and (found.f_favail or not found.f_files):
        return ""
    return f"No space is left on the file system of {folder}. A start may fail."


def _removals(core: Settings) -> list[str]:
    found = {
        "audit records": core.trail_days,
        "closed approval requests": core.approval_days,
    }
    return [f"{what} older than {days} days" for what, days in found.items() if days]


def _compare(copy: str, values: Mapping[str, Any]) -> str:
    """
    Compare a copy of the root key with the configured one.

    Raises:
        WrongMasterKeyError: They differ.
        ConfigurationError: One of them is missing, or can't be read.
    """
    if values["master_key"] is None:
        raise ConfigurationError("master-key is missing, so nothing can be compared.")
    secret = read_secret(f"@{copy}", field="--root-copy", minimum=32, exact=32)
    kept = _read(_ROOT, values["master_key"])
    if not hmac.compare_digest(secret, kept):
        raise WrongMasterKeyError(
            f"{copy} has fingerprint {fingerprint(secret)}, and the root key of this "
            f"server {fingerprint(kept)}. This copy does not open its keys."
        )
    return f"{copy} is the root key of this server, {fingerprint(kept)}"


check = Command(
    "check",
    params=[
        config_option(),
        click.Option(
            ["--root-copy"],
            metavar="FILE",
            help="Copy of the root key, such as on a USB stick, to compare with it.",
        ),
        click.Option(
            ["--previous"],
            metavar="FILE",
            help="Former configuration file: also list the settings that differ. They "
            "take effect at the next start.",
        ),
        *options(for_inspection=True),
    ],
    callback=_run,
    help=_HELP,
    short_help="Check a configuration without starting.",
)
