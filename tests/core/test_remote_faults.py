# SPDX-License-Identifier: MIT
"""Keys in object storage, over a real connection that fails in real ways."""

from __future__ import annotations

import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count

import pytest

from hsm_core._internal.stores.remote.records import RemoteKeyStore
from hsm_core._internal.stores.s3 import S3Vault, open_s3
from hsm_core.errors import (
    ConfigurationError,
    HSMError,
    OutcomeUnknownError,
    StorageFullError,
    StoreUnavailableError,
    VaultConflictError,
)
from hsm_core.protocols import ABSENT
from tests.core.key_support import key_id_of
from tests.core.remote_support import change, create, no_pauses, open_remote
from tests.core.s3_server import ObjectStorage, object_storage


@pytest.fixture(scope="module")
def storage() -> Iterator[ObjectStorage]:
    """Give a running server."""
    with object_storage() as running:
        yield running


@pytest.fixture(autouse=True)
def sound(storage: ObjectStorage) -> Iterator[None]:
    """Begin and end without failures, and let tries follow each other at once."""
    storage.fault = lambda method, path: ""
    with no_pauses():
        yield
    storage.fault = lambda method, path: ""


@pytest.fixture
def vault(storage: ObjectStorage) -> S3Vault:
    """Give an empty vault."""
    return storage.new_vault()


@pytest.fixture
def store(vault: S3Vault) -> Iterator[RemoteKeyStore]:
    """Give a store with one key."""
    opened = open_remote(vault)
    create(opened, 1)
    yield opened
    opened.close()


def failing(
    fate: str, method: str, *, of: str = "", nth: int = 1, times: int = 10**6
) -> Callable[[str, str], str]:
    """Return a fault of some requests: from the nth on, so many."""
    numbers = count(1)

    def fault(asked: str, path: str) -> str:
        if (
            asked.startswith(method)
            and of in path
            and nth <= next(numbers) < nth + times
        ):
            return fate
        return ""

    return fault


