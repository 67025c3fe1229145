# SPDX-License-Identifier: MIT
"""One setting for all stores: what it sets, and what it refuses beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

import hsm_core
from hsm_core.errors import ConfigurationError
from hsm_core.secret_input import database_problem, split_password
from hsm_core.settings import ApprovalStoreKind, AuditStoreKind, KeyStoreKind, Settings

DATABASE = "postgresql://ada@db.example/hsm"


def test_three_databases_in_a_folder(tmp_path: Path) -> None:
    """``sqlite:DIR`` opens an embedded HSM, and does so again."""
    folder, root = tmp_path / "hsm", tmp_path / "root.key"
    for is_new in (True, False):
        with hsm_core.open(f"sqlite:{folder}", root=root, create=is_new) as hsm:
            user = hsm.as_user("ada", roles=["operator"])
            if is_new:
                user.create("Ed25519", name="release")
            else:
                user.key("release").sign(b"hello")

    names = {path.name for path in folder.glob("*.sqlite")}
    assert {"keys.sqlite", "audit.sqlite", "approvals.sqlite"} == names


def test_no_hsm_there(tmp_path: Path) -> None:
    """A wrong folder is no new HSM."""
    with pytest.raises(ConfigurationError, match="holds no HSM"):
        hsm_core.open(f"sqlite:{tmp_path}/hsm", root=bytes(32))


def test_a_database_holds_all_stores() -> None:
    """Its address sets the kind of each, and stands in one setting only."""
    found = Settings(store=DATABASE, node_name="a")

    assert KeyStoreKind.POSTGRESQL == found.key_store
    assert AuditStoreKind.POSTGRESQL is found.audit_store
    assert ApprovalStoreKind.POSTGRESQL == found.approval_store
    assert found.audit_log is None
    assert Path("data/a.mark") == found.node_mark
    assert (365, 90) == (found.trail_days, found.approval_days)


@pytest.mark.parametrize("store", [DATABASE, "sqlite:/var/lib/hsm"])
def test_settings_are_handed_on(store: str) -> None:
    """They survive a change of another one, and a message between processes."""
    before = Settings(store=store, node_name="a")
    data = msgspec.msgpack.encode(before, enc_hook=str)
    read = msgspec.msgpack.decode(data, type=Settings, dec_hook=lambda _, x: Path(x))

    assert before == read
    assert store == msgspec.structs.replace(before, pool_threads=2).store


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"store": "mysql://db.example/hsm"}, "store"),
        ({"store": "sqlite:"}, "store"),
        ({"store": DATABASE}, "node_name"),
        ({"store": DATABASE, "node_name": "a/b"}, "node_name"),
        ({"store": DATABASE, "node_name": "a", "audit_sync": "bounded"}, "audit_sync"),
        ({"store": DATABASE, "node_name": "a", "key_store": "memory"}, "key_store"),
        ({"store": "sqlite:/x", "audit_log": Path("/y")}, "audit_log"),
        ({"store": "sqlite:/x", "approval_store": "file"}, "approval_store"),
        ({"key_store": "postgresql"}, "store"),
        ({"key_store": DATABASE}, "store"),
        ({"audit_store": AuditStoreKind.POSTGRESQL}, "store"),
        ({"approval_store": DATABASE}, "store"),
    ],
)
def test_no_second_setting_for_a_store(settings: dict[str, Any], field: str) -> None:
    """Stores lie in one place, and the error names what to change."""
    with pytest.raises(ConfigurationError) as caught:
        Settings(**settings)

    assert field == caught.value.facts["field"]


@pytest.mark.parametrize(
    "store",
    [
        "postgresql://ada:secret-7@db.example/hsm",
        "postgresql://db.example/hsm?user=ada&password=secret-7",
        "postgresql://db.example/hsm?pass%77ord=secret-7",
        "postgresql://ada:1#secret-7@db.example/hsm",
    ],
)
def test_settings_hold_no_password(store: str) -> None:
    """It would stand in every message between processes; no error repeats it."""
    with pytest.raises(ConfigurationError, match="PGPASSWORD") as caught:
        Settings(store=store, node_name="a")
    assert "secret-7" not in str(caught.value)

    with pytest.raises(ConfigurationError, match="PGPASSWORD"):
        hsm_core.open(store, root=bytes(32), node_name="a")


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("postgresql://ada:se%40cret@db/x", ("postgresql://ada@db/x", "se@cret")),
        ("postgresql://a:b:c@db,d:1/x", ("postgresql://a@db,d:1/x", "b:c")),
        ("postgresql:///x?host=/y&password=p", ("postgresql:///x?host=/y", "p")),
        ("postgresql://ada@db/x?password=p&a=b", ("postgresql://ada@db/x?a=b", "p")),
        ("postgresql://db/x?passfile=/y", ("postgresql://db/x?passfile=/y", "")),
        ("postgresql://a:p#b?c@db/x?d=e", ("postgresql://a@db/x?d=e", "p#b?c")),
        ("postgresql://a:p@s@db/x", ("postgresql://a@db/x", "p@s")),
        ("postgresql://db/x?password=p#q&a=b", ("postgresql://db/x?a=b", "p#q")),
        ("postgresql://db/x?password=p&password=q", ("postgresql://db/x", "p")),
        ("postgresql://db/x?pass%77ord=p", ("postgresql://db/x", "p")),
        ("sqlite:/a:b@c/d", ("sqlite:/a:b@c/d", "")),
        ("sqlite:/a?password=p", ("sqlite:/a?password=p", "")),
    ],
)
def test_a_password_is_split_off(url: str, parts: tuple[str, str]) -> None:
    """The rest of the address stays as it was."""
    assert parts == split_password(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:secret/7@db.example/hsm",
        "postgresql://ada:12/secret-7@db.example/hsm",
        "postgresql://ada:a@b/secret-7@db.example/hsm",
        "postgresql://db.example/hsm?sslpassword=secret-7&sslkey=/y",
    ],
)
def test_an_address_whose_password_cannot_be_found(url: str) -> None:
    """It is refused with what to write instead, and not repeated."""
    with pytest.raises(ConfigurationError, match="store must") as caught:
        Settings(store=url, node_name="a")

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://",
        "postgresql:///hsm?host=/run/postgresql",
        "postgresql://ada@[2001:db8::1]:5432,db.example:5433/hsm",
        "postgresql://ada%40x:p@db.example?user=a@b",
    ],
)
def test_an_address_of_libpq(url: str) -> None:
    """Sockets, several hosts and numbers are addresses, too."""
    assert "" == database_problem(url)
