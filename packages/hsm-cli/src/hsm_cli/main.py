# SPDX-License-Identifier: MIT
"""
Entry point: runs one command and converts every outcome into an exit code.

No error ends in a traceback.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    import click

    from hsm_core.errors import HSMError

_COLLECTIONS: Final = (50_000, 20, 100)
"""Thresholds of the garbage collector; its own first one is 700."""
_OK = 0
_OTHER = 1
_USAGE = 2
_INTERRUPTED = 130
_OUTPUT_CLOSED = 141
_FORM_FLAGS = ("--format", "--as")


def main() -> NoReturn:
    """Run the command line of this process, and exit."""
    # Collections would take a tenth of a short command's time.
    gc.set_threshold(*_COLLECTIONS)
    _reopen_closed_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    code = _flushed(run(sys.argv[1:]))
    # Nothing is left to do, and to free every object takes another tenth.
    os._exit(code)


def run(args: Sequence[str], *, hsm: object = None) -> int:
    """
    Run one command.

    Args:
        args: Command line without the program name.

        hsm: Executes operations in place of a server, unless it is None.

    Returns:
        The exit code; see `hsm_cli.exit_codes`.
    """
    try:
        from click.exceptions import Exit as Done

        from hsm_cli.commands import cli

        _answer_completion(cli)
        words = list(args) or ["--help"]
        try:
            with cli.make_context("hsm-cli", words, obj=hsm) as context:
                cli.invoke(context)
        except Done as done:
            if sys.stdout is None and done.exit_code == _OK:
                raise OSError(errno.EBADF, "standard output is closed") from None
            return done.exit_code
        return _OK
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:
        return _report(error, as_json=_wants_json(args))


def _answer_completion(cli: click.Command) -> None:
    """Answer a request of a completion script, and exit."""
    instruction = os.environ.get("_HSM_CLI_COMPLETE")
    if instruction:
        from click.shell_completion import shell_complete

        sys.exit(shell_complete(cli, {}, "hsm-cli", "_HSM_CLI_COMPLETE", instruction))


def _report(error: Exception, *, as_json: bool) -> int:
    """Print an error, and return its exit code."""
    import click

    from hsm_cli.exit_codes import exit_code
    from hsm_cli.io.output import print_note
    from hsm_core.errors import HSMError

    try:
        match error:
            case BrokenPipeError():
                _discard_output()
                return _OUTPUT_CLOSED
            case HSMError():
                _print_error(error, as_json=as_json)
                return exit_code(error)
            case click.Abort():
                return _interrupted()
            case click.ClickException():
                _print_error(_usage_error(error), as_json=as_json, hint=_hint(error))
                return _USAGE
            case OSError(filename=None):
                _print_error(_write_error(error), as_json=as_json)
                return _OTHER
            case _:
                print_note(f"unexpected error: {type(error).__name__}")
                return _OTHER
    except KeyboardInterrupt:
        return _interrupted()


def _print_error(error: HSMError, *, as_json: bool, hint: str = "") -> None:
    from hsm_cli.io.output import print_note

    if as_json:
        from hsm_cli.io.records import encode_record
        from hsm_core.error_records import error_record

        if sys.stderr is not None:
            sys.stderr.write(f"{encode_record(error_record(_encodable(error)))}\n")
        return
    print_note(f"{error} [{error.code}]")
    notes = getattr(error, "__notes__", ())
    for line in (hint, *notes, _advice(error), *_approval_notes(error)):
        if line:
            print_note(line)


def _advice(error: HSMError) -> str:
    """Return the next step after an error whose message does not name it."""
    from hsm_core.errors import AccessDeniedError, AuthenticationError, TransportError

    if isinstance(error, AccessDeniedError):
        return "for the policy rule that allows it, add --show-rule"
    if isinstance(error, AuthenticationError):
        return "to sign in again: hsm-cli login"
    if isinstance(error, TransportError) and error.facts.get("reason") == "connect":
        return (
            "is this the right server? Pass --endpoint URL or --profile NAME; "
            "hsm-server --dev starts one to try out"
        )
    return ""


def _approval_notes(error: HSMError) -> list[str]:
    """Return the next steps for an operation that requires approval."""
    from hsm_core.errors import ApprovalRequiredError
    from hsm_core.operations.approvals import ApprovalInfo

    if not isinstance(error, ApprovalRequiredError):
        return []
    request = error.approval
    if not isinstance(request, ApprovalInfo):
        return []
    from hsm_cli.io.results import instant

    missing = "; ".join(request.missing) or "nothing"
    return [
        f"approval request {request.approval_id}: {request.operation.kind}, missing: "
        f"{missing}; expires {instant(request.expires_at)}",
        f"to approve: hsm-cli approvals approve {request.approval_id}",
        f"to wait for it: hsm-cli approvals wait {request.approval_id}",
        "after approval, run the same command again; or use --wait to do both",
    ]


def _encodable(error: HSMError) -> HSMError:
    """Return an error with Unicode text; file names may be other bytes."""
    from hsm_core.errors import ApprovalRequiredError

    facts = {
        name: _unicode(fact) if isinstance(fact, str) else fact
        for name, fact in error.facts.items()
    }
    encodable = type(error).from_wire(_unicode(str(error)), facts)
    if isinstance(error, ApprovalRequiredError) and isinstance(
        encodable, ApprovalRequiredError
    ):
        encodable.approval = error.approval
    return encodable


def _unicode(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _usage_error(error: click.ClickException) -> HSMError:
    from hsm_core.errors import InvalidInputError

    return InvalidInputError(error.format_message())


def _write_error(error: OSError) -> HSMError:
    from hsm_cli.io.output import OutputError

    return OutputError(f"Can't write the result: {error.strerror}.")


def _hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"see {context.command_path} --help" if context is not None else ""


def _wants_json(args: Sequence[str]) -> bool:
    words = list(args)
    options = words[: words.index("--")] if "--" in words else words
    parts = [part for word in options for part in word.split("=", 1)]
    forms = {form.lower() for name, form in pairwise(parts) if name in _FORM_FLAGS}
    forms.add(os.environ.get("FERROHSM_FORMAT", "").lower())
    variable = os.environ.get("FERROHSM_JSON", "").lower()
    return (
        "--json" in options
        or variable in {"1", "true", "t", "yes", "y", "on"}
        or not forms.isdisjoint({"json", "jsonl"})
    )


def _interrupted() -> int:
    if sys.stderr is not None:
        sys.stderr.write("hsm-cli: interrupted\n")
    return _INTERRUPTED


def _reopen_closed_descriptors() -> None:
    """
    Open the null device on closed standard descriptors.

    Otherwise the next file or socket would become standard output.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _flushed(code: int) -> int:
    """Flush the standard streams, while a failure can still set the exit code."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
    if sys.stdout is None:
        return code
    try:
        sys.stdout.flush()
    except OSError:
        return code or _OUTPUT_CLOSED
    return code


def _discard_output() -> None:
    """Discard buffered output, so that the interpreter's last flush can't fail."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError, AttributeError):
        return
