# SPDX-License-Identifier: MIT
"""
A ciphertext that ML-KEM rejects gets an answer like that of a good one.

FIPS 203 rejects implicitly: what comes out is another secret, and nothing says so. Nor
may anything round it, be it a status, a length, a header or a record.
"""

import base64

import pytest

from hsm_core import operations as ops
from hsm_core.algorithms import Algorithm
from hsm_server.ipc.frames import packed
from tests.server.ipc_support import asks, open_bench, result
from tests.server.support import API, b64

KEMS = [
    Algorithm.ML_KEM_768,
    Algorithm.MLKEM768_ECDH_P256_SHA3_256,
    Algorithm.MLKEM768_X25519_SHA3_256,
]
IN_ML_KEM = 7
"""A byte of the part of ML-KEM, which is the first of the hybrids too."""

OF_ONE_REQUEST = {"seq", "time", "prev", "digest", "request_id", "caller", "facts"}
"""
What is another in each record. The digest is that of what was asked for; the hash of
the facts has a random salt, one for the first use and one for those of its plan.
"""


def rejected(ciphertext: bytes) -> bytes:
    """Return a ciphertext with one bit of its ML-KEM part changed."""
    changed = bytearray(ciphertext)
    changed[IN_ML_KEM] ^= 1
    return bytes(changed)


async def made_and_sent(api: API, algorithm: Algorithm) -> tuple[bytes, bytes]:
    """Make a key, and return a ciphertext for it, and one that it rejects."""
    await api.create(algorithm.value, name="mailbox")
    sent = await api.send("POST", "/keys/mailbox/encapsulate", body={})
    good = base64.b64decode(sent.json["ciphertext"])
    return good, rejected(good)


@pytest.mark.parametrize("accept", ["application/json", "application/octet-stream"])
@pytest.mark.parametrize("algorithm", KEMS)
async def test_over_rest_both_answers_look_the_same(
    api: API, algorithm: Algorithm, accept: str
) -> None:
    """Status, names and lengths of all headers, and length of the body are equal."""
    answers = []
    for ciphertext in await made_and_sent(api, algorithm):
        answers.append(
            await api.send(
                "POST",
                "/keys/mailbox/decapsulate",
                body={"ciphertext": b64(ciphertext)},
                headers={"Accept": accept},
            )
        )
    shapes = [
        (
            answer.status,
            [(name, len(value)) for name, value in answer.headers.items()],
            len(answer.body),
        )
        for answer in answers
    ]

    assert 200 == answers[0].status
    assert shapes[0] == shapes[1]
    assert answers[0].body != answers[1].body


@pytest.mark.parametrize("algorithm", KEMS)
async def test_the_trail_records_both_alike(api: API, algorithm: Algorithm) -> None:
    """Nobody who reads the trail can tell which one was rejected."""
    for ciphertext in await made_and_sent(api, algorithm):
        body = {"ciphertext": b64(ciphertext)}
        await api.send("POST", "/keys/mailbox/decapsulate", body=body)
    first, second = (
        {k: "" if k in OF_ONE_REQUEST else v for k, v in event.items()}
        for event in await api.events()
        if event["kind"] == "Decapsulate"
    )

    assert "ok" == first["code"]
    assert first == second


@pytest.mark.parametrize("algorithm", KEMS)
async def test_over_the_vaults_connection_both_answers_are_equally_long(
    algorithm: Algorithm,
) -> None:
    """Whoever sees frames of the vault go by learns nothing from their length."""
    async with open_bench() as bench:
        raw = await bench.raw()
        made = ops.CreateKey(algorithm=algorithm, name="mailbox")
        await raw.send(asks(1, made))
        await raw.answer()
        await raw.send(asks(2, ops.Encapsulate(key_id="mailbox")))
        sent = result(await raw.answer(), ops.Encapsulation)
        answers = []
        for number, given in enumerate((sent.ciphertext, rejected(sent.ciphertext)), 3):
            asked = ops.Decapsulate(key_id="mailbox", ciphertext=given)
            await raw.send(asks(number, asked))
            answers.append(await raw.answer())
        secrets = [result(answer, ops.SharedSecret) for answer in answers]

    assert len(packed(answers[0])) == len(packed(answers[1]))
    assert sent.shared_secret == secrets[0].shared_secret
    assert secrets[0].shared_secret != secrets[1].shared_secret
