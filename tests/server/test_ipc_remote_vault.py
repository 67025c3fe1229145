# SPDX-License-Identifier: MIT
"""A front end's view of a vault, over a real connection with a real vault."""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hsm_core import errors, wire
from hsm_core import operations as ops
from hsm_core.algorithms import Algorithm, KeyUsage
from hsm_core.errors import AuthenticationError, InvalidInputError, MalformedError
from hsm_core.testing import caller
from hsm_server.config.settings import MAX_TOKEN_BYTES, TokenRules
from hsm_server.identity.token_keys import TokenTrust
from hsm_server.ipc.frames import Chunk, Purpose, Request
from hsm_server.ipc.remote_vault import RemoteVault
from hsm_server.vault.access import Reply, Visitor
from tests.pki import self_signed_root
from tests.server.ipc_support import Bench, open_bench, recorded, visitor
from tests.server.support import mint, until

LONG = 2 * 1024 * 1024


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """Give a vault over memory."""
    async with open_bench() as opened:
        yield opened
        assert [] == opened.unexpected
        assert [] == opened.violations


class Heard(list[str]):
    """Notes the principals that were told."""

    def __call__(self, principal: str) -> None:
        """Note one."""
        self.append(principal)


async def run(
    vault: RemoteVault, operation: ops.Operation[Any], who: Visitor | None = None
) -> Any:
    """Execute an operation for somebody, by default for Alice."""
    return await vault.execute(
        who or visitor(), operation, idempotency_key=None, known=Heard()
    )


async def create(vault: RemoteVault, algorithm: Algorithm, name: str) -> str:
    """Make a key and return its id."""
    info = await run(vault, ops.CreateKey(algorithm=algorithm, name=name))
    return str(info.key_id)


class TestExecute:
    @pytest.mark.parametrize(
        "key", ["", "x" * 129, "x" * 30_000, "\udcff", "schlüssel", "a\n"]
    )
    async def test_a_wrong_idempotency_key(self, bench: Bench, key: str) -> None:
        """What a header holds is refused by the HSM, and ends no connection."""
        vault = bench.front_end()
        operation = ops.CreateKey(algorithm=Algorithm.ED25519, name="one")

        with pytest.raises(errors.InvalidInputError) as caught:
            await vault.execute(
                visitor(), operation, idempotency_key=key, known=Heard()
            )

        assert "idempotency_key" == caught.value.facts["field"]
        assert ("alice", "ok") not in recorded(bench.hsm, "CreateKey")
        assert (await vault.status()).audit.available

    @pytest.mark.parametrize(
        ("operation", "kind"),
        [
            (ops.DescribeKey(key_id="nobody"), errors.KeyNotFoundError),
            (
                ops.CreateKey(algorithm=Algorithm.ED25519, name="taken"),
                errors.NameTakenError,
            ),
            (
                ops.CreateKey(algorithm=Algorithm.ED25519, usages=(KeyUsage.WRAP,)),
                errors.UnsupportedOperationError,
            ),
        ],
    )
    async def test_an_error(
        self,
        bench: Bench,
        operation: ops.Operation[Any],
        kind: type[errors.HSMError],
    ) -> None:
        """An error of the HSM comes as it was: class, message and facts."""
        vault, heard = bench.front_end(), Heard()
        await create(vault, Algorithm.ED25519, "taken")
        with pytest.raises(kind) as expected:
            bench.hsm.act_as(caller()).execute(operation)

        with pytest.raises(kind) as caught:
            await vault.execute(visitor(), operation, idempotency_key=None, known=heard)

        assert ["alice"] == heard
        assert type(expected.value) is type(caught.value)
        assert str(expected.value) == str(caught.value)
        assert expected.value.facts == caught.value.facts

    async def test_long_ways(self, bench: Bench) -> None:
        """Long operations and answers go both ways while short ones pass them."""
        vault = bench.front_end()
        key = await create(vault, Algorithm.AES_256_GCM, "one")
        texts = [bytes([n]) * LONG for n in range(1, 5)]

        async def both_ways(text: bytes) -> bytes:
            sealed = await run(vault, ops.Encrypt(key_id=key, plaintext=text))
            operation = ops.Decrypt(key_id=key, ciphertext=sealed.ciphertext)
            opened = await run(vault, operation)
            return bytes(opened.plaintext)

        async def short(number: int) -> bytes:
            await asyncio.sleep(number / 1000)
            text = str(number).encode()
            sealed = await run(vault, ops.Encrypt(key_id=key, plaintext=text))
            operation = ops.Decrypt(key_id=key, ciphertext=sealed.ciphertext)
            return bytes((await run(vault, operation)).plaintext)

        async with asyncio.timeout(60):
            found = await asyncio.gather(
                *map(both_ways, texts), *(short(n) for n in range(50))
            )

        assert [*texts, *(str(n).encode() for n in range(50))] == found

    @pytest.mark.parametrize(
        ("operation", "field"),
        [
            (ops.Encrypt(key_id="one", plaintext=b""), "aad"),
            (ops.Encrypt(key_id="one", plaintext=b""), "key_id"),
            (ops.Encrypt(key_id="one", plaintext=b"x"), "plaintext"),
            (ops.DescribeKey(key_id="one"), "key_id"),
            (ops.Decapsulate(key_id="one", ciphertext=b""), "ciphertext"),
        ],
    )
    async def test_a_field_without_chunks(
        self, bench: Bench, operation: ops.Operation[Any], field: str
    ) -> None:
        """Chunks fill the one field that can be long, within its type, and no other."""
        raw = await bench.raw()
        request = Request(
            1,
            Purpose.EXECUTE,
            visitor(),
            wire.encode_packed(operation),
            in_chunks=True,
            payload=field,
        )

        await raw.send(Chunk(1, b"c" * 5000), request)
        answer = await raw.answer()

        assert answer.error is not None
        assert answer.error.code in {MalformedError.code, InvalidInputError.code}
        assert [] == recorded(bench.hsm, type(operation).__name__)

    async def test_payloads_are_not_kept(self, bench: Bench) -> None:
        """While the vault computes, nobody but the vault holds a payload."""
        vault = bench.front_end()
        key = await create(vault, Algorithm.AES_256_GCM, "one")
        held = bytearray(b"text" * LONG)

        class Text(bytes):
            """Bytes whose end is noticed."""

            def __del__(self) -> None:
                held.clear()

        waiting = vault.execute(
            visitor(),
            ops.Encrypt(key_id=key, plaintext=Text(held[:LONG])),
            idempotency_key=None,
            known=lambda _: told.append(len(held)),
        )
        told: list[int] = []
        sealed = await waiting

        assert LONG < len(sealed.ciphertext)
        assert told == [0]

    async def test_answered_uses_are_not_kept(self, bench: Bench) -> None:
        """A use leaves nothing that only garbage collection would free."""
        vault = bench.front_end()
        key = await create(vault, Algorithm.ED25519, "one")
        replies: list[Reply] = []

        def reply(given: Reply) -> None:
            replies.append(given)

        kept = sys.getrefcount(reply)
        gc.disable()
        try:
            sign = ops.Sign(key_id=key, message=b"m")
            assert vault.begin(visitor(), sign, reply) is not None
            await until(lambda: replies)
            assert kept == sys.getrefcount(reply)
        finally:
            gc.enable()

        assert replies[0].error is None

    async def test_too_long(self, bench: Bench) -> None:
        """An operation that is longer than the vault takes is refused by itself."""
        vault = bench.front_end()
        key = await create(vault, Algorithm.AES_256_GCM, "one")

        with pytest.raises(errors.PayloadTooLargeError):
            await run(vault, ops.Encrypt(key_id=key, plaintext=b"x" * 3 * LONG))

        assert (await vault.status()).audit.available

    async def test_a_field_that_can_not_be_written(self, bench: Bench) -> None:
        """A text that is no Unicode is told to those alone who may ask."""
        vault = bench.front_end()
        operation = ops.DescribeKey(key_id="\udcff")

        with pytest.raises(errors.InvalidInputError):
            await run(vault, operation)
        with pytest.raises(AuthenticationError):
            await run(vault, operation, visitor(""))

        assert (await vault.status()).audit.available


