# SPDX-License-Identifier: MIT
"""The files for systemd and containers fit each other, the server, and the guides."""

from __future__ import annotations

import json
import os
import pwd
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hsm_server.commands.serve import serve
from hsm_server.config.exit_codes import ExitCode
from tests.support import REPOSITORY, require_program

DEPLOY = REPOSITORY / "examples" / "deploy"
GUIDES = REPOSITORY / "docs" / "how-to"
PROGRAM = "/usr/local/lib/ferrohsm/bin/hsm-server"
DROP_INS = ("separate-users.conf", "socket-only.conf")

EXPOSURE = {"": 1.3, "separate-users.conf": 2.4, "socket-only.conf": 0.6}
"""What systemd-analyze says at most, of 10, by drop-in; the guides tell it too."""

Assignments = list[tuple[str, str]]


def unit(name: str) -> Assignments:
    """Return the assignments of a unit or drop-in, in order."""
    lines = (DEPLOY / name).read_text().splitlines()
    found = (line.partition("=") for line in lines if re.match(r"[A-Z]\w*=", line))
    return [(key, value) for key, _, value in found]


def values(name: str, key: str) -> list[str]:
    """Return what a unit says under one key."""
    return [value for found, value in unit(name) if found == key]


def options() -> dict[str, str]:
    """Return the flag of each variable of the server."""
    return {
        str(parameter.envvar): parameter.opts[0]
        for parameter in serve.params
        if parameter.envvar
    }


def container() -> Iterator[tuple[str, str]]:
    """Give the instructions of the Containerfile, with their lines joined."""
    text = (DEPLOY / "Containerfile").read_text()
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, text.splitlines()):
        word, _, rest = line.partition(" ")
        yield word, " ".join(rest.split())


def instructions(word: str) -> list[str]:
    """Return what the instructions of one kind say."""
    return [rest for found, rest in container() if found == word]


def environment_of_container() -> dict[str, str]:
    """Return the variables that the image sets."""
    (text,) = instructions("ENV")
    return dict(word.split("=", 1) for word in text.split())


def environment_of_unit(*names: str) -> dict[str, str]:
    """Return the variables that a unit and its drop-ins set."""
    return dict(
        value.split("=", 1) for name in names for value in values(name, "Environment")
    )


