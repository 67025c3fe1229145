# SPDX-License-Identifier: MIT
"""The example programs, with an HSM inside their process and with a server."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import hsm_core
from hsm_core.pytest_plugin import TestServer, hsm_server
from tests.support import REPOSITORY

__all__ = ["hsm_server"]  # older editable installations lack the entry point

PROGRAMS = REPOSITORY / "examples" / "programs"


@pytest.fixture(params=["embedded", "remote"])
def way(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> str:
    """Give a program its environment: an empty folder, with or without a server."""
    monkeypatch.syspath_prepend(str(PROGRAMS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FERROHSM_ENDPOINT", raising=False)
    way: str = request.param
    if way == "remote":
        server: TestServer = request.getfixturevalue("hsm_server")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
    return way


@pytest.fixture
def webapp(way: str) -> ModuleType:
    """Give the module of the web application, as Python finds it beside its files."""
    import webapp as module

    return module


def test_script(way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The script creates its key once, and signs with it again."""
    import script

    (tmp_path / "artefact").write_bytes(b"release")
    for _ in range(2):
        script.main(["artefact"])

    told = capsys.readouterr().out.splitlines()
    assert told == ["artefact signed by release, version 1"] * 2
    assert (tmp_path / "artefact.sig").stat().st_size == 3309
    assert "PUBLIC KEY" in (tmp_path / "release.pem").read_text()
    assert (tmp_path / "root.key").exists() == (way == "embedded")


def test_web_application(way: str, webapp: ModuleType) -> None:
    """A note comes back to its owner, also after a rotation, and to nobody else."""
    with contextlib.ExitStack() as stack:
        user = None
        if way == "embedded":
            hsm = stack.enter_context(hsm_core.open(":memory:"))
            user = hsm.as_user("notes-app", roles=["operator"])
        client = webapp.create_app(user).test_client()
        note = client.post("/olga/notes", data=b"the third oak").json["note"]
        assert client.post("/rotation").json == {"version": 2}

        own = client.get(f"/olga/notes/{note}")
        other = client.get(f"/anton/notes/{note}")

    assert (own.status_code, own.data) == (200, b"the third oak")
    assert other.status_code == 404


def test_build_job(
    way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pipeline signs a release; a changed file no longer matches."""
    import ci_job
    from cryptography.exceptions import InvalidSignature

    dist = tmp_path / "dist"
    dist.mkdir()
    assert ci_job.main(dist) == 1
    assert "dist holds no .whl, .gz or .deb file." in capsys.readouterr().err
    (dist / "app-1.0.whl").write_bytes(b"wheel")

    assert ci_job.main(dist) == 0
    assert "version 1 of 1, active" in capsys.readouterr().out
    (dist / "SHA256SUMS").write_text("0000  app-1.0.whl\n")
    with pytest.raises(InvalidSignature):
        ci_job.check(dist)


def test_build_job_without_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipeline that may not sign exits with 1 and says why, without a traceback."""
    (tmp_path / "keys/keys").mkdir(parents=True)
    monkeypatch.delenv("FERROHSM_ENDPOINT", raising=False)

    done = subprocess.run(
        [sys.executable, str(PROGRAMS / "ci_job.py"), "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr == (
        "not signed: root: there is no file root.key, but keys holds an HSM. Restore "
        "its root key; a new one can't open it.\n"
    )


async def test_service(way: str) -> None:
    """Many clients at once get tickets that verify, and forged ones do not."""
    import service

    async with service.serve(0) as port:

        async def client(number: int) -> list[str]:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)

            async def ask(line: str) -> str:
                writer.write(f"{line}\n".encode("latin-1"))
                return (await reader.readline()).decode().strip()

            ticket = await ask(f"issue seat-{number}")
            answers = [
                await ask(f"check seat-{number} {ticket}"),
                await ask(f"check seat-{number + 1} {ticket}"),
                await ask(f"check seat-{number} *{ticket}"),
                await ask(f"check s\xe9at {ticket}\xe9"),
                await ask("nonsense"),
            ]
            writer.close()
            await writer.wait_closed()
            return answers

        found = await asyncio.gather(*map(client, range(8)))

    usage = "usage: issue TEXT | check TEXT TICKET"
    assert found == [["valid", "invalid", "invalid", "invalid", usage]] * 8


async def test_service_refuses_a_long_line(
    way: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A line over 64 KiB gets an error and one line in the log, without a traceback."""
    import service

    async with service.serve(0) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"issue " + bytes(65536))
        found = await reader.readline()
        writer.close()

    assert b"error: line over 64 KiB\n" == found
    assert "connection closed: line over 64 KiB\n" == capsys.readouterr().err
    assert not caplog.records


def cells() -> Iterator[tuple[str, str]]:
    """Give source and stored output of each code cell of the notebook."""
    for cell in json.loads((PROGRAMS / "notebook.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            texts = [o.get("text") or o["data"]["text/plain"] for o in cell["outputs"]]
            yield "".join(cell["source"]), "".join("".join(text) for text in texts)


def run_cell(source: str, names: dict[str, object]) -> str:
    """Run a cell and return what a notebook shows: its output, then its last value."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        exec(compile(tree, "cell", "exec"), names)  # noqa: S102 - our own notebook
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)  # noqa: S307
            shown.write("" if value is None else repr(value))
    return shown.getvalue()


def test_notebook(way: str) -> None:
    """Each cell of the notebook shows the output that is stored with it."""
    names: dict[str, object] = {}
    try:
        for source, output in cells():
            assert run_cell(source, names) == output
    finally:
        closing = names.get("hsm") or names["me"]
        closing.close()  # type: ignore[attr-defined]
