# SPDX-License-Identifier: MIT
"""The random generator's health test."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core.errors import EntropyUnavailableError


@pytest.mark.parametrize(
    "broken",
    [bytes, lambda n: b"\xff" * n, lambda n: (bytes(range(16)) * (n // 16 + 1))[:n]],
    ids=["zeros", "ones", "repeating"],
)
def test_a_stuck_generator_gives_nothing(
    broken: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the first bytes of a generator that repeats itself are handed out."""
    entropy = SystemEntropy()
    monkeypatch.setattr(os, "urandom", broken)

    with pytest.raises(EntropyUnavailableError):
        entropy.random_bytes(32)
    monkeypatch.undo()
    with pytest.raises(EntropyUnavailableError):
        entropy.random_bytes(32)


def test_a_block_that_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator that gives in two calls what is whole in one is broken too."""
    monkeypatch.setattr(os, "urandom", lambda n: bytes(range(n)))
    entropy = SystemEntropy()

    with pytest.raises(EntropyUnavailableError):
        entropy.random_bytes(32)


def test_a_missing_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator that fails is unavailable, and works again afterwards."""
    entropy = SystemEntropy()

    def failing(_: int) -> bytes:
        raise OSError

    monkeypatch.setattr(os, "urandom", failing)
    with pytest.raises(EntropyUnavailableError):
        entropy.random_bytes(32)
    with pytest.raises(EntropyUnavailableError):
        SystemEntropy()
    monkeypatch.undo()

    assert 32 == len(entropy.random_bytes(32))


def test_forks_do_not_repeat() -> None:
    """A child of a fork draws other bytes than its parent."""
    entropy = SystemEntropy()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, entropy.random_bytes(32))
        os._exit(0)
    os.waitpid(child, 0)

    assert os.read(reader, 32) != entropy.random_bytes(32)
    os.close(reader)
    os.close(writer)
