# SPDX-License-Identifier: MIT
"""
The program: runs one command and turns whatever happens into an exit code.

No error leaves it as a traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click

    from hsm_core.errors import HSMError

_OK = 0
_OTHER = 1
_USAGE = 2
_INTERRUPTED = 130
_OUTPUT_CLOSED = 141


def main() -> None:
    """Run the command line of this process, and end the process."""
    _plug_closed_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    code = run(sys.argv[1:])
    sys.exit(_flushed(code))


def run(args: Sequence[str], *, hsm: object = None) -> int:
    """
    Run one command.

    Args:
        args: The command line without the program's name.

        hsm: Executes operations in place of a server, if it is not None.

    Returns:
        The exit code; see `hsm_cli.exit_codes`.
    """
    try:
        from click.exceptions import Exit as Done

        from hsm_cli.commands import cli

        _complete_if_asked(cli)
        words = list(args) or ["--help"]
        try:
            with cli.make_context("hsm-cli", words, obj=hsm) as context:
                cli.invoke(context)
        except Done as done:
            return done.exit_code
        return _OK
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:
        return _report(error, as_json=_asks_for_json(args))


def _complete_if_asked(cli: click.Command) -> None:
    """Answer the shell, and end the process, where a completion script has asked."""
    instruction = os.environ.get("_HSM_CLI_COMPLETE")
    if instruction:
        from click.shell_completion import shell_complete

        sys.exit(shell_complete(cli, {}, "hsm-cli", "_HSM_CLI_COMPLETE", instruction))


def _report(error: Exception, *, as_json: bool) -> int:
    """Tell what went wrong in one line, and return the exit code."""
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
                _tell(error, as_json=as_json)
                return exit_code(error)
            case click.Abort():
                return _interrupted()
            case click.ClickException():
                _tell(_usage_error(error), as_json=as_json, hint=_hint(error))
                return _USAGE
            case _:
                print_note(f"unexpected error: {type(error).__name__}")
                return _OTHER
    except KeyboardInterrupt:
        return _interrupted()


def _tell(error: HSMError, *, as_json: bool, hint: str = "") -> None:
    from hsm_cli.io.output import encode_record, print_note

    if as_json:
        from hsm_core.wire import error_record

        if sys.stderr is not None:
            sys.stderr.write(f"{encode_record(error_record(_sayable(error)))}\n")
        return
    print_note(f"{error} [{error.code}]")
    for line in (hint, *_approval_notes(error)):
        if line:
            print_note(line)


def _approval_notes(error: HSMError) -> list[str]:
    """Return what to do where other people must agree first."""
    from hsm_core.errors import ApprovalRequiredError
    from hsm_core.operations import ApprovalInfo

    if not isinstance(error, ApprovalRequiredError):
        return []
    asked = error.approval
    if not isinstance(asked, ApprovalInfo):
        return []
    from hsm_cli.io.views import instant

    missing = "; ".join(asked.missing) or "nothing"
    return [
        f"approval {asked.approval_id}: {asked.operation.kind}, missing: {missing}; "
        f"expires {instant(asked.expires_at)}",
        f"others decide with: hsm-cli approvals approve {asked.approval_id}",
        "then repeat this command, the same; or give --wait, and it waits for them",
    ]


def _sayable(error: HSMError) -> HSMError:
    """Return an error whose text is Unicode; names of files need not be."""
    from hsm_core.errors import ApprovalRequiredError

    facts = {
        name: _unicode(fact) if isinstance(fact, str) else fact
        for name, fact in error.facts.items()
    }
    sayable = type(error).from_wire(_unicode(str(error)), facts)
    if isinstance(error, ApprovalRequiredError) and isinstance(
        sayable, ApprovalRequiredError
    ):
        sayable.approval = error.approval
    return sayable


def _unicode(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _usage_error(error: click.ClickException) -> HSMError:
    from hsm_core.errors import InvalidInputError

    return InvalidInputError(error.format_message())


def _hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"see {context.command_path} --help" if context is not None else ""


def _asks_for_json(args: Sequence[str]) -> bool:
    words = list(args)
    options = words[: words.index("--")] if "--" in words else words
    variable = os.environ.get("FERROHSM_JSON", "").lower()
    return "--json" in options or variable in {"1", "true", "t", "yes", "y", "on"}


def _interrupted() -> int:
    if sys.stderr is not None:
        sys.stderr.write("hsm-cli: interrupted\n")
    return _INTERRUPTED


def _plug_closed_descriptors() -> None:
    """
    Open the null device on standard descriptors that are closed.

    Else the next file or socket would be taken for standard output.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _flushed(code: int) -> int:
    """Write out what is buffered, while a failure can still become an exit code."""
    if sys.stdout is None:
        return code
    try:
        sys.stdout.flush()
    except OSError:
        _discard_output()
        return code or _OUTPUT_CLOSED
    return code


def _discard_output() -> None:
    """Let the interpreter's last flush go nowhere, rather than fail with a message."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError, AttributeError):
        return
