# SPDX-License-Identifier: MIT
"""People of a directory: added and removed, whenever the process is killed."""

import contextlib
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs12
from hypothesis import given, settings
from hypothesis import strategies as st

from hsm_core.errors import (
    ConfigurationError,
    ConflictError,
    InvalidInputError,
    UnsafeFileModeError,
)
from hsm_core.model import Role
from hsm_core.people import (
    CA_FILE,
    CA_KEY_FILE,
    POLICY_FILE,
    REVOCATION_FILE,
    NoSuchPersonError,
    People,
    policy_text,
)
from hsm_core.policies import load_policy
from hsm_core.private_ca import PrivateCA

RULES = """\
# A comment.
version: 1
extends: default
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Give the directory of an HSM without people."""
    return made(tmp_path)


def made(folder: Path) -> Path:
    """Make the directory of an HSM without people."""
    now = datetime.now(UTC)
    ca = PrivateCA.create("An HSM", now)
    for name in ("people", "secrets"):
        (folder / name).mkdir(mode=0o700, parents=True)
    for name, data in (
        (CA_FILE, ca.certificate_pem()),
        (CA_KEY_FILE, ca.key_pem()),
        (REVOCATION_FILE, ca.revocation_list({}, now)),
        (POLICY_FILE, policy_text(RULES).encode()),
    ):
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o600)
    return folder


def revoked(directory: Path) -> set[int]:
    """Return the serial numbers in the revocation list."""
    crl = x509.load_pem_x509_crl((directory / REVOCATION_FILE).read_bytes())
    return {entry.serial_number for entry in crl}


def serial(directory: Path, name: str) -> int:
    """Return the serial number of a person's certificate."""
    data = (directory / f"people/{name}.pem").read_bytes()
    return x509.load_pem_x509_certificate(data).serial_number


def named(directory: Path) -> dict[str, list[str]]:
    """Return roles by principal, as the server reads them."""
    people = load_policy(directory / POLICY_FILE).people
    return {person.principal: sorted(person.roles) for person in people}


class TestAdding:
    """A person with a credential."""

    def test_the_policy_names_this_certificate(self, directory: Path) -> None:
        """The fingerprint is that of the certificate in the file."""
        found = People(directory).add("ada", [Role.OPERATOR, Role.AUDITOR])

        held = pkcs12.load_pkcs12(
            found.credential.read_bytes(), found.password.encode()
        )
        assert held.cert is not None
        (person,) = People(directory).all()
        assert {"ada": ["Auditor", "Operator"]} == named(directory)
        (known,) = load_policy(directory / POLICY_FILE).people
        assert frozenset({person.certificate_sha256}) == known.certificates
        end = held.cert.certificate.not_valid_after_utc.timestamp()
        assert end == person.expires_at
        assert found.password_file is None
        assert found.password not in repr(found)

    def test_the_rest_of_the_policy_stays(self, directory: Path) -> None:
        """Comments and sections around the lines are kept, byte by byte."""
        path = directory / POLICY_FILE
        path.write_text(f"{path.read_text()}\n# The end.\n")
        before = path.read_text()

        people = People(directory)
        people.add("ada", [Role.OPERATOR])
        people.remove("ada")

        assert before == path.read_text()

    def test_nobody_is_added_twice(self, directory: Path) -> None:
        """Another spelling is the same person; who is there keeps the credential."""
        people = People(directory)
        people.add("ada", [Role.OPERATOR])
        before = serial(directory, "ada")

        with pytest.raises(ConflictError, match="ada already has a credential"):
            people.add("Ada", [Role.ADMINISTRATOR])

        assert {"ada": ["Operator"]} == named(directory)
        assert before == serial(directory, "ada")
        assert set() == revoked(directory)

    def test_a_credential_is_replaced(self, directory: Path) -> None:
        """The former certificate is revoked."""
        people = People(directory)
        people.add("ada", [Role.OPERATOR], keeps_password=True)
        before = serial(directory, "ada")

        found = people.add("ada", [Role.AUDITOR], replaces=True)

        assert {"ada": ["Auditor"]} == named(directory)
        assert {before} == revoked(directory)
        # It would be that of the former credential.
        assert not found.credential.with_suffix(".password").exists()

    @pytest.mark.parametrize(
        "name", ["", "../ada", ".ada", "-x", "a b", "ada\n", 'a"b', "é", "a" * 65]
    )
    def test_names_are_safe_in_files(self, directory: Path, name: str) -> None:
        """A name is a file's name, too."""
        with pytest.raises(InvalidInputError, match="1 to 64 letters"):
            People(directory).add(name, [Role.OPERATOR])

        assert {} == named(directory)

    @pytest.mark.parametrize("name", ["system", "System.x", "unauthenticated"])
    def test_names_of_the_hsm(self, directory: Path, name: str) -> None:
        """They would make the policy invalid, and every later removal in it void."""
        people = People(directory)
        with pytest.raises(InvalidInputError, match="is reserved for the HSM"):
            people.add(name, [Role.OPERATOR])

        assert ["revoked.crl"] == os.listdir(directory / "people")
        assert {} == named(directory)

    def test_a_policy_that_would_not_be_valid(self, directory: Path) -> None:
        """Nobody is added to a policy that a server would not load with them."""
        path = directory / POLICY_FILE
        spare = 256 * 1024 - len(path.read_bytes()) - 50
        path.write_text(f"# {'x' * spare}\n{path.read_text()}")
        before = path.read_text()
        with pytest.raises(InvalidInputError, match="at most 262144 bytes"):
            People(directory).add("ada", [Role.OPERATOR])

        assert before == path.read_text()
        assert ["revoked.crl"] == os.listdir(directory / "people")

    def test_names_that_yaml_takes_for_something_else(self, directory: Path) -> None:
        """They are quoted."""
        people = People(directory)
        for name in ("true", "null", "12", "1e5"):
            people.add(name, [Role.SERVICE])

        assert {"true", "null", "12", "1e5"} == set(named(directory))

    def test_a_key_of_the_ca_that_others_can_read(self, directory: Path) -> None:
        """It is refused, and nobody is added."""
        (directory / CA_KEY_FILE).chmod(0o640)

        with pytest.raises(UnsafeFileModeError, match="0600"):
            People(directory).add("ada", [Role.OPERATOR])

        assert {} == named(directory)


