# SPDX-License-Identifier: MIT
"""The project's tasks. ``nox -l`` lists them; what follows ``--`` goes to the tool."""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import nox
from nox.command import CommandFailed

# Where nox is started by its own command, the repository is not yet on the path.
sys.path.insert(0, str(Path(__file__).parent))

from tests.advisories import judge
from tests.built import DISTS, WHEELS, copy_otherwise, requirements, wheel_of
from tests.report import Counts, count

SELECTION: Final = nox.project.load_toml("tests/sessions.toml")
"""Which tests a session runs, where it is not all of them, and why."""

PROCESSES: Final = 4
"""
How many tests run at a time: on two processors many wait for a server, a disk or a
clock. Sessions that run beside another one take half of them each.
"""

BY_FILES: Final = ("--dist=loadfile", "--no-loadscope-reorder")
"""
Tests of one file share fixtures, and so stay in one process.

tests/conftest.py says in which order the files come, and not how many tests there are
in each.
"""

MEMORY: Final = Path("/dev/shm")  # noqa: S108
MEMORY_BYTES: Final = 4 * 1024**3
"""How much must be free there for the folders of tests."""

REPORTS: Final = Path(".nox/reports")

nox.needs_version = ">=2026.8.10"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.allow_parallel = True
nox.options.sessions = ["lint", "typecheck", "tests", "docs"]


def _install(session: nox.Session, *groups: str, options: Sequence[str] = ()) -> None:
    """Install the four distributions editable, and dependency groups beside them."""
    editable = [word for dist in DISTS for word in ("-e", f"packages/{dist}")]
    _install_groups(session, *groups, options=[*options, *editable])


def _install_groups(
    session: nox.Session, *groups: str, options: Sequence[str] = ()
) -> None:
    """Install dependency groups of the root pyproject.toml."""
    session.install(*options, *(word for name in groups for word in ("--group", name)))


def _report(session: nox.Session, part: str = "") -> Path:
    """Return where the JUnit report of this session, or a part of it, goes."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    name = "".join(c if c.isalnum() else "-" for c in session.name).strip("-")
    return REPORTS / f"{name}{part}.xml"


def _paths(patterns: Iterable[str]) -> list[str]:
    """Return the files of tests that patterns stand for, a folder for all in it."""
    found = dict.fromkeys(path for p in patterns for path in Path("tests").glob(p))
    return [
        str(file)
        for path in found
        for file in (sorted(path.rglob("test_*.py")) if path.is_dir() else [path])
    ]


def _all_of(table: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the patterns of every line of a table, each once."""
    return list(dict.fromkeys(p for patterns in table.values() for p in patterns))


def _run_tests(
    session: nox.Session,
    *options: str,
    chosen: Iterable[str] | None = None,
    processes: int = PROCESSES,
) -> list[Path]:
    """
    Run tests side by side, then those that must be alone; return the reports.

    What a person asked for, after ``--``, runs one by one and in a single run. The
    words "all" and "quick" are for the session.

    Args:
        session: Where pytest is installed.

        options: Of pytest.

        chosen: Patterns of the tests to run; all that there are if it is not given.

        processes: How many tests run at a time.
    """
    files = None if chosen is None else _paths(chosen)
    if session.posargs and session.posargs not in (["all"], ["quick"]):
        report = _report(session)
        if any(Path(word.partition("::")[0]).exists() for word in session.posargs):
            files = None
        asked = (*(files or ()), *session.posargs)
        session.run("pytest", *options, f"--junit-xml={report}", *asked)
        return [report]
    alone = _paths(SELECTION["alone"])
    if files is None:
        together = [f"--ignore={path}" for path in alone]
    else:
        together = [path for path in files if path not in alone]
        alone = [path for path in alone if path in files]
    reports, failures = [], 0
    side_by_side = (f"--numprocesses={processes}", *BY_FILES, *together)
    for part, words in (("", side_by_side), ("-alone", tuple(alone))):
        if part and not alone:
            continue
        reports.append(_report(session, part))
        try:
            with _folder_of_tests(in_memory=not part) as folder:
                words = (*folder, f"--junit-xml={reports[-1]}", *words)
                session.run("pytest", *options, *words)
        except CommandFailed:
            failures += 1  # What the other part finds is of interest, too.
    if failures:
        session.error("Tests failed.")
    return reports


