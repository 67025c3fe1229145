# SPDX-License-Identifier: MIT
"""One run of the program: its settings, its HSM and where its output goes."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from hsm_cli.io.output import Output, print_note
from hsm_cli.settings import ClientSettings

if TYPE_CHECKING:
    from hsm_cli.client import RemoteHSM
    from hsm_cli.waiting import Patience
    from hsm_core.errors import HSMError
    from hsm_core.model import AuditEntry
    from hsm_core.operations import ListAuditEvents, Operation
    from hsm_core.protocols import HSM

R = TypeVar("R")


class Invocation:
    """
    What commands reach.

    Args:
        settings: Which server, and how.

        output: Where results go.

        hsm: What executes operations; None means the server of the settings, to which
            nothing is sent before the first operation.

    Attributes:
        patience: How long to wait where other people must agree; None means not at all.
        approval_id: The approval under which operations are done that need one; empty,
            and the server looks for it.
        expected_generation: The generation that a key must be at to be changed; 0 is
            any.
    """

    def __init__(
        self, settings: ClientSettings, output: Output, hsm: HSM | None = None
    ) -> None:
        self.settings = settings
        self.output = output
        self.patience: Patience | None = None
        self.approval_id = ""
        self.expected_generation = 0
        self._hsm = hsm
        self._opened: RemoteHSM | None = None

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

        With patience, what other people must agree to is done as soon as they have. A
        named approval that came to an end is an `ApprovalEndedError`. A
        mutation always has an idempotency key, so that an interrupted one can be
        repeated: it is told when Ctrl-C leaves the outcome open.
        """
        from hsm_core.operations import Effect

        hsm = self._hsm or self._open()
        key = secrets.token_hex(16) if idempotency_key is None else idempotency_key
        approval = approval_id or self.approval_id
        expected = expected_generation or self.expected_generation
        is_mutation = operation.effect is Effect.MUTATION

        def attempt() -> R:
            with _endings(approval):
                if not is_mutation:
                    return hsm.execute(operation, approval_id=approval)
                return self._change(hsm, operation, key, approval, expected)

        if self.patience is None:
            return attempt()
        from hsm_cli.waiting import perform

        return perform(hsm, attempt, self.patience)

    @staticmethod
    def _change(
        hsm: HSM,
        operation: Operation[R],
        key: str,
        approval_id: str,
        expected_generation: int,
    ) -> R:
        try:
            return hsm.execute(
                operation,
                idempotency_key=key,
                approval_id=approval_id,
                expected_generation=expected_generation,
            )
        except KeyboardInterrupt:
            print_note(
                "interrupted; it is not known whether the change was made. Repeat the "
                f"command with --idempotency-key {key}, and it is not made twice."
            )
            raise

    def follow(
        self, operation: ListAuditEvents, on_interruption: Callable[[HSMError], None]
    ) -> Generator[AuditEntry, None, None]:
        """Give entries of the server's trail without end; see `RemoteHSM.follow`."""
        return self._open().follow(operation, on_interruption=on_interruption)

    def be_patient(self, seconds: float | None = None) -> None:
        """Wait where other people must agree; for *seconds*, or as the settings say."""
        from hsm_cli.waiting import Patience

        most = self.settings.wait_seconds if seconds is None else seconds
        self.patience = Patience(seconds=most)

    def wait_at_least(self, seconds: float) -> None:
        """Wait this long for the answer to what takes long by its nature."""
        longest = max(seconds, self.settings.timeout_seconds)
        self.settings = replace(self.settings, timeout_seconds=longest)

    def close(self) -> None:
        """Close the connection to the server, if there is one."""
        if self._opened is not None:
            self._opened.close()

    def _open(self) -> RemoteHSM:
        if self._opened is None:
            from hsm_cli.bootstrap import open_remote

            self._opened = open_remote(self.settings)
        return self._opened


@contextmanager
def _endings(approval_id: str) -> Iterator[None]:
    """Tell the end of the approval that was named from any other conflict."""
    from hsm_core.errors import ConflictError

    try:
        yield
    except ConflictError as error:
        if not approval_id or error.facts.get("approval_id") != approval_id:
            raise
        from hsm_cli.exit_codes import ApprovalEndedError

        raise ApprovalEndedError(str(error), **error.facts) from None
