# SPDX-License-Identifier: MIT
"""What certificate files may hold, and clear words about what they may not."""

import os
import struct
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from hsm_core.errors import UnsafeFileModeError
from hsm_server.config.exit_codes import ListenError
from hsm_server.config.tls import ClientSettings, PairFiles, TLSSettings
from hsm_server.tls.certificates import kind_of
from hsm_server.tls.contexts import try_state
from hsm_server.tls.sources import first_state
from hsm_server.tls.state import TLSState
from tests.pki import CLIENT, Issued, Issuer, self_signed_root
from tests.server.pem_files import pem, serve_by, write_pair
from tests.support import open_files, require_program, require_service

DER = serialization.Encoding.DER
DAY = timedelta(days=1)


class Folder:
    """A pair of files and an authority, and what they make together."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.issuer = self_signed_root("An authority")
        self.files = PairFiles(cert=path / "cert.pem", key=path / "key.pem")
        self.put(serve_by(self.issuer))

    def put(self, issued: Issued) -> None:
        """Let the files hold another pair."""
        write_pair(self.files.cert, self.files.key, issued)

    def more(self, issued: Issued) -> PairFiles:
        """Return files that hold one more pair."""
        files = PairFiles(cert=self.path / "cert2.pem", key=self.path / "key2.pem")
        write_pair(files.cert, files.key, issued)
        return files

    def state(self, *more: PairFiles, client: ClientSettings | None = None) -> TLSState:
        """Return what the files stand for."""
        return first_state(TLSSettings(pairs=(self.files, *more), client=client))

    def refusal(self, *more: PairFiles, client: ClientSettings | None = None) -> str:
        """Return why they are refused."""
        with pytest.raises(ListenError) as caught:
            self.state(*more, client=client)
        return str(caught.value)

    def make(self, *kind: str) -> None:
        """Let OpenSSL make a key of a kind, and a certificate of its own for it."""
        openssl, key = require_program("openssl"), str(self.files.key)
        told = ["-subj", "/CN=localhost", "-out", str(self.files.cert)]
        for command in (
            ["genpkey", "-algorithm", *kind, "-out", key],
            ["req", "-x509", "-key", key, *told],
        ):
            subprocess.run([openssl, *command], check=True, capture_output=True)

    def client(self, *lists: bytes) -> ClientSettings:
        """Return rules about clients that lie in files."""
        ca = self.path / "ca.pem"
        ca.write_bytes(pem(self.issuer.certificate))
        paths = [self.path / f"{number}.crl" for number in range(len(lists))]
        for path, data in zip(paths, lists, strict=True):
            path.write_bytes(data)
        return ClientSettings(ca=ca, crls=tuple(paths))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Give a folder with a good pair."""
    return Folder(tmp_path)


def twice_extended(issuer: Issuer) -> Issued:
    """Return a certificate that has one extension twice."""
    one, other = x509.ObjectIdentifier("1.2.3.4.1"), x509.ObjectIdentifier("1.2.3.4.2")
    more = [x509.UnrecognizedExtension(name, b"\5\0") for name in (one, other)]
    issued = serve_by(issuer, more=more)
    der = issued.der.replace(b"\6\4\x2a\3\4\2", b"\6\4\x2a\3\4\1")
    return Issued(x509.load_der_x509_certificate(der), issued.key)