@pytest.fixture(params=["", *DROP_INS])
def installed(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """Give a folder with the units, a drop-in, and a program to be started."""
    program = tmp_path / "hsm-server"
    program.touch(mode=0o755)
    names = ["hsm-server.service", "hsm-server.socket"]
    extra = tmp_path / "hsm-server.service.d"
    extra.mkdir()
    for name in [*names, *filter(None, [request.param])]:
        text = (DEPLOY / name).read_text()
        folder = tmp_path if name in names else extra
        (folder / name).write_text(text.replace(PROGRAM, str(program)))
    return tmp_path / "hsm-server.service", request.param


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze, which needs no running systemd for this."""
    return subprocess.run(
        [require_program("systemd-analyze"), "--no-pager", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_systemd_takes_the_units(installed: tuple[Path, str]) -> None:
    """No unit has a key or value that systemd doesn't know."""
    service, _ = installed
    socket = service.with_name("hsm-server.socket")

    done = analyze("verify", str(service), str(socket))

    assert (0, "") == (done.returncode, done.stderr)


def test_little_is_exposed(installed: tuple[Path, str]) -> None:
    """The score of systemd-analyze is no worse than what the guides say."""
    service, drop_in = installed

    done = analyze("security", "--offline=true", str(service))

    found = re.search(r"exposure level for hsm-server.service: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert EXPOSURE[drop_in] >= float(found[1])


@pytest.mark.parametrize("drop_in", EXPOSURE)
def test_the_guides_tell_the_score(drop_in: str) -> None:
    """What is promised to readers is what is tested."""
    name = "separate-users" if drop_in.startswith("separate") else "run-under-systemd"

    assert f"{EXPOSURE[drop_in]} of 10" in (GUIDES / f"{name}.md").read_text()


@pytest.mark.parametrize("drop_in", ["", *DROP_INS])
def test_the_server_takes_what_the_unit_says(
    monkeypatch: pytest.MonkeyPatch, drop_in: str
) -> None:
    """Every variable is an option, and all that is set can be parsed."""
    names = ["hsm-server.service", *filter(None, [drop_in])]
    variables = environment_of_unit(*names)
    (command,) = [w for w in values(names[-1], "ExecStart") if w] or [PROGRAM]
    me = pwd.getpwuid(os.geteuid()).pw_name
    words = re.sub(r"ferrohsm-\w+", me, command)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with serve.make_context("serve", shlex.split(words)[1:]) as context:
        parsed = context.params

    assert set() == set(variables) - set(options())
    assert PROGRAM == shlex.split(command)[0]
    assert variables["FERROHSM_MASTER_KEY"] == parsed["master_key"]


def test_secrets_come_from_credentials() -> None:
    """Each secret that systemd hands over is one that the server is told of."""
    given = {
        value.partition(":")[0]
        for value in values("hsm-server.service", "LoadCredential")
    }
    variables = environment_of_unit("hsm-server.service").values()
    asked = {v.removeprefix("@%d/") for v in variables if v.startswith("@%d/")}

    assert {"master-key", "hmac-key", "jwt-secret"} == given == asked


def test_no_secret_is_in_the_files() -> None:
    """A secret is named, in every one of them, by the file that it lies in."""
    secrets = ("FERROHSM_MASTER_KEY", "FERROHSM_HMAC_KEY", "FERROHSM_JWT_SECRET")
    for variables in (
        environment_of_unit("hsm-server.service"),
        environment_of_unit("separate-users.conf"),
        environment_of_container(),
    ):
        assert {True} == {variables[name].startswith("@") for name in secrets}


def test_the_unit_leaves_the_server_its_time() -> None:
    """The unit waits longer than the server drains, and than it brings a vault back."""
    options_of = {parameter.name: parameter for parameter in serve.params}
    drain = options_of["drain_timeout_secs"].default
    (stop,) = values("hsm-server.service", "TimeoutStopSec")
    (watchdog,) = values("hsm-server.service", "WatchdogSec")

    assert isinstance(drain, int)
    assert float(stop) > drain + 3
    assert float(watchdog) > 60


def test_no_restart_where_it_would_change_nothing() -> None:
    """What can go away by itself is tried again: an address or a store in use."""
    (text,) = values("hsm-server.service", "RestartPreventExitStatus")

    kept = {ExitCode(int(word)) for word in text.split()}

    again = {ExitCode.OK, ExitCode.FAILED, ExitCode.LOCKED, ExitCode.LISTEN}
    assert set(ExitCode) - again == kept


def test_users_of_the_unit_are_made() -> None:
    """Every user that a unit names stands in the file for systemd-sysusers."""
    made = set(re.findall(r"^u (\S+)", (DEPLOY / "sysusers.conf").read_text(), re.M))
    named = {*values("hsm-server.service", "User")}
    for name in ("separate-users.conf", "tmpfiles.conf"):
        named |= set(
            re.findall(r"ferrohsm-(?:vault|front)\b", (DEPLOY / name).read_text())
        )

    assert made == named


def test_the_image_is_not_run_by_root() -> None:
    """The user is a number other than 0, and owns the place of the keys."""
    (user,) = instructions("USER")
    (volume,) = map(json.loads, instructions("VOLUME"))
    owned = [c for c in instructions("COPY") if f"--chown={user}" in c]

    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", user)
    assert volume == [owned[0].split()[-1]]


def test_the_image_needs_no_shell() -> None:
    """Whatever is executed, it is a list of words; the server is the first process."""
    assert ["hsm-server"] == json.loads(instructions("ENTRYPOINT")[0])
    assert ["SIGTERM"] == instructions("STOPSIGNAL")
    for words in instructions("RUN"):
        assert all(isinstance(word, str) for word in json.loads(words))
    (check,) = instructions("HEALTHCHECK")
    program, *_, script = json.loads(check.partition("CMD ")[2])
    assert "python" == program
    assert script in {words.split()[-1] for words in instructions("COPY")}


def test_the_image_is_made_of_what_is_there() -> None:
    """What is copied lies in the repository, or was made by the stage before."""
    made = " ".join(instructions("RUN"))
    for words in instructions("COPY"):
        *flags, source, _ = words.split()
        if any(flag.startswith("--from=") for flag in flags):
            assert source in made
        else:
            assert (REPOSITORY / source).exists()


def test_the_server_takes_what_the_image_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variable is an option, and all that is set can be parsed."""
    variables = {
        name: value
        for name, value in environment_of_container().items()
        if name.startswith("FERROHSM_")
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    with serve.make_context("serve", []) as context:
        port = context.params["bind"][1]

    assert set() == set(variables) - set(options())
    assert [str(port)] == instructions("EXPOSE")


def test_everything_lies_in_the_volume() -> None:
    """Every place where the server would write by default is below the volume."""
    (volume,) = json.loads(instructions("VOLUME")[0])
    variables = environment_of_container()
    written = {
        name
        for name, flag in options().items()
        if re.search(r"-(dir|path|log)$", flag) and "web" not in flag
    }
    chosen = {n for n in written if variables.get(n, "").startswith(f"{volume}/")}

    assert {
        "FERROHSM_KEY_DIR",
        "FERROHSM_AUDIT_LOG",
        "FERROHSM_APPROVAL_DIR",
        "FERROHSM_SQLITE_PATH",
        "FERROHSM_AUDIT_SQLITE_PATH",
        "FERROHSM_APPROVAL_SQLITE_PATH",
    } == chosen
