# SPDX-License-Identifier: MIT
"""Form of the two kinds of lines: entries and facts lines."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from tests.core.second_reader.keys import facts_hash, part_hash

LONGEST: Final = 65_535
"""Length of a line without its newline, in bytes."""

ENTRY: Final = re.compile(
    rb'\{"format":2,"seq":"([0-9a-f]{16})","prev":"([0-9a-f]{64})",'
    rb'"time":"([0-9]{16})",(.*),"mac":"([0-9a-f]{64})"\}',
    re.DOTALL,
)
FACTS: Final = b'{"facts":"'
"""What a facts line begins with."""

_HASH: Final = re.compile(r"[0-9a-f]{64}")
_HEX32: Final = re.compile(r"[0-9a-f]{32}")
_LARGEST: Final = 2**53 - 1
_MEMBERS: Final[dict[str, type]] = {
    "kind": str,
    "phase": str,
    "code": str,
    "request_id": str,
    "facts": str,
    "numbers": list,
    "revision": int,
    "bind": str,
    "operation_id": str,
    "intent_log": str,
    "key_id": str,
    "version": int,
    "generation": int,
    "document_before": str,
    "document_after": str,
    "set_digest": str,
    "demands": list,
    "approval_id": str,
    "approval_signatures": list,
    "digest": str,
    "detail": dict,
}
_PARTS: Final[dict[str, dict[str, type]]] = {
    "who": {
        "principal": str,
        "roles": list,
        "credential_id": str,
        "certificate_sha256": str,
        "certificate_subject": str,
        "certificate_names": list,
    },
    "from": {"source_address": str, "interface": str, "interface_claimed": str},
    "key": {
        "key_id": str,
        "version": int,
        "generation": int,
        "algorithm": str,
        "usages": list,
        "name": str,
        "owner": str,
        "tags": list,
        "state": str,
    },
    "rule": {"rule": str, "policy": str},
    "parameters": {},
}
_DETAILS: Final[dict[str, set[str]]] = {
    "log-begun": {
        *("log_id", "node", "former_log_id", "former_seq", "former_leaf_hash"),
    },
    "heads": {"logs"},
    "repair": {"fragment_bytes", "fragment_sha256", "kept_as"},
    "counted": {"count", "since"},
    "message": {"text"},
    "batch": {"count", "failed"},
    "resume": {"cause", "failed_at", "rewritten_from", "attempts"},
    "prune": {
        *("first_seq", "next_seq", "last_leaf_hash", "roots"),
        *("policy", "baseline_sha256"),
    },
    "approval": {
        *("generation", "state", "record_sha256", "before_sha256", "operation_id"),
    },
}


def decoded(written: bytes) -> Any:
    """Decode JSON that is written as the page says, and in no other way."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError
        return made

    found = json.loads(written.decode("utf-8"), object_pairs_hook=unique)
    again = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
    if again.encode("utf-8") != written:
        raise ValueError
    return found


def _check_members(found: dict[str, Any], known: dict[str, type]) -> None:
    order = [name for name in known if name in found]
    if list(found) != order:
        raise ValueError
    for name, value in found.items():
        if type(value) is not known[name] or not value:
            raise ValueError
    _check_numbers(found)


def _check_numbers(value: object, *, signed: bool = False) -> None:
    match value:
        case bool() | str() | None:
            pass
        case int():
            if not (-_LARGEST if signed else 0) <= value <= _LARGEST:
                raise ValueError
        case list():
            for item in value:
                _check_numbers(item, signed=signed)
        case dict():
            for name, item in value.items():
                _check_numbers(item, signed=name == "numbers")
        case _:
            raise ValueError


def members_of(written: bytes) -> dict[str, Any]:
    """
    Return the members of an entry, which stand between its time and its MAC.

    Raises:
        ValueError: They have not the form of format 2.
    """
    found = decoded(b"{" + written + b"}")
    _check_members(found, _MEMBERS)
    if "kind" not in found or found.get("phase", "intent") not in ("intent", "outcome"):
        raise ValueError
    for name in ("facts", "bind", "document_before", "document_after"):
        if name in found and not _HASH.fullmatch(found[name]):
            raise ValueError
    if not _HEX32.fullmatch(found.get("intent_log", "0" * 32)):
        raise ValueError
    if found.get("code") == "ok":
        raise ValueError
    if any(type(number) is not int for number in found.get("numbers", [])):
        raise ValueError
    if "detail" in found:
        known = _DETAILS.get(found["detail"].get("type"))
        if known is None or not found["detail"].keys() <= known | {"type"}:
            raise ValueError
    if "phase" not in found and found.keys() & {"key_id", "version", "generation"}:
        raise ValueError
    return dict(found)


@dataclass(frozen=True)
class Facts:
    """A facts line: the hash that it bears, and its parts."""

    name: str
    parts: dict[str, dict[str, Any]]


def facts_of(line: bytes) -> Facts:
    """
    Return what a facts line says.

    Raises:
        ValueError: It has another form, or another hash than it bears.
    """
    if len(line) > LONGEST:
        raise ValueError
    found = decoded(line)
    if list(found) != ["facts", "parts"]:
        raise ValueError
    labels, hashes, parts = [], [], dict[str, dict[str, Any]]()
    for label, salt, members in found["parts"]:
        if not _HEX32.fullmatch(salt):
            raise ValueError
        labels.append(label)
        written = json.dumps(members, ensure_ascii=False, separators=(",", ":"))
        hashes.append(part_hash(label, salt, written.encode()))
        parts[label] = members
    if labels != list(_PARTS) or found["facts"] != facts_hash(hashes):
        raise ValueError
    for label, known in _PARTS.items():
        if label != "parameters":
            _check_members(parts[label], known)
    if parts["who"] and "principal" not in parts["who"]:
        raise ValueError
    for value in parts["parameters"].values():
        is_list = type(value) is list and all(type(item) is str for item in value)
        if not (value is None or type(value) is str or is_list):
            raise ValueError
    return Facts(found["facts"], parts)
