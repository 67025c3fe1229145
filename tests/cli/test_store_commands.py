# SPDX-License-Identifier: MIT
"""Commands of ``store``, and the store in status."""

from datetime import UTC, datetime

import pytest

from hsm_core.operations import (
    AuditStatus,
    HSMStatus,
    KeyFinding,
    Recovered,
    RecoverKey,
    RecoverStore,
    Status,
    StoreStatus,
    StoreVerification,
    VerifyStore,
)
from tests.cli.support import Answering, Shell

KEY = "0b6f7a3e-2f0c-4a39-9a1d-5d9d6b1f7c11"
OTHER = "9c1d7a3e-2f0c-4a39-9a1d-5d9d6b1f7c22"
FINDINGS = (
    KeyFinding(key_id=KEY, problem="older"),
    KeyFinding(key_id=OTHER, problem="missing"),
)


class ChangedStore(Answering):
    """HSM with a changed store that records recoveries."""

    def __init__(self) -> None:
        super().__init__(self._state)
        self.asked: list[RecoverStore | RecoverKey] = []
        self.findings: tuple[KeyFinding, ...] = FINDINGS
        self.locked = "The store is a copy from record 12."
        self.audit = AuditStatus(
            available=True, sync="strict", log_id="0" * 32, head_seq=3, head_hash="ab"
        )

    def _state(self, operation: object) -> object:
        match operation:
            case Status():
                return HSMStatus(
                    state="locked",
                    version="0",
                    started_at=datetime.now(UTC),
                    uptime_seconds=1,
                    keys=2,
                    tampered_keys=2,
                    audit=self.audit,
                    algorithms=(),
                    store=StoreStatus(
                        available=True, locked=self.locked, findings=self.findings
                    ),
                )
            case VerifyStore():
                return StoreVerification(keys=2, findings=self.findings)
            case RecoverStore() | RecoverKey():
                self.asked.append(operation)
                return Recovered(accepted=(KEY,), forgotten=(OTHER,))
            case _:
                raise AssertionError(type(operation))


@pytest.fixture
def store(shell: Shell) -> ChangedStore:
    """Return the HSM that the shell speaks to."""
    changed = ChangedStore()
    shell.hsm = changed
    return changed


class TestVerify:
    def test_findings(self, shell: Shell, store: ChangedStore) -> None:
        """Each key is named with its problem, and the exit code says damage."""
        outcome = shell("store", "verify")

        assert 7 == outcome.code
        assert [KEY[:8], "older"] == outcome.lines[1].split()
        assert [OTHER[:8], "missing"] == outcome.lines[2].split()
        assert "2 of 2 keys" in outcome.err

    def test_nothing_found(self, shell: Shell, store: ChangedStore) -> None:
        """An intact store is reported as verified."""
        store.findings = ()

        assert "2 keys verified" in shell.ok("store", "verify").text


class TestRecover:
    def test_whole_store(self, shell: Shell, store: ChangedStore) -> None:
        """The whole store is accepted with the reason; each key is listed."""
        text = shell.ok("store", "recover", "--reason", "restored", "--yes").text

        assert [RecoverStore(reason="restored")] == store.asked
        assert [KEY, "accepted"] == text.splitlines()[1].split()
        assert "1 accepted, 1 removed, 0 still locked" in text

    def test_one_key(self, shell: Shell, store: ChangedStore) -> None:
        """One key is named by its id, which need not be there any more."""
        shell.ok("store", "recover", "--reason", "lost", "--key-id", OTHER, "--yes")

        assert [RecoverKey(key_id=OTHER, reason="lost")] == store.asked

    def test_no_key_is_not_every_key(self, shell: Shell, store: ChangedStore) -> None:
        """An empty id, as of a variable that is not set, recovers nothing."""
        outcome = shell("store", "recover", "--reason", "x", "--key-id", "", "--yes")

        assert 2 == outcome.code
        assert "--key-id" in outcome.err
        assert not store.asked

    def test_asks_first(self, shell: Shell, store: ChangedStore) -> None:
        """The problems are shown; without the confirmation nothing is recovered."""
        outcome = shell("store", "recover", "--reason", "x", stdin=b"yes\n")

        assert 2 == outcome.code
        assert not store.asked
        assert "a copy from record 12" in outcome.err
        assert f"{KEY}: older" in outcome.err

    def test_what_a_server_says_is_shown(
        self, shell: Shell, store: ChangedStore
    ) -> None:
        """No key id or problem acts on the terminal, in a question or a status."""
        store.locked = "\x1b[2J"
        store.findings = (KeyFinding(key_id="\x1b[31mred", problem="\x1b]0;title\7"),)

        asked = shell("store", "recover", "--reason", "x", stdin=b"")
        shown = shell.ok("status")

        assert (2, False) == (asked.code, bool(store.asked))
        for text in (asked.err, shown.text):
            assert "\x1b" not in text
            assert "\\x1b[2J" in text
            assert "\\x1b[31mred" in text

    def test_answer(self, shell: Shell, store: ChangedStore) -> None:
        """The confirmation word starts the recovery."""
        outcome = shell("store", "recover", "--reason", "x", stdin=b"recover\n")

        assert 0 == outcome.code
        assert 1 == len(store.asked)

    def test_no_reason(self, shell: Shell, store: ChangedStore) -> None:
        """A recovery requires a reason."""
        outcome = shell("store", "recover", "--yes")

        assert 2 == outcome.code
        assert "--reason" in outcome.err


class TestStatus:
    def test_locked(self, shell: Shell, store: ChangedStore) -> None:
        """The reason, and each key, stand in the status."""
        text = shell.ok("status").text

        assert "LOCKED: The store is a copy from record 12." in text
        assert [KEY, "older"] in [line.split() for line in text.splitlines()]

    @pytest.mark.parametrize(
        ("available", "state", "cause", "words"),
        [
            (True, "ok", "", "available; failed 2 times, recovered 1 times"),
            (True, "reserve", "full", "DISK FULL"),
            (False, "failing", "sync", "NOT AVAILABLE (sync)"),
        ],
    )
    def test_trail(
        self,
        shell: Shell,
        store: ChangedStore,
        available: bool,
        state: str,
        cause: str,
        words: str,
    ) -> None:
        """Status shows the state of the audit log and its failures."""
        store.audit = AuditStatus(
            available=available,
            sync="strict",
            log_id="0" * 32,
            head_seq=3,
            head_hash="ab",
            state=state,
            cause=cause,
            failures=2,
            resumes=1,
        )

        assert words in shell.ok("status").text
