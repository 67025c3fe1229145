# SPDX-License-Identifier: MIT
"""Values of settings as text: the form of a configuration file, without secrets."""

from __future__ import annotations

import json
import pwd
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from hsm_core.secret_input import is_literal_secret, split_password, without_secrets
from hsm_server.config.annotations import Setting, User
from hsm_server.config.options import text_of

_ON_THIS_DISK: Final = re.compile(r"(filesystem|sqlite):(.+)", re.DOTALL)


def is_shown(setting: Setting, value: Any) -> bool:
    """Return whether a value may be shown: it is no secret, or only names one."""
    return not (setting.is_secret and value and is_literal_secret(value))


def toml_of(setting: Setting, value: Any) -> str:
    """
    Return a value as a configuration file has it, or an empty text for none.

    Relative paths are made absolute. User, password and query of URLs are left out; of
    the address of all stores, the password only.
    """
    if value is None or value in ("", (), {}):
        return ""
    if isinstance(value, Mapping):
        return _strings(f"{name}={','.join(order)}" for name, order in value.items())
    if isinstance(value, User):
        return _string(pwd.getpwuid(value.uid).pw_name)
    if setting.flag == "store":
        # Without its user it would be another address.
        return json.dumps(split_password(_absolute(setting, value))[0])
    # An address is a tuple, too.
    if type(value) is tuple:
        return _strings(str(_absolute(setting, one)) for one in value)
    text = text_of(setting, _absolute(setting, value))
    if isinstance(text, bool):
        return str(text).lower()
    return str(text) if isinstance(text, int | float) else _string(str(text))


def _strings(texts: Iterable[str]) -> str:
    return f"[{', '.join(map(_string, texts))}]"


def _string(text: str) -> str:
    # A string of JSON is one of TOML.
    return json.dumps(without_secrets(text), ensure_ascii=False)


def _absolute(setting: Setting, value: Any) -> Any:
    if isinstance(value, Path):
        return value.absolute()
    if (setting.is_secret or setting.flag == "store") and value.startswith("@"):
        return f"@{Path(value[1:]).absolute()}"
    if setting.flag in {"key-store", "store"} and (
        found := _ON_THIS_DISK.fullmatch(value)
    ):
        return f"{found[1]}:{Path(found[2]).absolute()}"
    return value
