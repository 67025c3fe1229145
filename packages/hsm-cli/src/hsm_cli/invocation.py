# SPDX-License-Identifier: MIT
"""Invocation of the program: settings, HSM and output."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

import click

from hsm_cli.io.output import Output, neutral, print_note
from hsm_cli.short_ids import (
    is_short,
    similar_names,
    whole_approval,
    whole_key,
    with_whole_ids,
)

if TYPE_CHECKING:
    from hsm_client import RemoteHSM
    from hsm_client.settings import ClientSettings
    from hsm_client.waiting import ApprovalWait
    from hsm_core.errors import HSMError
    from hsm_core.model import AuditEntry, KeyInfo
    from hsm_core.operations.audit import ListAuditEvents
    from hsm_core.operations.base import Operation
    from hsm_core.protocols import HSM

R = TypeVar("R")

CURL: Final = "curl"
RULE: Final = "rule"
"""Previews of a request, see `hsm_cli.previews`."""


class Invocation:
    """
    Context of a command.

    Args:
        settings: Connection settings.

        output: Output of results.

        hsm: Executes operations; None means the server of the settings, to which the
            first operation connects.

    Attributes:
        approval_wait: Limits of the wait for approvals; None means no wait.
        approval_id: Approval to use; if empty, the server finds it.
        idempotency_key: Key of a change; None means a new key.
        expected_generation: Generation that a key must have to be changed; 0 is any.
        preview: What to print in place of sending a request, see `hsm_cli.previews`;
            empty to send it.
    """

    def __init__(
        self, settings: ClientSettings, output: Output, hsm: HSM | None = None
    ) -> None:
        self.settings = settings
        self.output = output
        self.approval_wait: ApprovalWait | None = None
        self.approval_id = ""
        self.idempotency_key: str | None = None
        self.expected_generation = 0
        self.preview = ""
        self._hsm = hsm
        self._opened: RemoteHSM | None = None
        self._whole_ids: dict[str, str] = {}

    def execute(
        self,
        operation: Operation[R],
        /,
        *,
        idempotency_key: str | None = None,
        approval_id: str = "",
        expected_generation: int = 0,
    ) -> R:
        """
        Execute one operation; see `HSM.execute`.

        With *approval_wait*, an operation that needs approval waits for it. If a named
        approval is closed, this raises `ApprovalEndedError`. Every mutation has an
        idempotency key, so that an interrupted one can be retried; the key is printed
        if Ctrl-C leaves the outcome unknown.

        A key may be named by the start of its ID; see `hsm_cli.short_ids`. With
        *preview*, this prints and ends the command.
        """
        whole = with_whole_ids(self._connected, operation, self._whole_ids)
        given = self.idempotency_key if idempotency_key is None else idempotency_key
        key = os.urandom(16).hex() if given is None else given
        approval = self.whole_approval(approval_id or self.approval_id)
        expected = expected_generation or self.expected_generation
        if self.preview:
            from hsm_cli.previews import curl_of, rule_of

            self._print(
                curl_of(self.settings, whole, key, approval, expected)
                if self.preview == CURL
                else rule_of(whole, self.prepare)
            )
        hsm = self._connected()

        def attempt() -> R:
            with _endings(approval), similar_names(hsm, operation):
                return self._send(hsm, whole, key, approval, expected)

        if self.approval_wait is None:
            return attempt()
        from hsm_client.waiting import execute_when_approved

        return execute_when_approved(hsm, attempt, self.approval_wait)

    def prepare(self, operation: Operation[R], /) -> R:
        """Execute a read that the request of a command depends on."""
        preview, self.preview = self.preview, ""
        try:
            return self.execute(operation)
        finally:
            self.preview = preview

    def _print(self, text: str) -> NoReturn:
        """Print a preview, and end the command."""
        for line in text.splitlines():
            self.output.line(neutral(line))
        raise click.exceptions.Exit(0)

    def whole_key(self, text: str) -> str:
        """Return the whole ID of a key from its start; anything else is returned."""
        return whole_key(self._connected(), text) if is_short(text) else text

    def whole_approval(self, text: str) -> str:
        """Return the whole ID of an approval request from its start, or itself."""
        return whole_approval(self._connected(), text) if is_short(text) else text

    def _connected(self) -> HSM:
        return self._hsm or self._open()

    def change_key(self, operation: Operation[KeyInfo]) -> None:
        """
        Create or change a key, and print its new metadata.

        Raises:
            HSMError: See `execute`.
        """
        from hsm_cli.io.results import key_pairs

        key = self.execute(operation)
        self.output.pairs(key, key_pairs(key))

    @staticmethod
    def _send(
        hsm: HSM,
        operation: Operation[R],
        key: str,
        approval_id: str,
        expected_generation: int,
    ) -> R:
        from hsm_core.operations.base import Effect

        if operation.effect is not Effect.MUTATION:
            return hsm.execute(operation, approval_id=approval_id)
        try:
            return hsm.execute(
                operation,
                idempotency_key=key,
                approval_id=approval_id,
                expected_generation=expected_generation,
            )
        except KeyboardInterrupt:
            print_note(
                "interrupted; the change may have been made. To retry safely, run the "
                f"command again with --idempotency-key {key}."
            )
            raise

    def follow(
        self, operation: ListAuditEvents, on_interruption: Callable[[HSMError], None]
    ) -> Generator[AuditEntry, None, None]:
        """Stream audit records of the server; see `RemoteHSM.follow`."""
        if self.preview:
            from hsm_cli.previews import curl_of_stream, rule_of

            self._print(
                curl_of_stream(self.settings, operation)
                if self.preview == CURL
                else rule_of(operation, self.prepare)
            )
        return self._open().follow(operation, on_interruption=on_interruption)

    def set_approval_wait(self, seconds: float | None = None) -> None:
        """Wait for approvals, for *seconds* or as the settings say."""
        from hsm_client.waiting import ApprovalWait

        most = self.settings.wait_seconds if seconds is None else seconds
        self.approval_wait = ApprovalWait(seconds=most, notify=print_note)

    def raise_timeout(self, seconds: float) -> None:
        """Raise the time-out for a long-running operation."""
        # Help does without msgspec.
        from msgspec.structs import replace

        longest = max(seconds, self.settings.timeout_seconds)
        self.settings = replace(self.settings, timeout_seconds=longest)

    def close(self) -> None:
        """Close the connection to the server, if there is one."""
        if self._opened is not None:
            self._opened.close()

    def _open(self) -> RemoteHSM:
        if self._opened is None:
            from hsm_client.profiles import DEV
            from hsm_client.remote import RemoteHSM, open_remote

            profile = self.settings.profile
            if profile is not None and profile.name == DEV:
                print_note(f"dev server {profile.endpoint}")
            self._opened = open_remote(RemoteHSM, self.settings, interface="cli")
        return self._opened


@contextmanager
def _endings(approval_id: str) -> Iterator[None]:
    """Convert a conflict of the named approval into `ApprovalEndedError`."""
    from hsm_core.errors import ConflictError

    try:
        yield
    except ConflictError as error:
        if not approval_id or error.facts.get("approval_id") != approval_id:
            raise
        from hsm_client.waiting import ApprovalEndedError

        raise ApprovalEndedError(str(error), **error.facts) from None
