# SPDX-License-Identifier: MIT
"""
Fills the tables of the server's reference from the server itself.

Run ``python -m tests.server.reference`` after a change of routes, flags or metrics.
"""

import inspect
import json
import re
from collections.abc import Callable
from typing import get_args

import click
import msgspec

from hsm_core import errors
from hsm_core.operations import OPERATIONS, HSMStatus, Status
from hsm_core.rest import API_PREFIX, REQUEST_CODES
from hsm_core.testing import caller, memory_hsm
from hsm_server.api.openapi.schemas import summary_of
from hsm_server.config.annotations import Setting, variable_of
from hsm_server.config.exit_codes import EXIT_CODES, ExitCode
from hsm_server.config.options import GROUPS, UNAVAILABLE, options_in, table_of
from hsm_server.http.problems import status_of
from hsm_server.ipc.control import FromChild, FromSupervisor
from hsm_server.ipc.frames import FromFrontEnd, FromVault
from hsm_server.observability.logs import FIELDS
from hsm_server.observability.metrics import Metrics
from tests.support import REPOSITORY

PAGES = [
    REPOSITORY / "docs" / "reference" / name
    for name in ("api.md", "settings-server.md", "metrics.md", "log.md", "ipc.md")
]

_BLOCK = re.compile(r"(<!-- begin: (\w+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)

_EXITS = {
    ExitCode.OK: "Stopped.",
    ExitCode.FAILED: "Any other error, such as an unreadable store.",
    ExitCode.USAGE: (
        "An option, an environment variable or a secret is not valid, or the program "
        "is too old for its cluster."
    ),
    ExitCode.UNSAFE_FILE_MODE: (
        "A file or directory is accessible to other users. With `init`: the directory "
        "is not empty."
    ),
    ExitCode.WRONG_MASTER_KEY: (
        "The root key does not match the store. Nothing was written."
    ),
    ExitCode.WRONG_AUDIT_KEY: (
        "The HMAC key does not match the audit log. Nothing was written."
    ),
    ExitCode.AUDIT_TAMPERED: (
        "The audit log is damaged. The error names the record and the reason."
    ),
    ExitCode.LOCKED: "Another process uses the store or the audit log.",
    ExitCode.KEYS_DAMAGED: "The key ring is damaged.",
    ExitCode.LISTEN: "The address or the TLS files are not usable.",
    ExitCode.STORE_MISMATCH: "The key store does not match the audit log.",
    ExitCode.SELF_TEST_FAILED: (
        "A self-test failed: of the store's cryptography or of the random generator. "
        "Nothing was opened or written."
    ),
}


def render(text: str) -> str:
    """Return a page with all of its blocks filled."""
    return _BLOCK.sub(lambda m: f"{m[1]}{BLOCKS[m[2]]()}\n{m[3]}", text)


def _table(*rows: tuple[str, ...]) -> str:
    head, *rest = rows
    lines = [head, tuple("---" for _ in head), *rest]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _routes() -> str:
    rows = [("Operation", "Request", "Success", "Other forms", "Description")]
    for kind in OPERATIONS:
        route = kind.route
        both = (("in", route.raw_request), ("out", route.raw_response))
        raw = ", ".join(f"{way}: `{name}`" for way, name in both if name)
        raw += "events" if route.events else ""
        rows.append(
            (
                f"`{kind.__name__}`",
                f"`{route.method} {API_PREFIX}{route.path}`",
                str(route.success),
                raw,
                summary_of(kind).replace("|", "\\|"),
            )
        )
    return _table(*rows)


def _statuses() -> str:
    codes: dict[int, list[str]] = {}
    for code, cls in errors.error_classes().items():
        if status_of(cls) != 500:
            codes.setdefault(status_of(cls), []).append(code)
    for code, status in REQUEST_CODES.items():
        codes.setdefault(status, []).append(code)
    rows = [
        (str(status), ", ".join(f"`{code}`" for code in sorted(codes[status])))
        for status in sorted(codes)
    ]
    return _table(("Status", "Codes"), *rows)


def _options() -> str:
    parts = []
    for title in GROUPS:
        rows = [("Setting", "Default", "Meaning")]
        rows += [_setting(option, setting) for option, setting in options_in(title)]
        parts.append(f"### {title}: `[{table_of(title)}]`\n\n{_table(*rows)}")
    return "\n\n".join(parts)


def _setting(option: click.Option, setting: Setting) -> tuple[str, str, str]:
    default = f"`{option.default}`" if option.show_default else ""
    if option.is_flag:
        default = f"`{json.dumps(option.default)}`"
    if option.required:
        default = "required"
    meaning, _, noted = setting.help.partition("  [default: ")
    if noted:
        default = noted.rstrip("]")
    if setting.variable != variable_of(setting.flag):
        meaning += f" Variable: `{setting.variable}`."
    return f"`{setting.flag}`", default, meaning


def _unavailable() -> str:
    rows = [(f"`--{flag}`", f"{why}.") for flag, why in UNAVAILABLE.items()]
    return _table(("Flag", "Reason"), *rows)


def _exits() -> str:
    assert set(EXIT_CODES.values()) <= set(_EXITS)
    rows = [(str(int(code)), _EXITS[code]) for code in ExitCode]
    return _table(("Exit code", "Meaning"), *rows)


def _status() -> HSMStatus:
    with memory_hsm() as hsm:
        return hsm.act_as(caller()).execute(Status())


def _metrics() -> str:
    metrics = Metrics()
    metrics.show(_status())
    metrics.count_request("Sign", "ok", 0.0)
    metrics.count_handshake("ok", "X25519MLKEM768")
    metrics.count_tls_alarm("certificate")
    metrics.show_tls_alarm("certificate", is_on=True)
    metrics.show_certificates({"ECDSA": 0.0})
    metrics.show_jwt_alarm(is_on=True)
    metrics.count_ocsp("server", "good")
    metrics.count_refused_client("revoked")
    metrics.show_staple("ECDSA", 0.0)
    metrics.count_order("issued")
    metrics.show_next_order("ca.example.com", 0.0)
    metrics.count_violation("another protocol")
    metrics.count_restart("vault")
    metrics.count_allowed("actor")
    metrics.count_blocked("actor")
    metrics.show_buckets("actor", 1)
    rows = [("Metric", "Kind", "Labels", "Meaning")]
    for family in metrics.registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {
            label
            for sample in family.samples
            for label in sample.labels
            if label != "le"
        }
        rows.append(
            (
                f"`{name}`",
                family.type,
                ", ".join(f"`{label}`" for label in sorted(labels)),
                family.documentation,
            )
        )
    return _table(*rows)


def _fields() -> str:
    rows = [(f"`{name}`", meaning) for name, meaning in FIELDS.items()]
    return _table(("Field", "Meaning"), *rows)


def _messages(one: object, other: object, *names: str) -> str:
    """Return a table of types that two sides may send, each under its name."""
    ways: dict[type[msgspec.Struct], list[str]] = {
        kind: [] for kind in (*get_args(one), *get_args(other))
    }
    for name, union in zip(names, (one, other), strict=True):
        for kind in get_args(union):
            ways[kind].append(name)
    rows = [("Type", "Sent by", "Fields", "Meaning")]
    for kind, senders in ways.items():
        meaning = (inspect.getdoc(kind) or "").split("\n\n", maxsplit=1)[0]
        rows.append(
            (
                f"`{kind.__struct_config__.tag}`",
                ", ".join(senders),
                ", ".join(f"`{name}`" for name in kind.__struct_fields__),
                meaning.replace("\n", " ").replace("*", "`"),
            )
        )
    return _table(*rows)


def _frames() -> str:
    return _messages(FromFrontEnd, FromVault, "front end", "vault")


def _orders() -> str:
    return _messages(FromSupervisor, FromChild, "supervisor", "child")


BLOCKS: dict[str, Callable[[], str]] = {
    "routes": _routes,
    "statuses": _statuses,
    "options": _options,
    "unavailable": _unavailable,
    "exits": _exits,
    "metrics": _metrics,
    "fields": _fields,
    "frames": _frames,
    "orders": _orders,
}
"""What stands between the marks of each name."""


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(render(page.read_text()))
