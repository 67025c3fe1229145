# SPDX-License-Identifier: MIT
"""Handshakes of OpenSSL's and curl's clients with the listener, on both loops."""

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import mldsa

from hsm_server.tls.adapter import AdapterContext
from hsm_server.tls.contexts import TLSStateError, try_state
from hsm_server.tls.state import ClientRules, ServerPair
from tests.pki import SERVER, Issued, Issuer, self_signed_root
from tests.server.ocsp_support import CA
from tests.server.tls_support import REQUEST, Server, curl, s_client, serving, state_of
from tests.support import require_program

GROUPS = {
    "X25519MLKEM768": "X25519MLKEM768",
    "SecP256r1MLKEM768": "SecP256r1MLKEM768",
    "SecP384r1MLKEM1024": "SecP384r1MLKEM1024",
    "X25519": "x25519",
    "P-256": "secp256r1",
    "P-384": "secp384r1",
}


@pytest.fixture(scope="module")
def root() -> Issuer:
    """Give a certificate authority."""
    return self_signed_root("Root")


@pytest.fixture(scope="module")
def bundle(root: Issuer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give the path of its certificate."""
    return str(root.write(tmp_path_factory.mktemp("ca"), "root")[0])


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def server(root: Issuer, request: pytest.FixtureRequest) -> Iterator[Server]:
    """Give a server with one certificate."""
    state = state_of(root.issue("server", use=SERVER).pair)
    with serving(state, request.param) as running:
        yield running


def stapled(subject: Issued, issuer: Issuer) -> ServerPair:
    """Return a pair with a good OCSP response."""
    staple = CA(issuer=issuer).answer(subject)
    return msgspec.structs.replace(subject.pair, staple=staple)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def two(root: Issuer, request: pytest.FixtureRequest) -> Iterator[Server]:
    """Give a server with a certificate of ECDSA and one of ML-DSA, each with chain."""
    classical, post_quantum = root.authority("Sub EC"), root.authority("Sub PQ")
    key = mldsa.MLDSA65PrivateKey.generate()
    state = state_of(
        stapled(classical.issue("ec", use=SERVER), classical),
        stapled(post_quantum.issue("pq", use=SERVER, key=key), post_quantum),
    )
    with serving(state, request.param) as running:
        yield running


def test_a_client_gets_tls_1_3_with_ml_kem(server: Server, bundle: str) -> None:
    """An ordinary client ends there by itself; nothing is kept for a later session."""
    before = server.handshakes("ok", "X25519MLKEM768")
    sent = s_client(server, "-CAfile", bundle, "-verify_return_error")

    assert "HTTP/1.1 200" in sent.output, sent.text
    assert "New, TLSv1.3, Cipher is TLS_" in sent.output
    assert "Negotiated TLS1.3 group: X25519MLKEM768" in sent.output
    assert "Compression: NONE" in sent.output
    assert "Verification: OK" in sent.output
    assert "Early data was not sent" in sent.output
    assert server.has_counted(before + 1, "ok", "X25519MLKEM768")


def test_no_tickets_are_given_out(server: Server, bundle: str, tmp_path: Path) -> None:
    """So that neither sessions are resumed, nor is there early data."""
    kept = tmp_path / "session.pem"
    sent = s_client(server, "-CAfile", bundle, "-sess_out", str(kept))

    assert "HTTP/1.1 200" in sent.output
    assert "New Session Ticket" not in sent.output
    assert not kept.exists() or not kept.read_bytes()


def session_with_early_data(root: Issuer, folder: Path) -> Path:
    """Let another server give out a ticket by which a client may send early."""
    chain, key = root.issue("server", use=SERVER).write(folder, "other")
    kept = folder / "session.pem"
    program = require_program("openssl")
    command = [program, "s_server", "-accept", "127.0.0.1:0", "-www", "-naccept", "1"]
    command += ["-cert", str(chain), "-key", str(key), "-max_early_data", "16384"]
    keeping = ("-sess_out", str(kept))
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as other:
        assert other.stdout is not None
        try:
            told = next(line for line in other.stdout if line.startswith("ACCEPT "))
            address = told.split()[1]
            subprocess.run(
                [*(program, "s_client", "-ign_eof", "-connect", address), *keeping],
                input=REQUEST,
                capture_output=True,
                timeout=60,
                check=False,
            )
        finally:
            other.kill()
    assert kept.read_bytes()
    return kept


def test_what_is_sent_early_is_not_served(
    server: Server, root: Issuer, bundle: str, tmp_path: Path
) -> None:
    """A client that tries is told so, gets no ticket, and is served what it repeats."""
    kept, early = session_with_early_data(root, tmp_path), tmp_path / "early"
    early.write_bytes(b"GET /hold HTTP/1.1\r\nHost: localhost\r\n\r\n")
    new = tmp_path / "new.pem"
    options = ("-sess_in", str(kept), "-early_data", str(early), "-sess_out", str(new))
    sent = s_client(server, "-CAfile", bundle, *options)

    assert "Early data was rejected" in sent.output, sent.text
    assert 1 == sent.output.count("HTTP/1.1 ")
    assert "HTTP/1.1 200" in sent.output
    assert "New, TLSv1.3" in sent.output
    assert "New Session Ticket" not in sent.output
    assert not new.exists() or not new.read_bytes()
    assert not server.held.is_set()


@pytest.mark.parametrize("name", GROUPS)
def test_a_group_is_served(server: Server, bundle: str, name: str) -> None:
    """Each that was asked for is, and is counted by its name."""
    before = server.handshakes("ok", GROUPS[name])
    sent = s_client(server, "-CAfile", bundle, "-groups", name)

    assert "HTTP/1.1 200" in sent.output, sent.text
    assert server.has_counted(before + 1, "ok", GROUPS[name])


@pytest.mark.parametrize(
    ("offered", "taken"),
    [
        ("X25519:X25519MLKEM768", "X25519MLKEM768"),
        ("P-256:X25519:SecP256r1MLKEM768", "SecP256r1MLKEM768"),
        ("P-384:SecP384r1MLKEM1024", "SecP384r1MLKEM1024"),
        ("SecP384r1MLKEM1024:X25519MLKEM768", "SecP384r1MLKEM1024"),
    ],
)
def test_ml_kem_is_taken_wherever_it_is_known(
    server: Server, bundle: str, offered: str, taken: str
) -> None:
    """
    Whatever of others the client guesses first, at the price of another round trip.

    A first guess that has ML-KEM in it is kept.
    """
    sent = s_client(server, "-CAfile", bundle, "-groups", offered)

    assert "HTTP/1.1 200" in sent.output, sent.text
    assert f"Negotiated TLS1.3 group: {taken}" in sent.output


@pytest.mark.parametrize(
    ("options", "alert", "outcome"),
    [
        (("-groups", "P-521"), 40, "refused_handshake_failure"),
        (("-tls1_2",), 70, "refused_protocol_version"),
        (("-alpn", "h2"), 120, "refused_no_application_protocol"),
        (("-alpn", "acme-tls/1"), 120, "refused_no_application_protocol"),
        (("-sigalgs", "rsa_pss_rsae_sha256"), 40, "refused_handshake_failure"),
    ],
    ids=["group", "version", "protocol", "no-challenge", "signature"],
)
def test_what_is_not_spoken_is_refused_by_an_alert(
    server: Server, bundle: str, options: tuple[str, ...], alert: int, outcome: str
) -> None:
    """The client learns why; the next one is served as if nothing had been."""
    before = server.handshakes(outcome)
    sent = s_client(server, "-CAfile", bundle, *options)

    assert f"SSL alert number {alert}" in sent.errors, sent.text
    assert server.has_counted(before + 1, outcome)
    assert "HTTP/1.1 200" in s_client(server, "-alpn", "http/1.1").output


def test_a_client_that_does_not_trust_us_is_counted(server: Server) -> None:
    """Its alert tells why it went."""
    before = server.handshakes("rejected_unknown_ca")
    sent = curl(server)

    assert 60 == sent.status
    assert server.has_counted(before + 1, "rejected_unknown_ca")


def test_what_is_no_tls_is_counted(server: Server) -> None:
    """Plain HTTP gets no answer, and harms nobody."""
    before = server.handshakes("refused_other")
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        plain.settimeout(60)
        try:
            assert not plain.recv(100).startswith(b"HTTP")
        except ConnectionResetError:
            pass

    assert server.has_counted(before + 1, "refused_other")


def test_an_older_version_is_a_choice(root: Issuer, bundle: str) -> None:
    """TLS 1.2 is spoken if that is asked for, with modern suites, never anew."""
    state = state_of(root.issue("server", use=SERVER).pair)
    with serving(state, "asyncio", allow_tls_1_2=True) as server:
        sent = s_client(server, "-CAfile", bundle, "-tls1_2")
        again = s_client(server, "-tls1_2", "-no_ign_eof", request=b"R\n")
        weak = s_client(server, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256")

        assert "HTTP/1.1 200" in sent.output
        assert "New, TLSv1.2, Cipher is ECDHE-ECDSA-" in sent.output
        assert "TLS session ticket" not in sent.output
        assert "no renegotiation" in again.errors
        assert "alert number 40" in weak.errors
        assert "TLSv1.3" in s_client(server, "-CAfile", bundle).output


@pytest.mark.parametrize(
    ("signatures", "subject", "intermediate"),
    [
        ("ecdsa_secp256r1_sha256", "ec", "Sub EC"),
        ("mldsa65:ecdsa_secp256r1_sha256", "pq", "Sub PQ"),
    ],
    ids=["ecdsa", "ml-dsa"],
)
def test_certificates_stand_side_by_side(
    two: Server, bundle: str, signatures: str, subject: str, intermediate: str
) -> None:
    """Each client gets one that it can verify, with its own chain and staple."""
    sent = s_client(two, "-CAfile", bundle, "-status", "-sigalgs", signatures)

    assert "HTTP/1.1 200" in sent.output, sent.text
    assert "Verification: OK" in sent.output
    assert f"subject=CN={subject}" in sent.output
    assert f" 1 s:CN={intermediate}" in sent.output
    assert " 2 s:" not in sent.output
    assert "Cert Status: good" in sent.output


def test_more_cas_than_can_be_named_let_clients_in(
    root: Issuer, bundle: str, tmp_path: Path
) -> None:
    """Their names don't fit into a handshake, and nobody needs them."""
    cas = [self_signed_root(f"Root {n:050}", key=root.key).der for n in range(1000)]
    rules = ClientRules(authorities=(*cas, root.der))
    state = state_of(root.issue("server", use=SERVER).pair, client=rules)
    certificate, key = root.issue("ada").write(tmp_path, "ada")
    try_state(state)
    with serving(state, "asyncio") as server:
        done = curl(
            server, "--cacert", bundle, "--cert", str(certificate), "--key", str(key)
        )

    assert 0 == done.status, done.text


def test_another_state_is_used_from_the_next_connection_on(
    server: Server, root: Issuer, bundle: str
) -> None:
    """And one that can't be used changes nothing."""
    before = server.context.state
    other = root.issue("other", use=SERVER)
    try:
        server.use(state_of(other.pair))
        assert "subject=CN=other" in s_client(server, "-CAfile", bundle).output

        broken = ServerPair(chain=other.pair.chain, key=before.pairs[0].key)
        with pytest.raises(TLSStateError, match="does not match its certificate"):
            server.use(state_of(broken))
        assert "subject=CN=other" in s_client(server, "-CAfile", bundle).output
    finally:
        server.use(before)


@pytest.mark.parametrize("which", ["chain", "key", "garbage"])
def test_a_state_that_can_not_be_used_is_told(root: Issuer, which: str) -> None:
    """In a sentence without anything of the key in it."""
    good, other = (root.issue(name, use=SERVER).pair for name in ("good", "other"))
    pair = {
        "chain": ServerPair(chain=(b"\x30\x00",), key=good.key),
        "key": ServerPair(chain=good.chain, key=other.key),
        "garbage": ServerPair(chain=good.chain, key=b"garbage"),
    }[which]

    with pytest.raises(TLSStateError) as caught:
        AdapterContext(state_of(pair))
    assert caught.value.__cause__ is None
