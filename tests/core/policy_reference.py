# SPDX-License-Identifier: MIT
"""
Fills the tables of the pages *Roles* and *Policy* from built-in files and types.

Run ``python -m tests.core.policy_reference`` after a change of operations, grants or
of what a policy file may hold.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from hsm_core._policies.policy_file import (
    ApprovalSection,
    IdentitySection,
    MatchSection,
    PolicyFile,
    RuleSection,
    TimeSection,
)
from hsm_core._policies.rules import TWINS
from hsm_core.algorithms import ALGORITHMS, Algorithm
from hsm_core.model import Record, Role
from hsm_core.operations import OPERATIONS
from hsm_core.policies import built_in_policy, built_in_text
from hsm_core.settings import PolicyProfile
from tests.support import REPOSITORY

PAGES = [
    REPOSITORY / "docs" / "reference" / f"{name}.md" for name in ("policy", "roles")
]
_BLOCK = re.compile(r"(<!-- begin: ([\w-]+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)
_SECTIONS: dict[str, type[Record]] = {
    "file": PolicyFile,
    "rule": RuleSection,
    "match": MatchSection,
    "time": TimeSection,
    "approval": ApprovalSection,
    "identity": IdentitySection,
}
_NAMES = {cls: name for name, cls in _SECTIONS.items()}


def render(text: str) -> str:
    """Return a page with all of its blocks filled."""
    return _BLOCK.sub(lambda m: f"{m[1]}{_BLOCKS[m[2]]()}\n{m[3]}", text)


def _roles() -> str:
    grants = built_in_policy(PolicyProfile.DEFAULT).grants
    rows = [
        f"| `{kind.__name__}` | "
        + " | ".join("yes" if kind.__name__ in grants[r] else "no" for r in Role)
        + " |"
        for kind in OPERATIONS
    ]
    head = f"| operation | {' | '.join(Role)} |"
    return "\n".join([head, "|---" * (len(Role) + 1) + "|", *rows])


def _algorithm_rules() -> str:
    lines = ["| rule | profile | algorithms |", "|---|---|---|"]
    strict = built_in_policy(PolicyProfile.STRICT)
    default = {rule.name for rule in built_in_policy(PolicyProfile.DEFAULT).rules}
    for rule in strict.rules:
        if rule.match.key.algorithms is None:
            continue
        profiles = "default, strict" if rule.name in default else "strict"
        named = [a.value for a in Algorithm if a.value in rule.match.key.algorithms]
        lines.append(f"| {rule.name} | {profiles} | {', '.join(named)} |")
    assert set(strict.rules[0].match.key.algorithms or ()) <= set(ALGORITHMS)
    return "\n".join(lines)


def _section(cls: type[Record]) -> Callable[[], str]:
    def table() -> str:
        told = _told(cls)
        hints = get_type_hints(cls, include_extras=True)
        rows = ["| field | value | default | |", "|---|---|---|---|"]
        for field in msgspec.structs.fields(cls):
            default = "required" if field.required else _default(field)
            meaning = told.get(field.name, "Its name.")
            value = _value(hints[field.name])
            rows.append(f"| `{field.encode_name}` | {value} | {default} | {meaning} |")
        return "\n".join(rows)

    return table


def _default(field: msgspec.structs.FieldInfo) -> str:
    value = field.default
    if value is None or value is msgspec.NODEFAULT or not value:
        return "" if value is not False else "`false`"
    if value is True:
        return "`true`"
    return "" if isinstance(value, Record) else f"`{value}`"


def _told(cls: type[Record]) -> dict[str, str]:
    """Return what the docstring says of each field."""
    text = inspect.getdoc(cls) or ""
    _, _, attributes = text.partition("Attributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in attributes.splitlines():
        begun = re.match(r" {4}(\w+): (.*)", line)
        if begun:
            name = begun[1]
            found[name] = begun[2]
        elif name:
            found[name] += f" {line.strip()}"
    return {n: t.replace("``", "`").replace("|", "\\|") for n, t in found.items()}


def _value(hint: Any) -> str:
    """Return a type in words."""
    words = [w for w in _words(hint) if w]
    return ", ".join(dict.fromkeys(words))


def _words(hint: Any) -> Iterator[str]:
    origin = get_origin(hint)
    if origin is Annotated:
        base, *meta = get_args(hint)
        yield from _words(base)
        for item in meta:
            yield from _limits(item)
    elif origin in (Union, UnionType):
        for part in get_args(hint):
            yield from _words(part) if part is not NoneType else ()
    elif origin is tuple:
        yield f"list of {_value(get_args(hint)[0])}"
    elif origin is dict:
        name, value = get_args(hint)
        yield f"{_value(name)} → {_value(value)}"
    elif hint in _NAMES:
        yield f"[{_NAMES[hint]}](#{_NAMES[hint]})"
    elif isinstance(hint, type) and issubclass(hint, Enum):
        yield " or ".join(f"`{member.value}`" for member in hint)
    elif hint in (str, int, bool):
        yield {str: "text", int: "number", bool: "`true` or `false`"}[hint]
    else:
        yield " or ".join(f"`{value}`" for value in get_args(hint))


def _limits(meta: msgspec.Meta) -> Iterator[str]:
    if meta.ge is not None:
        yield f"{meta.ge} to {meta.le}"
    if meta.max_length is not None:
        yield f"up to {meta.max_length}"


def _groups() -> str:
    groups = built_in_policy(PolicyProfile.DEFAULT).groups
    rows = [
        f"| `{name}` | {', '.join(f'`{o}`' for o in sorted(groups[name]))} |"
        for name in sorted(groups)
    ]
    return "\n".join(["| group | operations |", "|---|---|", *rows])


def _twins() -> str:
    rows = [
        f"| `{twin.requested}` | {f'`{twin.usage.value}`' if twin.usage else 'any'} | "
        f"`{twin.kind}` | {'rules and grants' if twin.needs_grant else 'rules'} |"
        for twin in TWINS
    ]
    head = "| request | on keys with the usage | is decided as | by |"
    return "\n".join([head, "|---|---|---|---|", *rows])


def _consents() -> str:
    """Return what needs consent, by the rules of the profiles."""
    default = {rule.name for rule in built_in_policy(PolicyProfile.DEFAULT).rules}
    lines = [
        "| operation | keys | consent of | rule | `default` | `strict` |",
        "|---|---|---|---|---|---|",
    ]
    for rule in built_in_policy(PolicyProfile.STRICT).rules:
        if rule.demand is None:
            continue
        kinds = ", ".join(f"`{kind}`" for kind in sorted(rule.match.operations or ()))
        keys = "any"
        if rule.match.key.tags is not None:
            keys = f"with the tag `{', '.join(sorted(rule.match.key.tags))}`"
        if rule.match.key.algorithms is not None:
            keys = f"[{rule.name}](roles.md#post-quantum-keys)"
        people = " and ".join(f"an {role}" for role in rule.demand.distinct_roles)
        people = people or " or ".join(f"an {role}" for role in rule.demand.roles)
        lines.append(
            f"| {kinds} | {keys} | {people or 'another person'} | `{rule.name}` | "
            f"{'yes' if rule.name in default else 'no'} | yes |"
        )
    return "\n".join(lines)


def _file(profile: PolicyProfile) -> Callable[[], str]:
    return lambda: f"```yaml\n{built_in_text(profile).rstrip()}\n```"


_BLOCKS: dict[str, Callable[[], str]] = {
    "roles": _roles,
    "algorithm-rules": _algorithm_rules,
    "groups": _groups,
    "twins": _twins,
    "consents": _consents,
    **{name: _section(cls) for name, cls in _SECTIONS.items()},
    **{f"profile-{p.value}": _file(p) for p in PolicyProfile},
}

if __name__ == "__main__":
    for _page in PAGES:
        _page.write_text(render(_page.read_text()))