class TestPair:
    """A certificate and its key."""

    def test_a_good_one_is_read(self, folder: Folder) -> None:
        """Its chain is without the root, and a client can connect."""
        issued = serve_by(folder.issuer.authority("Between"))
        folder.put(issued)
        (pair,) = folder.state().pairs
        try_state(folder.state())

        between, root = issued.above
        assert root.subject == root.issuer
        assert (issued.der, between.public_bytes(DER)) == pair.chain
        assert b"" == pair.staple

    def test_a_certificate_of_its_own_is_its_chain(self, folder: Folder) -> None:
        """One that has signed itself is left as it is."""
        own = folder.issuer
        folder.put(Issued(own.certificate, own.key))
        (pair,) = folder.state().pairs

        assert (own.der,) == pair.chain

    @pytest.mark.parametrize("kind", ["ECDSA", "P-384", "RSA", "Ed25519", "ML-DSA-65"])
    def test_every_kind_of_key_serves(self, folder: Folder, kind: str) -> None:
        """Each is known by its name, and a client can connect."""
        issued = serve_by(folder.issuer, kind=kind)
        folder.put(issued)
        try_state(folder.state())

        assert {"P-384": "ECDSA"}.get(kind, kind) == kind_of(issued.certificate)

    def test_kinds_stand_side_by_side(self, folder: Folder) -> None:
        """One of each, but not two of one."""
        both = folder.state(folder.more(serve_by(folder.issuer, kind="ML-DSA-65")))
        try_state(both)
        refusal = folder.refusal(folder.more(serve_by(folder.issuer)))

        assert 2 == len(both.pairs)
        assert "same key type ECDSA" in refusal

    @pytest.mark.parametrize("form", ["seed-priv", "seed-only", "priv-only"])
    def test_a_key_of_openssls_is_read(self, folder: Folder, form: str) -> None:
        """OpenSSL writes what is expanded from the seed of a key of ML-DSA, too."""
        folder.make("ML-DSA-65", "-provparam", f"ml-dsa.output_formats={form}")
        state = folder.state()
        try_state(state)

        assert 1 == len(state.pairs)

    def test_a_key_of_openssls_for_another_certificate_is_told(
        self, folder: Folder
    ) -> None:
        """Nobody serves with it."""
        folder.make("ML-DSA-65")
        folder.put(serve_by(folder.issuer, kind="ML-DSA-65"))
        (folder.path / "own.pem").write_bytes(folder.files.cert.read_bytes())
        folder.make("ML-DSA-65")
        folder.files.cert.write_bytes((folder.path / "own.pem").read_bytes())

        with pytest.raises(ListenError, match="does not match its certificate"):
            try_state(folder.state())

    @pytest.mark.parametrize(
        ("curve", "words"),
        [
            ("SM2", "has an unsupported key type"),
            ("sect283k1", "has an unsupported key type"),
            ("P-192", r"\(ee key too small\)"),
            ("secp256k1", r"connection with the new certificate failed \("),
        ],
    )
    def test_a_key_that_nobody_could_use_is_told(
        self, folder: Folder, curve: str, words: str
    ) -> None:
        """The message says why."""
        folder.make("EC", "-pkeyopt", f"ec_paramgen_curve:{curve}")

        with pytest.raises(ListenError, match=words):
            try_state(folder.state())

    def test_extensions_that_contradict_each_other_are_told(
        self, folder: Folder
    ) -> None:
        """A certificate has none of them twice."""
        folder.put(twice_extended(folder.issuer))

        assert "The extensions of a certificate in" in folder.refusal()

    def test_an_encrypted_key_is_told(self, folder: Folder) -> None:
        """Nobody is asked for a passphrase on a terminal."""
        form = serialization.PrivateFormat.PKCS8
        lock = serialization.BestAvailableEncryption(b"passphrase")
        key = serve_by(folder.issuer).key
        folder.files.key.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, form, lock)
        )

        assert "is encrypted" in folder.refusal()

    def test_a_chain_in_disorder_is_refused(self, folder: Folder) -> None:
        """Each is to be followed by who has signed it."""
        issued = serve_by(folder.issuer.authority("Between"))
        own, (between, root) = issued.certificate, issued.above
        folder.files.key.write_bytes(issued.key_pem)
        folder.files.cert.write_bytes(pem(own, root, between))

        assert "is not a chain: CN=server is not signed by" in folder.refusal()

    def test_one_for_clients_is_refused(self, folder: Folder) -> None:
        """Every client would refuse it."""
        folder.put(serve_by(folder.issuer, use=CLIENT))

        assert "is not a server certificate" in folder.refusal()

    @pytest.mark.parametrize(
        "use",
        [None, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE],
        ids=["none", "any"],
    )
    def test_one_for_everything_is_not(
        self, folder: Folder, use: x509.ObjectIdentifier | None
    ) -> None:
        """What does not say for whom it is, is for servers too."""
        folder.put(serve_by(folder.issuer, use=use))

        assert 1 == len(folder.state().pairs)

    def test_a_chain_without_end_is_refused(self, folder: Folder) -> None:
        """Nobody sends so many certificates."""
        folder.files.cert.write_bytes(folder.files.cert.read_bytes() * 11)

        assert "holds 22 certificates, but at most 10" in folder.refusal()


