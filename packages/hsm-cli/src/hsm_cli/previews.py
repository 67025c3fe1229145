# SPDX-License-Identifier: MIT
"""Previews of a request in place of sending it: curl, or the policy rule it needs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from hsm_cli.io.output import neutral_json
from hsm_cli.short_ids import KEY_FIELDS

if TYPE_CHECKING:
    from hsm_client.messages import Request
    from hsm_client.settings import ClientSettings
    from hsm_core.operations.audit import ListAuditEvents
    from hsm_core.operations.base import Operation

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_UNSAFE: Final = re.compile(r"[^a-z0-9]+")


def curl_of(
    settings: ClientSettings,
    operation: Operation[Any],
    key: str,
    approval_id: str,
    expected_generation: int,
) -> str:
    """
    Return the command of curl that executes an operation.

    Args:
        settings: Settings of the connection.

        operation: The operation.

        key: Idempotency key; sent with a change only.

        approval_id: Approval to use, or empty.

        expected_generation: Generation that the key must have; 0 is any.
    """
    from hsm_client.exchange import exchange
    from hsm_client.messages import Request

    steps = exchange(
        operation,
        attempts=1,
        idempotency_key=key,
        approval_id=approval_id,
        expected_generation=expected_generation,
    )
    request = next(steps)
    if not isinstance(request, Request):
        raise TypeError("An exchange begins with a request.")
    return curl_command(settings, request)


def curl_of_stream(settings: ClientSettings, operation: ListAuditEvents) -> str:
    """Return the command of curl that streams audit records."""
    from hsm_client.messages import stream_request_of

    request = stream_request_of(operation, "")
    return curl_command(settings, request).replace("curl ", "curl --no-buffer ", 1)


def curl_command(settings: ClientSettings, request: Request) -> str:
    """
    Return the command of curl that sends a request.

    The bearer token is the shell variable ``TOKEN``, and the password of a PKCS#12 file
    is ``PASSWORD``: no secret of the connection is in the text.
    """
    url = settings.endpoint.rstrip("/") + request.target
    lines = [f"curl --request {request.method} {shlex.quote(url)}"]
    if settings.insecure:
        lines.append("--insecure")
    if settings.ca_bundle is not None:
        lines.append(f"--cacert {shlex.quote(str(settings.ca_bundle))}")
    lines += _certificate(settings)
    if _has_token(settings) or settings.client_cert is None:
        # curl hides it from other users' lists of processes; it hides no header.
        lines.append('--oauth2-bearer "$TOKEN"')
    for name, value in request.headers.items():
        lines.append(f"--header {shlex.quote(f'{name}: {value}')}")
    if request.body is not None:
        lines.append(f"--data-binary {_body(request)}")
    return " \\\n  ".join(lines)


def _certificate(settings: ClientSettings) -> list[str]:
    if settings.client_cert is None:
        return []
    path = shlex.quote(str(settings.client_cert))
    if settings.client_cert.suffix.lower() in {".p12", ".pfx"}:
        return [f'--cert-type P12 --cert {path}:"$PASSWORD"']
    if settings.client_key is None:
        return [f"--cert {path}"]
    return [f"--cert {path}", f"--key {shlex.quote(str(settings.client_key))}"]


def _has_token(settings: ClientSettings) -> bool:
    token = settings.token
    sources = (token.auth_token, token.jwt_secret, token.private_key, token.profile)
    return any(sources)


def _body(request: Request) -> str:
    if request.headers.get("Content-Type") == "application/json":
        return shlex.quote(neutral_json((request.body or b"").decode()))
    # Raw bytes come from a file or from standard input of this command, too.
    return "@-"


def rule_of(operation: Operation[Any], execute: Callable[[Operation[Any]], Any]) -> str:
    """
    Return a policy file with the rule that allows an operation to the caller.

    Args:
        operation: The operation.

        execute: Executes the reads that find the caller and the names of keys.

    Raises:
        InvalidInputError: The name of a key is not known.
    """
    from hsm_core.errors import AccessDeniedError, InvalidInputError, KeyNotFoundError
    from hsm_core.operations.keys import DescribeKey
    from hsm_core.operations.service import DescribeCaller

    names: list[str] = []
    for key in filter(None, (getattr(operation, name, "") for name in KEY_FIELDS)):
        try:
            name = execute(DescribeKey(key_id=key)).name
        except (AccessDeniedError, KeyNotFoundError):
            # The caller may not see it yet; a rule is about names only.
            name = "" if _UUID.fullmatch(key) else key
        if not name:
            raise InvalidInputError(
                f"The name of key {key} is not known, and policy rules match keys by "
                "name. Pass its name, or write a rule that matches its tags or owner.",
                field="key_id",
            )
        names.append(name)
    new = getattr(operation, "name", "")
    if new and not names:
        names = [new]
    return policy_rule(operation, execute(DescribeCaller()).principal, names)


def policy_rule(operation: Operation[Any], principal: str, keys: list[str]) -> str:
    """
    Return a policy file with the rule that allows an operation.

    Args:
        operation: The operation.

        principal: Caller to allow it to.

        keys: Names of the keys of the operation.
    """
    import json

    kind = type(operation).__name__
    words = _UNSAFE.sub("-", " ".join((principal, kind, *keys)).lower()).strip("-")
    match = {"operations": [kind]}
    algorithm = getattr(operation, "algorithm", "")
    if algorithm:
        match["algorithms"] = [str(algorithm)]
    if keys:
        match["key_names"] = keys
    match["principals"] = [principal]
    conditions = "\n".join(
        f"      {name}: {json.dumps(values)}" for name, values in match.items()
    )
    return (
        "version: 1\n"
        "extends: default\n"
        "rules:\n"
        f"  - name: {words}\n"
        "    effect: allow\n"
        "    match:\n"
        f"{conditions}"
    )