@contextmanager
def _folder_of_tests(*, in_memory: bool) -> Iterator[tuple[str, ...]]:
    """
    Give options that say where pytest keeps the folders of tests.

    In memory, if there is room: otherwise stores wait for a disk in every test, and
    most of these are not about it. What runs alone is left on a disk, for there servers
    are killed and the power is cut.
    """
    if not in_memory or not MEMORY.is_dir():
        yield ()
    elif shutil.disk_usage(MEMORY).free < MEMORY_BYTES:
        yield ()
    else:
        with tempfile.TemporaryDirectory(prefix="hsm-tests-", dir=MEMORY) as folder:
            yield (f"--basetemp={folder}/t",)


@nox.session(allow_parallel=False)
def tests(session: nox.Session) -> None:
    """
    Run the tests of all four distributions.

    With ``-- quick``, run those that show most in least time: `quick` in
    tests/sessions.toml.
    """
    _install(session, "test", "lint", "build")
    is_quick = session.posargs == ["quick"]
    _run_tests(session, chosen=SELECTION["quick"] if is_quick else None)


@nox.session(allow_parallel=False)
def coverage(session: nox.Session) -> None:
    """
    Run the tests and say which lines and branches no test has run.

    It takes more than half as long again as `tests`, and so is not part of CI. After
    ``--`` may stand which tests to run.
    """
    _install(session, "test", "lint", "build")
    session.run("coverage", "erase")
    # The plugin measures what pytest-xdist's processes run, too, and adds it up.
    _run_tests(session, "--cov", "--cov-append", "--cov-report=")
    session.run("coverage", "report")


