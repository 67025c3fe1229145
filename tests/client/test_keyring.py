# SPDX-License-Identifier: MIT
"""`hsm_client.credentials`: secrets of profiles in the system's keyring."""

import sys
from collections.abc import Iterator

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked, PasswordDeleteError

from hsm_client.credentials import StoredSecrets, has_keyring, open_credential_store
from hsm_client.profiles import SecretStore
from hsm_core.errors import ConfigurationError

SECRETS = StoredSecrets(
    token="tok-en", expires_at=7, refresh_token="re-fresh", password="pass"
)


class Keyring(KeyringBackend):
    """A keyring in memory, which the library takes like any other."""

    priority = 1.0

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.entries: dict[tuple[str, str], str] = {}
        self.is_locked = False

    def get_password(self, service: str, username: str) -> str | None:
        """Return an entry."""
        if self.is_locked:
            raise KeyringLocked("tok-en")
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        """Set an entry."""
        if self.is_locked:
            raise KeyringLocked("tok-en")
        self.entries[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        """Delete an entry."""
        if self.entries.pop((service, username), None) is None:
            raise PasswordDeleteError


@pytest.fixture
def ring() -> Iterator[Keyring]:
    """Give a keyring, in place of the user's."""
    before, ring = keyring.get_keyring(), Keyring()
    keyring.set_keyring(ring)
    yield ring
    keyring.set_keyring(before)


def test_life(ring: Keyring) -> None:
    """Secrets are kept under the name of the profile, until they are removed."""
    store = open_credential_store(SecretStore.KEYRING)
    before = store.load("prod")
    store.save("prod", SECRETS)
    found, other = store.load("prod"), store.load("test")
    removed = [store.remove("prod"), store.remove("prod")]

    assert has_keyring()
    assert (None, SECRETS, None) == (before, found, other)
    assert ([True, False], {}) == (removed, ring.entries)


def test_entry(ring: Keyring) -> None:
    """There is one entry for each profile, of one service."""
    open_credential_store(SecretStore.KEYRING).save("prod", SECRETS)

    assert [("ferrohsm", "prod")] == list(ring.entries)


def test_locked(ring: Keyring) -> None:
    """A locked keyring is reported without what its error says."""
    ring.is_locked = True
    store = open_credential_store(SecretStore.KEYRING)
    for attempt in (
        lambda: store.load("prod"),
        lambda: store.save("prod", SECRETS),
        lambda: store.remove("prod"),
    ):
        with pytest.raises(ConfigurationError, match="keyring failed") as caught:
            attempt()

        assert "KeyringLocked" in str(caught.value)
        assert "tok-en" not in str(caught.value)


def test_damaged(ring: Keyring) -> None:
    """A damaged entry is reported without what it holds."""
    ring.entries["ferrohsm", "prod"] = '{"token": "tok-en" x'
    with pytest.raises(ConfigurationError, match="is damaged") as caught:
        open_credential_store(SecretStore.KEYRING).load("prod")

    assert "tok-en" not in str(caught.value)


def test_no_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a keyring, or the package, files are used."""
    assert not has_keyring()
    monkeypatch.setitem(sys.modules, "keyring", None)

    assert not has_keyring()
    with pytest.raises(ConfigurationError, match=r"Install hsm-client\[keyring\]"):
        open_credential_store(SecretStore.KEYRING)