class TestRequests:
    @pytest.mark.parametrize("fate", ["500", "503", "403", "refuse", "lose", "cut"])
    def test_nothing_is_taken_for_absence(
        self, storage: ObjectStorage, vault: S3Vault, fate: str
    ) -> None:
        """
        Whatever goes wrong with a request, nothing is called absent or empty.
        """
        vault.put("a", b"something")
        calls: dict[str, list[Callable[[], object]]] = {
            "GET": [lambda: vault.get("a"), lambda: vault.list("")],
            "PUT": [lambda: vault.put("a", b"other", expected=ABSENT)],
            "DELETE": [lambda: vault.delete("b")],
        }
        if fate == "cut":
            del calls["PUT"], calls["DELETE"]  # their answers are headers alone
        for method, asked in calls.items():
            for call in asked:
                storage.fault = failing(fate, method)
                with pytest.raises(StoreUnavailableError):
                    call()

        storage.fault = lambda method, path: ""
        found = vault.get("a")
        assert found is not None
        assert b"something" == found.data

    def test_bucket_that_is_not_there(self, storage: ObjectStorage) -> None:
        """
        A bucket that is not there is no empty bucket.
        """
        vault = S3Vault(storage.client, "no-such-bucket", "")

        for call in (
            lambda: vault.get("a"),
            lambda: vault.put("a", b""),
            lambda: vault.put("a", b"", expected='"00"'),
            lambda: vault.list(""),
            lambda: vault.delete("a"),
        ):
            with pytest.raises(StoreUnavailableError, match="no-such-bucket"):
                call()

    @pytest.mark.parametrize("status", ["409", "412"])
    def test_refused_condition(
        self, storage: ObjectStorage, vault: S3Vault, status: str
    ) -> None:
        """
        A put that is refused for its condition, or for another put, is a conflict.
        """
        storage.fault = failing(status, "PUT")

        with pytest.raises(VaultConflictError):
            vault.put("a", b"", expected=ABSENT)

    def test_no_room(self, storage: ObjectStorage, vault: S3Vault) -> None:
        """
        A status that says that there is no room is told as such.
        """
        storage.fault = failing("507", "PUT")

        with pytest.raises(StorageFullError):
            vault.put("a", b"")

    def test_nothing_is_repeated(self, storage: ObjectStorage, vault: S3Vault) -> None:
        """
        A request is sent once; whoever repeats it must look what became of it.
        """
        storage.fault = failing("503", "PUT")
        storage.requests.clear()

        with pytest.raises(StoreUnavailableError):
            vault.put("a", b"")

        assert 1 == len(storage.requests)

    def test_object_of_great_length(
        self, storage: ObjectStorage, vault: S3Vault
    ) -> None:
        """
        Of an object that is longer than any of ours, no more is read than shows it.
        """
        vault.put("a", bytes(24 * 1024 * 1024))

        found = vault.get("a")

        assert found is not None
        assert 16 * 1024 * 1024 < len(found.data) < 17 * 1024 * 1024

    def test_object_of_unknown_length(self) -> None:
        """
        Of an object whose length is not told, no more is read either.
        """
        piece = b"100000\r\n" + bytes(0x100000) + b"\r\n"
        sent = count()

        def answer(connection: socket.socket) -> None:
            connection.sendall(
                b'HTTP/1.1 200 OK\r\nETag: "a"\r\nTransfer-Encoding: chunked\r\n\r\n'
            )
            while next(sent) < 64:
                connection.sendall(piece)
            connection.sendall(b"0\r\n\r\n")

        with answering(answer) as vault:
            found = vault.get("a")

        assert found is not None
        assert 16 * 1024 * 1024 < len(found.data) < 17 * 1024 * 1024

    @pytest.mark.parametrize(
        ("call", "missing"),
        [
            (lambda vault: vault.get("a"), "get without ETag"),
            (lambda vault: vault.put("a", b""), "put without ETag"),
            (lambda vault: vault.list(""), "list without IsTruncated"),
            (lambda vault: vault.delete("a"), "delete with 200"),
        ],
    )
    def test_web_page(self, call: Callable[[S3Vault], object], missing: str) -> None:
        """
        Of a web server in place of object storage, the error says what is wrong.
        """
        page = (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
            b"Content-Length: 13\r\n\r\n<html></html>"
        )

        with (
            answering(lambda connection: connection.sendall(page)) as vault,
            pytest.raises(StoreUnavailableError, match=missing),
        ):
            call(vault)

    def test_strange_error_code(self) -> None:
        """
        A code that is no word of the protocol is not repeated in an error.
        """
        body = b"<Error><Code>\xc2\x9b31m" + b"A" * 1000 + b"</Code></Error>"
        head = b"HTTP/1.1 400 Planned\r\nContent-Length: %d\r\n\r\n" % len(body)

        with (
            answering(lambda connection: connection.sendall(head + body)) as vault,
            pytest.raises(StoreUnavailableError, match=r"answered get with 400\.$"),
        ):
            vault.get("a")

    def test_silence(self, vault: S3Vault) -> None:
        """
        A server that takes connections and says nothing is not waited for without end.
        """
        with socket.create_server(("127.0.0.1", 0)) as listener:
            silent = ObjectStorage(listener.getsockname()[1])
            config = silent.client.meta.config
            assert (2, 5) == (config.connect_timeout, config.read_timeout)
            config.read_timeout = 0.2
            endpoint = silent.client._endpoint  # noqa: SLF001
            endpoint.http_session._timeout._read = 0.2  # noqa: SLF001

            with pytest.raises(StoreUnavailableError):
                S3Vault(silent.client, "bucket", "").get("a")

            silent.client.close()

    def test_nobody_there(self) -> None:
        """
        A refused connection is told at once.
        """
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        nobody = ObjectStorage(port)

        with pytest.raises(StoreUnavailableError):
            S3Vault(nobody.client, "bucket", "").put("a", b"")

        nobody.client.close()