@nox.session(requires=["build"], reuse_venv=False)
@nox.parametrize("dist", DISTS, ids=DISTS)
def isolated(session: nox.Session, dist: str) -> None:
    """
    Use one distribution with nothing but that wheel and what it requires.

    Our own names come from the wheels just built and from nowhere else. Every module is
    imported before anything is there that only tests need; then come tests that use
    every part: `isolated` in tests/sessions.toml, or all there are with ``-- all``.
    """
    own, foreign = requirements(dist)
    session.install(*foreign)
    has_uv = session.venv_backend == "uv"
    session.install(
        *("--no-index", "--find-links", str(WHEELS), "--no-deps"),
        # A wheel built before may be cached, under the same name and version.
        "--no-cache" if has_uv else "--no-cache-dir",
        *own,
    )
    if has_uv:
        session.run("uv", "pip", "check", external=True)
    else:
        session.run("python", "-m", "pip", "check")
    package = dist.replace("-", "_")
    session.run("python", "-W", "error", "-m", "tests.every_module", package)
    for sibling in sorted(set(DISTS) - set(own)):
        session.run(
            *("python", "-c", f"import {sibling.replace('-', '_')}"),
            success_codes=[1],
            silent=True,
        )
    _install_groups(session, f"test-{dist.removeprefix('hsm-')}")
    chosen = SELECTION["isolated"][dist]
    if session.posargs == ["all"]:
        chosen = SELECTION["own"][dist]
    reports = _run_tests(session, chosen=chosen, processes=PROCESSES // 2)
    _refuse_many_skips(session, reports)


def _refuse_many_skips(session: nox.Session, reports: Iterable[Path]) -> None:
    """Fail when more than a tenth of the tests were skipped."""
    total = Counts()
    for report in reports:
        total = total.plus(count(report))
    if total.skipped * 10 > sum(total):
        session.error(f"Too many tests were skipped: {total}.")


@nox.session(reuse_venv=False, venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """
    Show each library in the lowest version that the distributions allow.

    By the tests that use it: `lowest` in tests/sessions.toml, or with ``-- all`` by all
    that there are.
    """
    _install(session, "test", options=["--resolution", "lowest-direct"])
    everything = session.posargs == ["all"]
    chosen = None if everything else _all_of(SELECTION["lowest"])
    reports = _run_tests(session, chosen=chosen, processes=PROCESSES // 2)
    _refuse_many_skips(session, reports)


@nox.session(
    python=["3.11", "3.12", "3.13", "3.14"], venv_backend="uv", download_python="never"
)
def pythons(session: nox.Session) -> None:
    """
    Run tests of every part on each version of Python that is installed.

    Those of `isolated` and `lowest` in tests/sessions.toml, or with ``-- all`` all that
    there are. Versions that are not installed are passed over.
    """
    _install(session, "test", "lint")
    chosen = [*_all_of(SELECTION["isolated"]), *_all_of(SELECTION["lowest"])]
    everything = session.posargs == ["all"]
    _run_tests(session, chosen=None if everything else chosen)


@nox.session
def lint(session: nox.Session) -> None:
    """Check format, style, language, import contracts and changelog fragments."""
    _install_groups(session, "lint")
    session.run("ruff", "format", "--check")
    session.run("ruff", "check")
    session.run("python", "-m", "tests.tooling.language")
    sources = os.pathsep.join(str(Path("packages", d, "src").resolve()) for d in DISTS)
    session.run("lint-imports", "--no-cache", env={"PYTHONPATH": sources})
    for dist in DISTS:
        session.run(
            *("towncrier", "build", "--draft", "--dir", f"packages/{dist}"),
            *("--config", f"packages/{dist}/pyproject.toml", "--version", "draft"),
            silent=True,
        )


@nox.session
def strings(session: nox.Session) -> None:
    """Print all strings that users can meet, to be read from top to bottom."""
    _install(session, "test")
    session.run("python", "-m", "tests.tooling.strings")


@nox.session
def size(session: nox.Session) -> None:
    """Print files and lines of code by package, without docstrings and comments."""
    _install_groups(session, "build")
    session.run("python", "-m", "tests.tooling.size")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Check types, strictly, in everything that is Python."""
    _install(session, "typing", "docs", "fuzz")
    session.run("mypy", "packages", "tests", "examples", "docs/conf.py", "noxfile.py")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    _install(session, "docs")
    session.run(
        *("sphinx-build", "--builder", "html", "--nitpicky", "--fail-on-warning"),
        *("--show-traceback", "--fresh-env", "docs", "docs/_build/html"),
    )


@nox.session
def build(session: nox.Session) -> None:
    """
    Build wheel and sdist of each distribution into dist/, and check them.

    Each is built once more, from a copy with other times and modes of files, and must
    come out the same, byte by byte.
    """
    _install_groups(session, "build")
    shutil.rmtree(WHEELS, ignore_errors=True)
    for dist in DISTS:
        session.run(
            *("python", "-m", "build", "--installer", "uv", "--outdir", str(WHEELS)),
            f"packages/{dist}",
            silent=True,
        )
    session.run("twine", "check", "--strict", *map(str, sorted(WHEELS.iterdir())))
    again = Path(session.create_tmp()).resolve() / "again"
    shutil.rmtree(again, ignore_errors=True)
    again.mkdir()
    # A source distribution has the file of this name that is found first on the way up.
    shutil.copy(".gitignore", again)
    for dist in DISTS:
        copy_otherwise(Path("packages", dist), again / dist)
        with session.chdir(again / dist):
            session.run(
                *("python", "-m", "hatchling", "build", "-d", str(again / "dist")),
                silent=True,
            )
    found = {path.name: path.read_bytes() for path in (again / "dist").iterdir()}
    if found != {path.name: path.read_bytes() for path in WHEELS.iterdir()}:
        session.error("What was built twice is not the same.")


@nox.session(requires=["build"], reuse_venv=False)
def sbom(session: nox.Session) -> None:
    """Write what each distribution is installed with to dist/*.cdx.json (CycloneDX)."""
    _install_groups(session, "supply")
    for dist in DISTS:
        python = _install_wheel(session, dist)
        written = WHEELS / f"{dist}.cdx.json"
        session.run(
            *("cyclonedx-py", "environment", "--output-reproducible", "--validate"),
            *("--pyproject", f"packages/{dist}/pyproject.toml"),
            *("--output-file", str(written), python),
        )


@nox.session(requires=["build"], reuse_venv=False)
def audit(session: nox.Session) -> None:
    """
    Ask PyPI for known vulnerabilities of what the distributions are installed with.

    It fails if there are any. If PyPI can't be asked about something, as where there is
    only a mirror without its JSON API, it ends as skipped, and names what.
    """
    _install_groups(session, "supply")
    place = Path(session.create_tmp()).resolve()
    lines: set[str] = set()
    for dist in DISTS:
        python = _install_wheel(session, dist)
        frozen = session.run(
            *("python", "-m", "pip", "--python", python, "freeze"),
            *(word for name in DISTS for word in ("--exclude", name)),
            silent=True,
        )
        lines.update(str(frozen).splitlines())
    (place / "requirements.txt").write_text("\n".join(sorted(lines)) + "\n", "utf-8")
    answers = place / "answers.json"
    answers.unlink(missing_ok=True)
    session.run(
        *("pip-audit", "--no-deps", "--disable-pip", "--progress-spinner", "off"),
        *("--requirement", str(place / "requirements.txt")),
        *("--format", "json", "--output", str(answers), *session.posargs),
        # 1 says that there are vulnerabilities, or that there are no answers at all.
        success_codes=[0, 1],
    )
    if not answers.exists():
        session.error("pip-audit did not come to its end.")
    verdict = judge(json.loads(answers.read_text("utf-8")))
    for line in verdict.vulnerable:
        session.warn(line)
    session.log(f"Without known vulnerabilities: {', '.join(verdict.clean) or 'none'}.")
    if verdict.vulnerable:
        session.error("There are known vulnerabilities.")
    if verdict.unknown:
        session.skip(f"PyPI gave no answer about {', '.join(verdict.unknown)}.")


def _install_wheel(session: nox.Session, dist: str) -> str:
    """Install a built wheel, and what it requires, by itself; return that Python."""
    own, _ = requirements(dist)
    wheels = [str(wheel_of(name)) for name in own]
    place = Path(session.create_tmp()).resolve() / dist
    session.run("python", "-m", "venv", "--clear", "--without-pip", str(place))
    python = str(place / "bin" / "python")
    # Named as files, ours come from nowhere else, with the extras that are asked for.
    session.run("python", "-m", "pip", "--python", python, "install", "-q", *wheels)
    for note in place.rglob("hsm_*.dist-info/direct_url.json"):
        note.unlink()  # It says where on this machine the wheel lay.
    return python


@nox.session
def compat(session: nox.Session) -> None:
    """Use what every release has stored, and upgrade a cluster node by node."""
    _install(session, "test")
    session.run("pytest", "tests/compat", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Start a real server, drive it with the real client, clean up."""
    _install(session, "build")
    session.run("python", "examples/demo/run.py", *session.posargs)


@nox.session
def dual_control(session: nox.Session) -> None:
    """
    Play 200,000 concurrent schedules on approvals, or `FERROHSM_SCHEDULES`.

    Beside every 20 of them there is one in which the power goes.
    """
    _install(session, "test")
    wanted = os.environ.get("FERROHSM_SCHEDULES", "200000")
    session.run(
        *("pytest", "-q", "--timeout=0", "tests/core/test_dual_control_schedules.py"),
        *session.posargs,
        env={"FERROHSM_SCHEDULES": wanted},
    )


@nox.session
def revocations(session: nox.Session) -> None:
    """
    Revoke keys under load on a cluster of processes, 1,000 or `FERROHSM_REVOCATIONS`.

    One of the nodes is stopped at random. A storm of changes on all nodes follows.
    """
    _install(session, "test")
    wanted = os.environ.get("FERROHSM_REVOCATIONS", "1000")
    session.run(
        *("pytest", "-q", "--timeout=0"),
        *(
            "tests/core/test_cluster_revocations.py",
            "tests/core/test_cluster_changes.py",
        ),
        *session.posargs,
        env={
            "FERROHSM_CLUSTER_STEPS": "300",
            "FERROHSM_REVOCATIONS": wanted,
            "FERROHSM_REQUIRE_SERVICES": "1",
        },
    )


@nox.session
def node_kills(session: nox.Session) -> None:
    """
    Kill nodes of a cluster, 300 or `FERROHSM_NODE_KILLS`, and their database.

    A standby without the newest changes is promoted, too.
    """
    _install(session, "test")
    wanted = os.environ.get("FERROHSM_NODE_KILLS", "300")
    session.run(
        *("pytest", "-q", "--timeout=0"),
        *(
            "tests/core/test_cluster_kills.py",
            "tests/core/test_older_database.py",
            "tests/core/test_postgresql_uses.py",
        ),
        *session.posargs,
        env={"FERROHSM_NODE_KILLS": wanted, "FERROHSM_REQUIRE_SERVICES": "1"},
    )


@nox.session
def races(session: nox.Session) -> None:
    """
    End uses in their middle a thousand times in each way, or `FERROHSM_RACES`.

    Sixteen threads, or connections, use a key that is revoked meanwhile, or whose
    policy, disk or credential fails. Takes an hour. CI runs one or two of each.
    """
    _install(session, "test")
    session.run(
        *("pytest", "-q", "--timeout=0", *_paths(SELECTION["races"])),
        *session.posargs,
        env={"FERROHSM_RACES": os.environ.get("FERROHSM_RACES", "1000")},
    )


@nox.session
def two_ways(session: nox.Session) -> None:
    """
    Answer 100,000 random requests with plans and without, or `FERROHSM_TWO_WAYS`.

    Answers, errors, records and counts must be the same. Takes half an hour.
    """
    _install(session, "test")
    session.run(
        *("pytest", "-q", "--timeout=0", *_paths(SELECTION["two_ways"])),
        *session.posargs,
        env={"FERROHSM_TWO_WAYS": os.environ.get("FERROHSM_TWO_WAYS", "100000")},
    )


@nox.session
def browser(session: nox.Session) -> None:
    """Use the console in the system's Chromium, and look for what no page may do."""
    _install(session, "test", "browser")
    session.run(
        *("pytest", "-o", "addopts=-ra --import-mode=importlib", *BY_FILES),
        # A browser, too, is several processes.
        *(f"--numprocesses={PROCESSES // 2}", f"--junit-xml={_report(session)}"),
        "tests/browser",
        *session.posargs,
    )


@nox.session
def screenshots(session: nox.Session) -> None:
    """Write each page of the console, light, dark and narrow: .nox/screenshots."""
    _install(session, "test", "browser")
    session.run("python", "-m", "tests.browser.screenshots", *session.posargs)


@nox.session
def clock(session: nox.Session) -> None:
    """Set the clock wrong in every operation, by 30 steps, each 17 times."""
    _install(session, "test")
    session.run(
        *("pytest", "-q", "tests/core/test_clock_steps.py", "--timeout=3600"),
        *session.posargs,
        env={"FERROHSM_CLOCK": os.environ.get("FERROHSM_CLOCK", "17")},
    )


@nox.session
def key_life(session: nox.Session) -> None:
    """Rotate and roll back each key a thousand times; everything stays readable."""
    _install(session, "test")
    session.run(
        *("pytest", "tests/core/test_key_life.py", *session.posargs),
        env={"FERROHSM_KEY_LIFE": "1000"},
    )


@nox.session
def simulate(session: nox.Session) -> None:
    """
    Live through years of an HSM's life, one for each seed; ``-- --seeds N --from K``.

    Not part of CI, which lives through fewer.
    """
    _install(session, "test")
    words = session.posargs or ("--seeds", "5000")
    session.run("python", "-m", "tests.simulation", *words)


@nox.session
def cluster(session: nox.Session) -> None:
    """
    Live through 10,000 simulated clusters, and 2,000 histories of real nodes.

    In a fifth of the histories the database has a standby. Needs PostgreSQL's programs.
    Not part of CI, which runs a short form of both.
    """
    _install(session, "test")
    seeds = os.environ.get("FERROHSM_CLUSTER_SEEDS", "10000")
    session.run("python", "-m", "tests.simulation.cluster", "--seeds", seeds)
    count = int(os.environ.get("FERROHSM_HISTORIES", "2000"))
    words = session.posargs or (f"--count={count - count // 5}", f"--pair={count // 5}")
    session.run("python", "-m", "tests.faults.cluster_histories", *words)


@nox.session
def interop(session: nox.Session) -> None:
    """
    Exchange keys and data with OpenSSL's command line, both ways.

    After ``--`` may stand how often for each way to use an algorithm.
    """
    _install(session, "test")
    rounds, *more = session.posargs or ["50"]
    session.run(
        *("pytest", "tests/core/test_interop_openssl.py", "--timeout=3600", *more),
        env={"FERROHSM_INTEROP": rounds},
    )


@nox.session
def conformance_all(session: nox.Session) -> None:
    """Run the conformance suite of providers over the slowest sets of SLH-DSA too."""
    _install(session, "test")
    session.run(
        *("pytest", "tests/contract", "-k", "crypto_provider", "--timeout=600"),
        *session.posargs,
        env={"FERROHSM_CONFORMANCE": "1"},
    )


@nox.session(python="3.13", venv_backend="uv", download_python="never")
def pkcs11_check(session: nox.Session) -> None:
    """
    Run pkcs11-check, the conformance suite of others, over the PKCS#11 interface.

    A few subjects, or with ``-- all`` every test, and SoftHSM2 for comparison. What
    fails must stand in tests/pkcs11_check/failures.toml with a reason.
    """
    _install(session, "test", "pkcs11-check")
    session.run("python", "-m", "tests.pkcs11_check", *session.posargs)


@nox.session
def tls_scan(session: nox.Session) -> None:
    """Have sslyze hold the listener against Mozilla's modern profile."""
    _install(session, "test")
    # It pins an older cryptography than the server needs.
    scanner = Path(session.create_tmp()) / "sslyze"
    session.run("python", "-m", "venv", "--clear", str(scanner))
    session.run(
        *(str(scanner / "bin" / "python"), "-m", "pip", "install", "--quiet"),
        "sslyze>=6.3",
        external=True,
    )
    program = str((scanner / "bin" / "sslyze").resolve())
    session.run("python", "-m", "tests.server.tls_scan", program)


@nox.session
def fuzz(session: nox.Session) -> None:
    """
    Send a running server what its OpenAPI document allows, and what it does not.

    Each run makes up other requests, unless `FERROHSM_FUZZ_SEED` says which.
    """
    _install(session, "test", "fuzz")
    words = session.posargs or [
        "--max-examples",
        os.environ.get("FERROHSM_FUZZ", "100"),
    ]
    if not session.posargs and "FERROHSM_FUZZ_SEED" in os.environ:
        words += ["--seed", os.environ["FERROHSM_FUZZ_SEED"]]
    session.run("python", "-m", "tests.fuzzing.server", *words)


@nox.session
def fuzz_long(session: nox.Session) -> None:
    """
    Do it with 20,000 requests at least, and 50,000 malformed ones.

    Takes most of an hour. Not part of CI, which runs a short form.
    """
    _install(session, "test", "fuzz")
    numbers = ("--least", "20000", "--max-examples", "250", "--malformed", "50000")
    session.run("python", "-m", "tests.fuzzing.server", *numbers, *session.posargs)


@nox.session
def timing(session: nox.Session) -> None:
    """
    Measure whether a secret can be told by the time that a comparison takes.

    A million samples of each kind take half an hour on a machine that does nothing
    else. Not part of CI, whose machines are too restless.
    """
    _install(session, "test")
    words = session.posargs or ["--samples", "1000000"]
    session.run("python", "-m", "tests.timing", *words)


@nox.session
def parsers(session: nox.Session) -> None:
    """
    Fuzz every parser, guided by coverage, with 100,000 inputs each.

    After ``--`` may stand which ones, and ``--runs 10000000`` for the long form. Takes
    half an hour and more, and a Python that has atheris. Not part of CI, whose tests
    try some hundred inputs of each.
    """
    _install(session, "test", "parsers")
    session.run("python", "-m", "tests.fuzzing", *session.posargs)


@nox.session
def programs(session: nox.Session) -> None:
    """
    Use keys of the HSM with OpenSSH, git, OpenSSL, nginx, GnuTLS, Java, NSS and others.

    Runs the guides that show them. Needs their Debian packages, which the guides name.
    Not part of CI, which leaves out the guide with Java.
    """
    _install(session, "programs")
    session.run(
        *("pytest", "tests/e2e/test_how_to.py", "tests/e2e/test_ssh_sessions.py"),
        *("tests/e2e/test_ssh_pkcs11.py", "-k", "use-keys-with or test_ssh"),
        *session.posargs,
        env={"FERROHSM_PROGRAMS": "1", "FERROHSM_REQUIRE_SERVICES": "1"},
    )


@nox.session
def faults(session: nox.Session) -> None:
    """
    Fail and kill every call of the disk, break the trail's place, cut the power.

    Takes most of an hour; needs root, strace, and loop devices. Not part of CI, which
    runs a short form of each.
    """
    _install(session, "test")
    session.env.update(FERROHSM_FAULTS="1", FERROHSM_REQUIRE_SERVICES="1")
    session.run("pytest", "--timeout=3600", *_paths(SELECTION["faults"]))
    for words in (
        ("tests.faults.store_sweep",),
        ("tests.faults.histories", "--count", "100"),
        ("tests.faults.sink_trials", "--trials", "40"),
        ("tests.faults.powercut", "--images", "60"),
    ):
        session.run("python", "-m", *words)


@nox.session
def mutants(session: nox.Session) -> None:
    """
    Put small faults into what guards keys, one by one, and see whether tests notice.

    After ``--`` may stand areas and options, as in ``-- policy --sample 300 --seed 1``.
    All faults of all areas take hours. Not part of CI.
    """
    _install(session, "test")
    words = session.posargs or ["--sample", "150"]
    session.run("python", "-m", "tests.mutation", *words)


@nox.session
def leaks(session: nox.Session) -> None:
    """
    Look for what keys leave in the memory of a server's processes.

    Takes some ten minutes; needs root. After ``--`` may stand how many keys of each
    algorithm are made; of the slow sets of SLH-DSA there are five at most.
    """
    _install(session, "test")
    keys, *more = session.posargs or [os.environ.get("FERROHSM_LEAKS", "20")]
    session.run(
        *("pytest", "tests/e2e/test_memory.py", "--timeout=3600", *more),
        env={"FERROHSM_LEAKS": keys},
    )


@nox.session
def bench(session: nox.Session) -> None:
    """
    Measure goals P1 to P18 beside rivals; write docs/reference/benchmarks.md.

    After ``--`` may stand which rows to measure, as in ``-- P4 P5``: the page then
    stays as it is. Rivals in C need a compiler, OpenSSL's headers and SoftHSM2.
    """
    _install(session, "bench")
    session.run("python", "-m", "tests.bench", *session.posargs)


@nox.session
def kill(session: nox.Session) -> None:
    """Kill a busy server again and again; nothing acknowledged may be lost."""
    _install(session, "test")
    words = list(session.posargs) or [
        *("--kills", os.environ.get("FERROHSM_KILLS", "100")),
        *("--points", os.environ.get("FERROHSM_KILL_POINTS", "1000")),
    ]
    session.run("python", "-m", "tests.faults.kill_loop", *words)


@nox.session
def soak(session: nox.Session) -> None:
    """
    Keep a server busy for ten minutes while something goes wrong every ten seconds.

    Some faults need root, mounts or strace, and are left out without. Not part of CI,
    which runs a short form.
    """
    _install(session, "test")
    words = session.posargs or ("--minutes", "10")
    session.run("python", "-m", "tests.faults.soak", *words)


@nox.session
def overload(session: nox.Session) -> None:
    """
    Flood a server, and hold 11,000 connections: its users must hardly notice.

    Takes five minutes, with ``-- --seconds 400`` half an hour. Needs 12,000 open files
    (``ulimit -Hn``). Not part of CI, which runs a short form.
    """
    _install(session, "test")
    session.run("python", "-m", "tests.e2e.overload", *session.posargs)


if __name__ == "__main__":
    sys.exit("Run this file with nox.")