class TestOwnEntries:
    """Entries that the operator adds after the lines of people."""

    def test_they_stay(self, directory: Path) -> None:
        """They are valid with people before them, and without."""
        people = People(directory)
        people.add("ada", [Role.OPERATOR])
        path = directory / POLICY_FILE
        own = (
            "  # A service.\n"
            f'  - {{principal: ci, roles: [Service], certificates: ["{"1a" * 32}"]}}\n'
        )
        path.write_text(path.read_text() + own)

        people.remove("ada")
        assert {"ci": ["Service"]} == named(directory)
        people.add("grace", [Role.AUDITOR])

        assert {"ci": ["Service"], "grace": ["Auditor"]} == named(directory)
        assert path.read_text().endswith(own)
        with pytest.raises(ConflictError, match="Edit the file instead"):
            people.add("ci", [Role.AUDITOR], replaces=True)


class TestRemoving:
    """A person who has access no more."""

    def test_every_trace_of_trust_goes(self, directory: Path) -> None:
        """Policy, revocation list and files."""
        people = People(directory)
        people.add("ada", [Role.OPERATOR], keeps_password=True)
        people.add("grace", [Role.AUDITOR])
        number = serial(directory, "ada")

        people.remove("ADA")

        assert {"grace": ["Auditor"]} == named(directory)
        assert {number} == revoked(directory)
        left = {path.stem for path in (directory / "people").iterdir()}
        assert {"grace", "revoked"} == left

    def test_somebody_unknown(self, directory: Path) -> None:
        """It is said, and the exit code of the command tells."""
        with pytest.raises(NoSuchPersonError, match="No person is named eve"):
            People(directory).remove("eve")

    def test_a_faulty_policy_keeps_nobody(self, directory: Path) -> None:
        """An edit that went wrong does not keep anybody's access."""
        people = People(directory)
        people.add("ada", [Role.OPERATOR])
        number = serial(directory, "ada")
        path = directory / POLICY_FILE
        path.write_text(path.read_text() + "rules: 12\n")

        people.remove("ada")

        assert {number} == revoked(directory)
        assert "ada" not in path.read_text()

    def test_lost_lines_keep_nobody(self, directory: Path) -> None:
        """The certificate is revoked even if the policy can't be edited."""
        people = People(directory)
        people.add("ada", [Role.OPERATOR])
        number = serial(directory, "ada")
        (directory / POLICY_FILE).write_text(RULES)

        with pytest.raises(ConfigurationError, match="lacks the line"):
            people.remove("ada")

        assert {number} == revoked(directory)

    def test_people_of_the_operator_s_own_lines(self, directory: Path) -> None:
        """Lines that somebody else wrote are theirs to change."""
        path = directory / POLICY_FILE
        entry = "{principal: eve, roles: [Auditor], certificates: [%s]}" % ("1a" * 32)
        path.write_text(path.read_text().replace("  []\n", f"  - {entry}\n"))

        with pytest.raises(ConflictError, match="Edit the file instead"):
            People(directory).remove("eve")


