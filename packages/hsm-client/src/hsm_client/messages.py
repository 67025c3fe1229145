# SPDX-License-Identifier: MIT
"""HTTP messages: operations, results, errors and server-sent events, without I/O."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from hsm_core import errors, wire
from hsm_core.errors import (
    Fact,
    HSMError,
    InputSizeError,
    InvalidInputError,
    TransportError,
    UnsupportedOperationError,
)
from hsm_core.limits import CIPHERTEXT_OVERHEAD_BYTES
from hsm_core.operations.base import Operation, result_type
from hsm_core.rest import API_PREFIX, RESULT_HEADER

if TYPE_CHECKING:
    from hsm_core.model import AuditEntry
    from hsm_core.operations.audit import ListAuditEvents

_LONGEST_BLOCK: Final = 4 * 1024 * 1024


class EventBlock(msgspec.Struct):
    """
    Event or comment: the lines up to an empty line.

    Attributes:
        id: Position in the stream, or empty.
        event: Kind of the event; empty for a comment.
        data: Contents.
    """

    id: str = ""
    event: str = ""
    data: bytes = b""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class BlockReader:
    """Splits a stream into blocks; an incomplete last one is kept back."""

    def __init__(self) -> None:
        self._unread = bytearray()

    def feed(self, piece: bytes) -> Iterator[EventBlock]:
        """
        Yield the blocks that a piece of the stream completes.

        Raises:
            TransportError: A block is longer than 4 MiB.
        """
        is_complete = b"\n\n" in self._unread[-1:] + piece
        self._unread += piece
        if is_complete:
            *blocks, self._unread = self._unread.split(b"\n\n")
            yield from map(_parse, blocks)
        if len(self._unread) > _LONGEST_BLOCK:
            raise TransportError(
                f"An event is longer than {_LONGEST_BLOCK} bytes.",
                reason="answer",
                maximum=_LONGEST_BLOCK,
            )


def _parse(text: bytearray) -> EventBlock:
    block, data = EventBlock(), bytearray()
    for line in bytes(text).splitlines():
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"id":
            block.id = value.decode("ascii", "replace")
        elif name == b"event":
            block.event = value.decode("ascii", "replace")
        elif name == b"data":
            data += value
    block.data = bytes(data)
    return block


R = TypeVar("R")

EVENTS: Final = "text/event-stream"
"""Media type of live views."""

_JSON: Final = "application/json"
_BYTES: Final = "application/octet-stream"
_ACCEPTED: Final = 202
_MESSAGE_CHARACTERS: Final = 2000
"""Longest error message that is kept."""

_RAW_FROM_BYTES: Final = 512 * 1024
"""Shortest payload that is sent as raw bytes; JSON bodies have a lower limit."""


_JSON_PAYLOAD_BYTES: Final = 1024 * 1024
"""Longest payload that servers accept in a JSON body by default."""

_TARGET_CHARACTERS: Final = 120 * 1024
"""Longest path with query: servers accept lines of 128 KiB by default."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """
    HTTP request without credentials.

    Attributes:
        target: Path with query, percent-encoded.
        body: None if the method has none.
    """

    method: str
    target: str
    headers: dict[str, str]
    body: bytes | None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """
    HTTP response.

    Attributes:
        result_fields: Value of `RESULT_HEADER`, or empty.
        retry_after_seconds: Value of Retry-After, or None.
        revision: Value of `REVISION_HEADER`; 0 if it has none.
    """

    status: int
    content_type: str
    body: bytes
    result_fields: str = ""
    retry_after_seconds: float | None = None
    revision: int = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def request_of(operation: Operation[Any], /) -> Request:
    """
    Return the request of an operation.

    Raises:
        InvalidInputError: The operation is invalid; the message names the field.
        InputSizeError: A field next to a long payload is too long for a URL.
        UnsupportedOperationError: No server offers the operation.
    """
    if not hasattr(operation, "route"):
        raise UnsupportedOperationError(
            f"No server offers {type(operation).__name__}; only an embedded HSM does."
        )
    route = operation.route
    fields = _checked_fields(operation)
    path = API_PREFIX + route.path
    for name in route.path_fields:
        path = path.replace(f"{{{name}}}", quote(str(fields.pop(name)), safe=""))
    headers = {"Accept": f"{_JSON}, application/problem+json"}
    raw = fields.get(route.raw_request) if route.raw_request else None
    if isinstance(raw, bytes) and len(raw) >= _RAW_FROM_BYTES:
        others = {k: v for k, v in fields.items() if k != route.raw_request}
        target = _with_query(path, others)
        if len(target) <= _TARGET_CHARACTERS:
            headers["Content-Type"] = _BYTES
            if route.raw_response:
                # A result can be as long, and base64 of it would be longer.
                headers["Accept"] = f"{_BYTES}, application/problem+json"
            return Request(
                method=route.method, target=target, headers=headers, body=raw
            )
        # The longer ciphertext of a plaintext must fit as well.
        spare = CIPHERTEXT_OVERHEAD_BYTES if route.raw_request == "plaintext" else 0
        if len(raw) > _JSON_PAYLOAD_BYTES - spare:
            raise _too_long_for_query(others)
    if not route.has_body:
        return Request(
            method=route.method,
            target=_with_query(path, fields),
            headers=headers,
            body=None,
        )
    headers["Content-Type"] = _JSON
    return Request(
        method=route.method, target=path, headers=headers, body=wire.encode_json(fields)
    )


def stream_request_of(operation: ListAuditEvents, position: str, /) -> Request:
    """
    Return the request of a stream of audit records.

    Args:
        operation: Filters; *limit* is ignored.

        position: ID of the last event received, or empty.

    Raises:
        InvalidInputError: The operation is invalid.
    """
    fields = _checked_fields(operation)
    for name in ("limit", "ascending", "follow"):
        fields.pop(name, None)
    path = API_PREFIX + operation.route.path
    headers = {"Accept": f"{EVENTS}, application/problem+json"}
    if position:
        headers["Last-Event-ID"] = position
    return Request(
        method="GET", target=_with_query(path, fields), headers=headers, body=None
    )


def entry_of(data: bytes, /) -> AuditEntry:
    """
    Return the audit record of an event.

    Raises:
        TransportError: The event is not an audit record.
    """
    from hsm_core.model import AuditEntry

    try:
        return wire.decode_json(data, AuditEntry)
    except InvalidInputError as error:
        raise TransportError(
            f"Invalid event from the server: {error}", reason="answer"
        ) from None


def error_of_event(data: bytes, /) -> HSMError:
    """Return the error that ended a stream."""
    answer = Answer(status=503, content_type="application/problem+json", body=data)
    return error_of(answer)


def result_of(operation: type[Operation[R]], answer: Answer, /) -> R:
    """
    Return the result of an operation from its response.

    Raises:
        HSMError: The response is a problem document; see `error_of`.
        TransportError: The response is invalid for this operation.
    """
    route = operation.route
    media_type = answer.content_type.partition(";")[0].strip().lower()
    if answer.status == _ACCEPTED and media_type == _JSON:
        raise _approval_required(answer) or error_of(answer)
    is_raw = media_type == _BYTES and bool(route.raw_response and answer.result_fields)
    if answer.status != route.success or not (is_raw or media_type == _JSON):
        raise error_of(answer)
    try:
        if is_raw:
            return _raw_result(operation, answer)
        return wire.decode_json(answer.body, result_type(operation))
    except InvalidInputError as error:
        raise TransportError(
            f"Invalid response to {operation.__name__} from the server: {error}",
            reason="answer",
        ) from None


def _raw_result(operation: type[Operation[R]], answer: Answer) -> R:
    """
    Return the result of a raw response.

    Raises:
        InvalidInputError: The response is invalid for this operation.
    """
    fields = wire.scan_json(answer.result_fields.encode("utf-8", "replace"))
    if not isinstance(fields, dict):
        raise InvalidInputError(f"{RESULT_HEADER} must be a JSON object.")
    fields[operation.route.raw_response] = answer.body
    return wire.convert(fields, result_type(operation))


def _approval_required(answer: Answer) -> HSMError | None:
    """Return the error of a response that requires approval, or None."""
    from hsm_core.operations.approvals import ApprovalInfo

    try:
        request = wire.decode_json(answer.body, ApprovalInfo)
    except InvalidInputError:
        return None
    required = errors.ApprovalRequiredError(
        approval_id=request.approval_id,
        digest=request.digest,
        expires_at=request.expires_at.isoformat(),
    )
    required.approval = request
    return required


def error_of(answer: Answer, /) -> HSMError:
    """
    Return the error of a response.

    A problem document (RFC 9457) with a code becomes the error of that code. Any other
    response comes from an intermediary, not from an HSM.
    """
    problem = _problem(answer)
    code = problem.get("code")
    if isinstance(code, str) and code:
        from hsm_core.error_records import ErrorRecord, error_from_record

        message = problem.get("detail") or problem.get("title") or ""
        facts = problem.get("facts")
        record = ErrorRecord(
            code=code,
            message=_printable(message) if isinstance(message, str) else "",
            facts=_facts(facts if isinstance(facts, dict) else {}),
        )
        request_id = problem.get("request_id")
        if answer.status >= 500 and isinstance(request_id, str):
            record.facts.setdefault("request_id", request_id)
        return _with_sentence(error_from_record(record))
    return _foreign_error(answer.status)


def _checked_fields(operation: Operation[Any]) -> dict[str, Any]:
    """Validate all fields, and return those that differ from their default."""
    cls = type(operation)
    tree = msgspec.to_builtins(operation, builtin_types=(bytes,))
    for name, value in tree.items():
        _check_text(name, value)
    wire.convert(tree, cls)
    tree.pop("type", None)
    fields: dict[str, Any] = tree
    return fields


def _check_text(name: str, value: object) -> None:
    if isinstance(value, bytes):
        return
    try:
        wire.encode_json(value)
    except UnicodeEncodeError:
        raise InvalidInputError(f"{name} must be Unicode text.", field=name) from None


def _with_query(path: str, fields: dict[str, Any]) -> str:
    pairs = {name: _query_value(value) for name, value in fields.items()}
    return f"{path}?{urlencode(pairs, quote_via=quote)}" if pairs else path


def _too_long_for_query(fields: dict[str, Any]) -> InputSizeError:
    lengths = {name: len(quote(_query_value(v), safe="")) for name, v in fields.items()}
    name = max(lengths, key=lambda name: lengths[name])
    return InputSizeError(
        name,
        actual=lengths[name],
        maximum=_TARGET_CHARACTERS,
        unit="characters in a URL next to a payload of this length",
    )


def _query_value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case bytes():
            return msgspec.json.encode(value).decode().strip('"')
        case list() | tuple():
            return ",".join(map(str, value))
        case _:
            return str(value)


def _problem(answer: Answer) -> dict[str, Any]:
    media_type = answer.content_type.partition(";")[0].strip().lower()
    if media_type not in {"application/problem+json", _JSON}:
        return {}
    try:
        tree = wire.scan_json(answer.body)
    except InvalidInputError:
        return {}
    return tree if isinstance(tree, dict) and answer.status >= 202 else {}


def _printable(message: str) -> str:
    """Return a message that programs may print and log as it is."""
    return "".join(
        character if character.isprintable() else repr(character)[1:-1]
        for character in message[:_MESSAGE_CHARACTERS]
    )


def _facts(tree: dict[str, Any]) -> dict[str, Fact]:
    return {
        name: value
        for name, value in tree.items()
        if isinstance(value, str | int) and not isinstance(value, bool)
    }


def _with_sentence(error: HSMError) -> HSMError:
    return error if str(error) else type(error).from_wire(error.sentence, error.facts)


def _foreign_error(status: int) -> HSMError:
    match status:
        case 401:
            return errors.AuthenticationError()
        case 403:
            return errors.AccessDeniedError()
        case 429:
            return errors.UnavailableError("Too many requests; try again later.")
        case 502 | 503 | 504:
            return errors.UnavailableError(
                f"The server is unavailable (status {status}).", status=status
            )
        case _ if 300 <= status < 400:
            return TransportError(
                f"The server sent a redirect (status {status}). Redirects are not "
                "followed; check the endpoint.",
                reason="redirect",
                status=status,
            )
        case _:
            return TransportError(
                f"The response (status {status}) is not from an HSM; check the "
                "endpoint.",
                reason="answer",
                status=status,
            )