class TestFiles:
    """What lies there, whatever it is."""

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
    def test_a_key_that_others_may_read_is_refused(
        self, folder: Folder, mode: int
    ) -> None:
        """A private key is its owner's alone."""
        folder.files.key.chmod(mode)

        with pytest.raises(UnsafeFileModeError, match=f"{mode:04o}"):
            folder.state()

    def test_a_key_of_somebody_else_is_refused(
        self, folder: Folder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who owns it could put another one there, and knows it."""
        us = folder.files.key.stat().st_uid
        monkeypatch.setattr("os.geteuid", lambda: us + 1)
        if us == 0:
            os.chown(folder.files.key, 2, -1)
        with pytest.raises(UnsafeFileModeError, match="belongs to user"):
            folder.state()

    def test_a_key_that_one_user_more_may_read_is_ours(self, folder: Folder) -> None:
        """A key may be root's and readable by us, as systemd's credentials are."""
        entries = [(0x01, 4, -1), (0x02, 4, os.geteuid()), (0x04, 0, -1)]
        entries += [(0x10, 4, -1), (0x20, 0, -1)]
        data = struct.pack("<I", 2)
        data += b"".join(struct.pack("<HHi", *entry) for entry in entries)
        key = folder.files.key
        try:
            os.setxattr(key, "system.posix_acl_access", data)
        except OSError:
            require_service("A temporary folder with access lists", None)

        assert 0o440 == key.stat().st_mode & 0o777
        assert 1 == len(folder.state().pairs)

    @pytest.mark.parametrize("which", ["cert", "key"])
    def test_a_file_that_is_not_pem_is_told(self, folder: Folder, which: str) -> None:
        """Garbage is no certificate."""
        getattr(folder.files, which).write_text("garbage")

        assert "PEM" in folder.refusal()

    def test_a_pipe_is_not_waited_for(self, folder: Folder) -> None:
        """Nobody may ever write into it."""
        folder.files.cert.unlink()
        os.mkfifo(folder.files.cert)

        assert "is not a regular file" in folder.refusal()

    @pytest.mark.parametrize("which", ["cert", "key"])
    def test_a_folder_is_not_kept_open(self, folder: Folder, which: str) -> None:
        """It is looked at every 5 seconds, for as long as it is there."""
        path = getattr(folder.files, which)
        path.unlink()
        path.mkdir()

        assert "is not a regular file" in folder.refusal()
        assert [] == open_files(path)

    def test_an_endless_file_is_not_read_to_its_end(self, folder: Folder) -> None:
        """There is a limit, and the message says it."""
        with folder.files.cert.open("ab") as file:
            file.truncate(2**30)

        assert "must be at most 1048576 bytes" in folder.refusal()


class TestClients:
    """Who may have signed certificates of clients, and what was revoked."""

    def test_rules_are_read(self, folder: Folder) -> None:
        """Authorities and lists, PEM or DER, several in a file."""
        crl = folder.issuer.revocation_list()
        text = x509.load_der_x509_crl(crl).public_bytes(serialization.Encoding.PEM)
        client = folder.client(text + text, crl)
        rules = folder.state(client=client).client
        try_state(folder.state(client=client))

        assert rules is not None
        assert rules.is_required
        assert (folder.issuer.der,) == rules.authorities
        assert 3 * (crl,) == rules.revocation_lists

    def test_a_ca_that_openssl_would_not_take_is_none(self, folder: Folder) -> None:
        """One without key usage lets nobody in; that is told at once."""
        client = folder.client()
        folder.make("ED25519")
        client.ca.write_bytes(folder.files.cert.read_bytes())

        assert "keyUsage keyCertSign" in folder.refusal(client=client)

    def test_a_ca_that_can_not_be_read_is_none(self, folder: Folder) -> None:
        """Its extensions contradict each other."""
        client = folder.client()
        client.ca.write_bytes(pem(twice_extended(folder.issuer).certificate))

        assert "contains no CA certificate" in folder.refusal(client=client)

    def test_a_ca_file_needs_a_ca(self, folder: Folder) -> None:
        """A server's own certificate signs nobody."""
        client = folder.client()
        client.ca.write_bytes(pem(serve_by(folder.issuer).certificate))

        assert "contains no CA certificate" in folder.refusal(client=client)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"begin": -2 * DAY, "end": -DAY}, "expired at"),
            ({"begin": DAY, "end": 2 * DAY}, "is not valid before"),
        ],
        ids=["old", "future"],
    )
    def test_a_list_of_another_time_is_refused(
        self, folder: Folder, changes: dict[str, Any], words: str
    ) -> None:
        """With it nobody would be let in; better to know that at once."""
        crl = folder.issuer.revocation_list(**changes)

        assert words in folder.refusal(client=folder.client(crl))

    @pytest.mark.parametrize("write", [str, str.upper])
    def test_a_forged_list_is_refused(
        self, folder: Folder, write: Callable[[str], str]
    ) -> None:
        """Another key has signed it, in whichever case it names its issuer."""
        [name] = folder.issuer.certificate.subject
        forged = folder.issuer.revocation_list(
            signer=self_signed_root("A stranger"),
            issuer=x509.Name([x509.NameAttribute(name.oid, write(str(name.value)))]),
        )

        assert "signature of the revocation list" in folder.refusal(
            client=folder.client(forged)
        )