class TestGreet:
    async def test_a_good_credential(self, bench: Bench) -> None:
        """Who has a good token is let in, and is not looked at again for a while."""
        vault, heard, who = bench.front_end(), Heard(), visitor()

        for _ in range(3):
            await vault.greet(who, known=heard)

        assert ["alice"] == heard

    async def test_a_bad_credential(self, bench: Bench) -> None:
        """Who has none is refused each time; that is counted and recorded."""
        vault = bench.front_end()

        for token in ("", "x", "x" * (MAX_TOKEN_BYTES + 1), "x" * 2_000_000):
            with pytest.raises(AuthenticationError):
                await vault.greet(visitor(token), known=Heard())

        assert 4 == bench.failures
        expected = [("", AuthenticationError.code)] * 4
        assert expected == recorded(bench.hsm, "Authenticate")

    async def test_a_greeting_authorises_nothing(self, bench: Bench) -> None:
        """Who was greeted a moment ago is examined all the same when they act."""
        vault, who = bench.front_end(), visitor()
        await vault.greet(who, known=Heard())
        bench.gatekeeper.use(
            TokenTrust.of_secret(b"another secret, 32 bytes or more", TokenRules())
        )

        await vault.greet(who, known=Heard())
        with pytest.raises(AuthenticationError):
            await run(vault, ops.GenerateRandom(length=16), who)
        with pytest.raises(AuthenticationError):
            await vault.greet(who, known=Heard())

        assert [] == recorded(bench.hsm, "GenerateRandom")

    async def test_another_certificate(self, bench: Bench) -> None:
        """A greeting is for token and certificate together."""
        vault, token = bench.front_end(), mint()
        heard = Heard()

        authority = self_signed_root("A CA")
        one, two = (authority.issue(name).der for name in ("one", "two"))
        for certificate in (one, two, one):
            who = Visitor(credential=token, certificate=certificate)
            await vault.greet(who, known=heard)

        assert ["alice", "alice"] == heard


class TestRefuse:
    async def test_it_is_on_record(self, bench: Bench) -> None:
        """A refusal is recorded under the name of whoever asked."""
        vault, heard = bench.front_end(), Heard()

        await vault.refuse(
            visitor(),
            "malformed",
            kind="Sign",
            key_id="\udcff" + "k" * 100,
            known=heard,
        )

        assert ["alice"] == heard
        assert [("alice", "malformed")] == recorded(bench.hsm, "Sign")


class TestConnections:
    async def test_none(self) -> None:
        """Without a connection nothing can be asked."""
        vault = RemoteVault(Heard())

        with pytest.raises(errors.UnavailableError):
            await vault.status()