def test_four_at_once(directory: Path) -> None:
    """Nobody's change undoes another one's."""
    names = ["ada", "eve", "grace", "mary"]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: People(directory).add(name, [Role.SERVICE]), names))
    assert names == sorted(named(directory))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: People(directory).remove(name), names))
    assert {} == named(directory)
    assert 4 == len(revoked(directory))


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ada", "ADA", "a.b@c", "null"]),
            st.one_of(
                st.none(), st.lists(st.sampled_from(Role), min_size=1, unique=True)
            ),
        ),
        max_size=8,
    )
)
def test_any_order(changes: list[tuple[str, list[Role] | None]]) -> None:
    """The policy lists who was added last and not removed; all others are revoked."""
    with TemporaryDirectory() as folder:
        directory = made(Path(folder))
        people, issued = People(directory), set()
        model: dict[str, list[str]] = {}
        for name, roles in changes:
            if roles is None:
                with contextlib.suppress(NoSuchPersonError):
                    people.remove(name)
            else:
                people.add(name, roles, replaces=True)
                issued.add(serial(directory, name))
            model = {n: r for n, r in model.items() if n.lower() != name.lower()}
            if roles is not None:
                model[name] = sorted(roles)

            assert model == named(directory)
            good = {serial(directory, name) for name in model}
            assert issued - good == revoked(directory)
        assert (directory / POLICY_FILE).read_text().startswith(RULES)


class TestDirectory:
    """Directories that are none, or somebody else's."""

    def test_somebody_else_s(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The server could not read what another user, such as root, has written."""
        mine = os.geteuid()
        monkeypatch.setattr("os.geteuid", lambda: mine + 1)

        with pytest.raises(ConfigurationError, match=f"belongs to user {mine}"):
            People(directory).remove("ada")

    def test_another_folder(self, tmp_path: Path) -> None:
        """The message says which one to pass."""
        with pytest.raises(ConfigurationError, match="not created by hsm-server"):
            People(tmp_path)


def steps_of(folder: Path, act: Callable[[People], object], stop_at: int) -> bool:
    """
    Act in a child process that is killed at a step.

    A step is a new file, a rename or a removal.

    Returns:
        Whether it was killed.
    """
    pid = os.fork()
    if pid == 0:
        seen = 0

        def hook(event: str, args: tuple[object, ...]) -> None:
            nonlocal seen
            if event in {"os.rename", "os.remove", "tempfile.mkstemp"}:
                seen += 1
                if seen == stop_at:
                    os.kill(os.getpid(), 9)

        sys.addaudithook(hook)
        act(People(folder))
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize(
    ("meanwhile", "again"), [("ada", "ada"), ("Ada", "Ada"), ("Ada", "ada")]
)
def test_a_killed_replacement_is_repeated(
    tmp_path: Path, meanwhile: str, again: str
) -> None:
    """The same call, in any spelling, keeps the roles and revokes what was before."""
    step, was_killed = 0, True
    while was_killed:
        step += 1
        folder = made(tmp_path / str(step))
        people = People(folder)
        people.add("ada", [Role.OPERATOR])
        first = serial(folder, "ada")
        was_killed = steps_of(
            folder, lambda people: people.add(meanwhile, [], replaces=True), step
        )

        people.add(again, [], replaces=True)

        assert {again: ["Operator"]} == named(folder)
        assert first in revoked(folder)
        assert serial(folder, again) not in revoked(folder)
        files = {path.name for path in (folder / "people").iterdir()}
        assert {f"{again}.pem", f"{again}.p12", "revoked.crl"} == files
    assert step > 4


def test_kills_at_each_step(tmp_path: Path) -> None:
    """
    Killed anywhere, a person is there or not, and a removed one never is again.

    A repeated call finishes what was begun: no certificate of a person who is not in
    the policy stays good.
    """
    acts: dict[str, Callable[[People], object]] = {
        "add": lambda people: people.add("eve", [Role.SERVICE]),
        "replace": lambda people: people.add("ada", [Role.SERVICE], replaces=True),
        "remove": lambda people: people.remove("ada"),
    }
    for name, act in acts.items():
        step = 1
        while True:
            folder = made(tmp_path / f"{name}-{step}")
            people = People(folder)
            people.add("ada", [Role.OPERATOR])
            first = serial(folder, "ada")
            was_killed = steps_of(folder, act, step)

            found = named(folder)
            known = {person.certificate_sha256 for person in people.all()}
            assert "" not in known
            assert set(found) <= {"ada", "eve"}
            for other in ("ada", "eve"):
                try:
                    people.remove(other)
                except NoSuchPersonError:
                    continue
            assert {} == named(folder)
            if name != "add":
                assert first in revoked(folder)
            assert ["revoked.crl"] == os.listdir(folder / "people")
            assert not list(folder.glob(".*"))
            if not was_killed:
                break
            step += 1
        assert step > 4
