# SPDX-License-Identifier: MIT
"""
Configuration file: TOML with the names of the flags, in tables of their groups.

Its keys, types and limits are those of the options. Every fault names file, line and
key; all of them are found at once.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import click
from click.core import ParameterSource

from hsm_core.errors import ConfigurationError, HSMError, UnsafeFileModeError
from hsm_core.secret_input import is_literal_secret, read_secret_text, split_password
from hsm_core.setting_files import read_setting_file
from hsm_core.settings import KeyStoreKind
from hsm_server.config.annotations import Setting, parse_all_stores, variable_of
from hsm_server.config.core import SINGLE_STORES, STORAGE
from hsm_server.config.exit_codes import ExitCode, exit_code_of
from hsm_server.config.options import (
    GROUPS,
    UNAVAILABLE,
    ListOption,
    options_in,
    table_of,
)
from hsm_server.text import escaped

FILE_FIELD: Final = "--config"
_MEMO: Final = "hsm_server.config.file"
_STORE: Final = STORAGE["store"].flag
_TYPED: Final = {ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT}
_PLACE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)\Z")
_ON_THIS_DISK: Final = frozenset({KeyStoreKind.FILESYSTEM, KeyStoreKind.SQLITE})


@dataclass(frozen=True, slots=True)
class Key:
    """
    Key of the file.

    Attributes:
        table: Table that it belongs in.
        option: Option of the same name.
        is_secret: Whether its value is a secret, or names one.
    """

    table: str
    option: click.Option
    is_secret: bool

    @property
    def name(self) -> str:
        """Name of the flag, without dashes before it."""
        return self.option.opts[0].removeprefix("--")


@dataclass(frozen=True, slots=True, repr=False)
class ConfigFile:
    """
    Configuration file that was read.

    Attributes:
        path: Its path, as given.
        values: Values by name of the parameter.
        faults: A sentence for each fault, with its place.
        lines: Line of each parameter's key.
    """

    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)

    def place(self, line: int) -> str:
        """Return how messages name a line of the file."""
        return f"{self.path}, line {line}" if line else str(self.path)


class ConfigFileError(click.ClickException):
    """
    Configuration file that can't be used.

    Args:
        faults: A sentence for each fault.

        exit_code: Exit status of the command.
    """

    def __init__(self, faults: Sequence[str], exit_code: int) -> None:
        super().__init__("\n".join(faults))
        # The class has one for all of its errors.
        vars(self)["exit_code"] = exit_code
        self._faults = faults

    def show(self, file: IO[Any] | None = None) -> None:
        """Write a line for each fault."""
        for fault in self._faults:
            line = f"hsm-server: error: {escaped(fault)}"
            click.echo(line, file=file, err=file is None)


def config_option() -> click.Option:
    """Return the option that names the configuration file."""
    return click.Option(
        ["--config"],
        help="Configuration file (TOML). Each option is a key, without the leading "
        "dashes, in the table of its group. Flags and variables take precedence.",
        envvar=variable_of("config"),
        show_envvar=True,
        metavar="FILE",
        type=click.Path(path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_load,
    )


def given_file(context: click.Context) -> ConfigFile | None:
    """Return the configuration file of a command, if there is one."""
    found: ConfigFile | None = context.meta.get(_MEMO)
    return found


def check_places(context: click.Context, values: Mapping[str, Any]) -> None:
    """
    Refuse stores whose place is given twice.

    Args:
        context: Context of the command.

        values: Parsed values.

    Raises:
        click.UsageError: One is in a URI and in a setting of its own.
    """
    if values["store"]:
        for setting in map(STORAGE.__getitem__, SINGLE_STORES):
            if _is_given(context, setting):
                raise click.UsageError(
                    f"--{setting.flag} ({setting.variable}) can't be used with --store "
                    f"({STORAGE['store'].variable}), which sets all stores."
                )
        return
    key_store: str = values["key_store"]
    places = {KeyStoreKind.FILESYSTEM: "key_dir", KeyStoreKind.SQLITE: "sqlite_path"}
    scheme, colon, _ = key_store.partition(":")
    if not colon or scheme not in places:
        return
    setting = STORAGE[places[KeyStoreKind(scheme)]]
    if _is_given(context, setting):
        raise click.UsageError(
            f"--{setting.flag} ({setting.variable}) can't be used with --key-store "
            f"{scheme}:…, which sets the location of keys."
        )


def _is_given(context: click.Context, setting: Setting) -> bool:
    """Return whether somebody has set a setting, and not only its default."""
    source, file = context.get_parameter_source(setting.name), given_file(context)
    is_in_file = file is not None and setting.name in file.lines
    return source in _TYPED or (source is ParameterSource.DEFAULT_MAP and is_in_file)


def take_store(values: dict[str, Any]) -> str:
    """
    Take the password out of the address of all stores, and return it.

    An address in a file is read, and takes the file's place in the values.

    Raises:
        ConfigurationError: The file can't be read, or is open to others.
    """
    given: str | None = values["store"]
    if not given:
        return ""
    text = read_secret_text(given, field="--store")
    try:
        text = parse_all_stores(text)
    except ValueError as error:
        raise ConfigurationError(f"--store: {error}", field="--store") from None
    values["store"], password = split_password(text)
    return password


def _load(context: click.Context, option: click.Parameter, path: Path | None) -> None:
    if path is None or context.resilient_parsing:
        return
    try:
        found = FileReader().read(path, context)
    except HSMError as error:
        raise ConfigFileError([str(error)], exit_code_of(error)) from None
    if found.faults:
        raise ConfigFileError(found.faults, ExitCode.USAGE)
    context.meta[_MEMO] = found
    context.default_map = {**(context.default_map or {}), **found.values}


class FileReader:
    """Reader of configuration files."""

    def __init__(self) -> None:
        self._keys = {
            setting.flag: Key(table_of(title), option, setting.is_secret)
            for title in GROUPS
            for option, setting in options_in(title)
        }
        self._tables = dict.fromkeys(map(table_of, GROUPS))

    def read(self, path: Path, context: click.Context) -> ConfigFile:
        """
        Return the values of a file, or its faults.

        Args:
            path: The file.

            context: Context of the command, for conversions of click.

        Raises:
            ConfigurationError: It can't be read, or is not TOML.
            UnsafeFileModeError: Others may write to it, or read a secret in it.
        """
        file = read_setting_file(path, field=FILE_FIELD)
        text, tree = _parse(path, file.data)
        found, lines = ConfigFile(path), _lines_of(text)
        for table, name, value in _entries(tree):
            line = lines.get((table, name), 0)
            fault = self._take(found, context, (table, name), value, line)
            if fault:
                found.faults.append(f"{found.place(line)}: {fault}")
        if file.is_open_to_others:
            self._refuse_secrets(found)
        self._place_defaults(found)
        return found

    def _take(
        self,
        found: ConfigFile,
        context: click.Context,
        place: tuple[str, str],
        value: object,
        line: int,
    ) -> str:
        """Take in an entry; return what is wrong with it, or an empty text."""
        table, name = place
        key = self._keys.get(name)
        if key is None or key.table != table:
            return self._misplaced(table, name)
        try:
            taken = _beside(key, _checked(key.option, value), found.path.parent)
            key.option.process_value(context, taken)
        except click.BadParameter as error:
            return f"{table}.{name}: {error.message}"
        found.values[str(key.option.name)] = taken
        found.lines[str(key.option.name)] = line
        return ""

    def _misplaced(self, table: str, name: str) -> str:
        shown = f"{table}.{name}" if table else name
        if name in UNAVAILABLE:
            return (
                f"{shown} is not available in this version: {UNAVAILABLE[name]}. "
                "Remove it."
            )
        if name in self._keys:
            return f"{shown} belongs in the table [{self._keys[name].table}]."
        if table and table not in self._tables:
            every = ", ".join(self._tables)
            near = _nearest(table, self._tables) or f"Tables are {every}."
            return f"there is no table [{table}]. {near}"
        near = _nearest(name, self._keys) or "'hsm-server serve --help' lists them."
        return f"there is no setting {shown}. {near}"

    def _refuse_secrets(self, found: ConfigFile) -> None:
        for key in self._keys.values():
            value = found.values.get(str(key.option.name))
            if value is not None and _holds_secret(key, value):
                raise UnsafeFileModeError(
                    f"{found.path} holds the secret {key.table}.{key.name}, and other "
                    f"users can read it. Run 'chmod 600 {found.path}', or name a file "
                    'of mode 0600 as "@FILE".',
                    field=FILE_FIELD,
                )

    def _place_defaults(self, found: ConfigFile) -> None:
        """Put defaults that are relative paths beside the file, too."""
        for key in self._keys.values():
            default, name = key.option.default, str(key.option.name)
            if isinstance(default, Path) and name not in found.values:
                found.values[name] = found.path.parent / default


def _parse(path: Path, data: bytes) -> tuple[str, dict[str, Any]]:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} must be UTF-8.", field=FILE_FIELD) from None
    try:
        return text, tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        place = _PLACE.search(message)
        line = f", line {place[1]}" if place and place[1] else ""
        reason = message[: place.start()] if place else message
        raise ConfigurationError(
            f"{path}{line}: not valid TOML: {reason}.", field=FILE_FIELD
        ) from None
    except RecursionError:
        raise ConfigurationError(
            f"{path} is nested too deeply.", field=FILE_FIELD
        ) from None


def _entries(tree: Mapping[str, Any]) -> Iterator[tuple[str, str, object]]:
    """Yield table, key and value of each entry; a key without a table has none."""
    for name, value in tree.items():
        if not isinstance(value, dict):
            yield "", name, value
            continue
        for key, inner in value.items():
            yield name, key, inner


def _nearest(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name.replace("_", "-"), list(names), n=1)
    return f"Did you mean {near[0]}?" if near else ""


def _lines_of(text: str) -> dict[tuple[str, str], int]:
    """
    Return the line on which each entry begins, by table and key.

    A statement ends with the first line that makes it whole: so what is TOML is decided
    by its parser alone.
    """
    found: dict[tuple[str, str], int] = {}
    table, begins, statement = "", 1, ""
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        statement += f"{line}\n"
        try:
            tree = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        is_header = statement.lstrip().startswith("[")
        for outer, inner, _ in _entries(tree):
            found.setdefault((outer or ("" if is_header else table), inner), begins)
        if is_header:
            (table,) = tree
        begins, statement = number + 1, ""
    return found


def _checked(option: click.Option, value: object) -> Any:
    """
    Return a value as the command line gives it.

    Raises:
        click.BadParameter: It is of another type.
    """
    expected, kinds = _expected(option)
    if option.multiple:
        values: list[Any] = value if isinstance(value, list) else [value]
        wrong = [one for one in values if not isinstance(one, str)]
        if wrong or not values:
            shown = f"got {_kind(wrong[0])}" if wrong else "got an empty one"
            raise click.BadParameter(f"must be an array of strings, {shown}.")
        if isinstance(option, ListOption) and any("," in one for one in values):
            raise click.BadParameter("must not have a comma in a string of the array.")
        return tuple(values)
    if not isinstance(value, kinds) or (isinstance(value, bool) != (kinds == (bool,))):
        raise click.BadParameter(f"must be {expected}, got {_kind(value)}.")
    return value


def _expected(option: click.Option) -> tuple[str, tuple[type, ...]]:
    if option.is_flag:
        return "true or false", (bool,)
    if isinstance(option.type, click.IntRange):
        return "a whole number, without quotes", (int,)
    if isinstance(option.type, click.FloatRange):
        return "a number, without quotes", (int, float)
    return "a string, in quotes", (str,)


def _kind(value: object) -> str:
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "a table",
    }
    return names.get(type(value), "a date or time")


def _holds_secret(key: Key, value: Any) -> bool:
    """Return whether a value holds a secret itself."""
    if key.name == _STORE:
        return bool(split_password(value)[1])
    return key.is_secret and is_literal_secret(value)


def _beside(key: Key, value: Any, folder: Path) -> Any:
    """Return a value whose relative paths begin at the folder of the file."""
    is_path = isinstance(value, str) and value.startswith("@")
    if is_path and (key.is_secret or key.name == _STORE):
        return f"@{folder / value[1:]}"
    if key.name in {"key-store", _STORE}:
        scheme, colon, rest = value.partition(":")
        is_place = colon and scheme in _ON_THIS_DISK
        return f"{scheme}:{folder / rest}" if is_place else value
    if not isinstance(key.option.type, click.Path):
        return value
    if isinstance(value, tuple):
        return tuple(str(folder / one) for one in value)
    return str(folder / value)