@contextmanager
def answering(answer: Callable[[socket.socket], object]) -> Iterator[S3Vault]:
    """Give a vault on a server that answers one request in its own way."""

    def serve() -> None:
        connection = listener.accept()[0]
        with connection, suppress(OSError):
            connection.recv(65536)
            answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        storage = ObjectStorage(listener.getsockname()[1])
        server = threading.Thread(target=serve)
        server.start()
        yield S3Vault(storage.client, "bucket", "")
        server.join()
        storage.client.close()


class TestStore:
    @pytest.mark.parametrize("fate", ["lose", "refuse"])
    def test_every_request(
        self, storage: ObjectStorage, vault: S3Vault, fate: str
    ) -> None:
        """
        Whichever request of a change is the last that works, it is whole or not there.
        """
        store = open_remote(vault)
        ends: set[type[HSMError] | None] = set()
        for nth in range(1, 9):
            create(store, nth)
            made = change(nth, 100 + nth, removed=(1,))
            end: type[HSMError] | None = None
            storage.fault = failing(fate, "", of="/keys/keys/", nth=nth)
            try:
                store.commit(made)
            except StoreUnavailableError:
                end = StoreUnavailableError
            except OutcomeUnknownError:
                end = OutcomeUnknownError
            storage.fault = lambda method, path: ""
            if not store.available:
                store.reopen()
            is_there = made.document == store.get(key_id_of(nth)).document
            old, new = (store.get_blob(key_id_of(nth), n) for n in (1, 2))
            # A blob whose deletion is refused stays, and the change stands.
            is_whole = new == b"second" and (old is None or fate == "refuse")
            assert is_whole if is_there else old
            assert is_there == (end is None) or end is OutcomeUnknownError
            ends.add(end)

        assert {None, OutcomeUnknownError, StoreUnavailableError} == ends
        store.close()

    def test_slow_server(self, storage: ObjectStorage, store: RemoteKeyStore) -> None:
        """
        A server that takes its time is waited for.
        """
        storage.fault = failing("slow", "PUT", of="/document", times=1)

        store.commit(change(1, 2))

        assert store.available


class TestOpening:
    @pytest.mark.parametrize(
        "location",
        [
            "",
            "bucket",
            "//",
            "//b",
            "//Bucket",
            "//bucket//x",
            "//bucket/a b",
            "//user:secret@bucket/x",
            "//bucket/" + "a" * 513,
            "//bucket/x?y",
        ],
    )
    def test_form(self, location: str) -> None:
        """
        A place of another form is refused, and not repeated in the error.
        """
        with pytest.raises(ConfigurationError, match="s3://BUCKET") as caught:
            open_s3(location)

        assert "key_store" == caught.value.facts["field"]
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize(
        ("location", "name"),
        [
            ("//bucket", "s3://bucket/"),
            ("//my.bucket-2/a/B_c/", "s3://my.bucket-2/a/B_c/"),
        ],
    )
    def test_place(self, storage: ObjectStorage, location: str, name: str) -> None:
        """
        A place is a bucket and a folder in it, or all of it.
        """
        with storage.found():
            vault = open_s3(location)

        assert name in repr(vault)
        assert "test-" not in repr(vault)
        vault.close()

    def test_environment(self, storage: ObjectStorage) -> None:
        """
        Endpoint and credentials come from the environment, as boto3 reads it.
        """
        bucket = storage.new_bucket()
        with storage.found():
            vault = open_s3(f"//{bucket}/a")
        vault.put("b", b"c")
        vault.close()

        assert ("PUT", f"/{bucket}/a/b") in storage.requests

    def test_endpoint_that_is_none(
        self, storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        Settings that boto3 can't use stop the start, and no password is told.
        """
        with storage.found():
            address = "http://user:secret w@ord@no host"
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
            with pytest.raises(ConfigurationError, match="boto3") as caught:
                open_s3("//bucket")

        text = "".join(traceback.format_exception(caught.value))
        assert "no host" in text
        assert "secret" not in text

    def test_without_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        Without boto3 the error names the extra that brings it.
        """
        monkeypatch.setitem(sys.modules, "boto3", None)

        with pytest.raises(ConfigurationError, match=r"needs boto3"):
            open_s3("//bucket")
