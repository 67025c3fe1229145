# SPDX-License-Identifier: MIT
"""The project's tasks. ``nox -l`` lists them; what follows ``--`` goes to the tool."""

import email
import os
import shutil
import sys
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import nox
from nox.command import CommandFailed

DISTS: Final = ("hsm-core", "hsm-server", "hsm-cli")

OWN_TESTS: Final = {
    "hsm-core": ("tests/core", "tests/vectors", "tests/contract"),
    "hsm-server": ("tests/server",),
    "hsm-cli": ("tests/cli",),
}
"""The tests that must pass where no sibling but hsm-core is installed."""

ONCE: Final = tuple(
    f"--ignore=tests/{path}"
    for path in (
        "compat",
        "core/test_approval_crashes.py",
        "core/test_approval_kills.py",
        "core/test_audit_crashes.py",
        "core/test_audit_displaced.py",
        "core/test_audit_hanging.py",
        "core/test_audit_healing.py",
        "core/test_audit_pruning.py",
        "core/test_audit_recovery.py",
        "core/test_audit_reserve.py",
        "core/test_audit_tampering.py",
        "core/test_audit_verify.py",
        "core/test_backups.py",
        "core/test_changed_store.py",
        "core/test_clock_steps.py",
        "core/test_crypto_libcrypto.py",
        "core/test_dual_control_schedules.py",
        "core/test_filesystem_faults.py",
        "core/test_filesystem_healing.py",
        "core/test_filesystem_kills.py",
        "core/test_following.py",
        "core/test_governance_histories.py",
        "core/test_governance_kills.py",
        "core/test_interop_openssl.py",
        "core/test_presentation.py",
        "core/test_pruned_store.py",
        "core/test_recovery.py",
        "core/test_remote_faults.py",
        "core/test_remote_hsm.py",
        "core/test_retention_faults.py",
        "core/test_retention_ledger.py",
        "core/test_retention_restarts.py",
        "core/test_roles.py",
        "core/test_rollback.py",
        "core/test_saved_index.py",
        "core/test_sqlite_audit_crashes.py",
        "core/test_sqlite_audit_tampering.py",
        "core/test_sqlite_faults.py",
        "core/test_sqlite_kills.py",
        "core/test_store_healing.py",
        "core/test_tamper_trail.py",
        "core/test_two_schedulers.py",
        "core/test_use_blocks.py",
        "core/test_trail_promises.py",
        "e2e/test_acme_how_to.py",
        "e2e/test_confinement.py",
        "e2e/test_demo.py",
        "e2e/test_how_to.py",
        "e2e/test_live_view.py",
        "e2e/test_memory.py",
        "e2e/test_object_storage.py",
        "e2e/test_onlookers.py",
        "e2e/test_original_lines.py",
        "e2e/test_policy_reload.py",
        "e2e/test_retention.py",
        "e2e/test_sdk_examples.py",
        "e2e/test_secrets_left_behind.py",
        "e2e/test_start_and_stop.py",
        "e2e/test_stores.py",
        "faults",
        "server/test_acme_server.py",
        "server/test_distribution.py",
        "server/test_forged_flood.py",
        "server/test_hostile_process.py",
        "server/test_idle_connections.py",
        "server/test_in_flight.py",
        "server/test_limit_buckets.py",
        "server/test_observability.py",
        "server/test_process.py",
        "server/test_process_hardening.py",
        "server/test_process_starts.py",
        "server/test_process_users.py",
        "server/test_randomness.py",
        "server/test_reload.py",
        "server/test_restarts.py",
        "server/test_role_matrix.py",
        "server/test_service_manager.py",
        "server/test_supervisor.py",
        "server/test_tls_connections.py",
        "server/test_tls_memory.py",
        "simulation",
        "tooling",
        "vectors/test_libcrypto_acvp.py",
        "vectors/test_published.py",
    )
)
"""
What the session ``tests`` runs and others don't run again.

Neither what is beside hsm-core nor how old the libraries are changes what published
vectors, stores of earlier releases, the system's OpenSSL, crashes at every point,
failing disks, tampered stores, killed servers and processes, and the repository's tools
show.
"""

FAULTS: Final = (
    "core/test_approval_crashes.py",
    "core/test_approval_kills.py",
    "core/test_approval_tampering.py",
    "core/test_audit_crashes.py",
    "core/test_audit_healing.py",
    "core/test_audit_pruning.py",
    "core/test_audit_tampering.py",
    "core/test_filesystem_kills.py",
    "core/test_governance_kills.py",
    "core/test_remote_faults.py",
    "core/test_rollback.py",
    "core/test_sqlite_audit_crashes.py",
    "core/test_sqlite_audit_tampering.py",
    "core/test_sqlite_faults.py",
    "core/test_sqlite_kills.py",
    "core/test_tamper_trail.py",
    "faults/test_store_disks.py",
)
"""Tests of crashes, failing disks and tampering; the long form of some is longer."""

ALONE: Final = (
    "core/test_audit_hanging.py",
    "core/test_crypto_pqcrypto_children.py",
    "core/test_mutation_deadline.py",
    "core/test_slow_lane.py",
    "core/test_store_healing.py",
    "e2e/test_raw_bodies.py",
    "e2e/test_tls_reload.py",
    "faults/test_kill.py",
    "faults/test_powercut.py",
    "faults/test_soak.py",
    "faults/test_stop.py",
    "server/test_in_flight.py",
    "server/test_listener.py",
    "server/test_restarts.py",
    "server/test_slow_operations.py",
    "server/test_tls_connections.py",
    "server/test_token_watch.py",
)
"""
What runs with no other test beside it, after the others.

They say how quickly something is noticed, refused or given up, within a second or so,
while a neighbour may take the processor for as long; or they are such a neighbour,
keeping all processors or disks busy for as long as they run. A request of 64 MiB is of
both kinds: a server that gets no processor for a second takes its vault for silent.
"""

SIDE_BY_SIDE: Final = ("--numprocesses=2", "--dist=loadfile")
"""Tests of one file share fixtures, and so stay in one process."""

WHEELS: Final = Path("dist")
REPORTS: Final = Path(".nox/reports")

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "typecheck", "tests", "docs"]


def _install(session: nox.Session, *groups: str, options: Sequence[str] = ()) -> None:
    """Install the three distributions editable, and dependency groups beside them."""
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


def _run_tests(
    session: nox.Session,
    *options: str,
    folders: Sequence[str] = (),
    left_out: Sequence[str] = (),
) -> list[Path]:
    """
    Run tests two at a time, then those that must be alone; return the reports.

    What a person asked for, after ``--``, runs one by one and in a single run.

    Args:
        session: Where pytest is installed.

        options: Of pytest.

        folders: Where the tests are; empty for all that there are.

        left_out: Options of pytest, ``--ignore`` of each file or folder to leave out.
    """
    whole = ("pytest", *options, *left_out)
    if session.posargs:
        report = _report(session)
        session.run(*whole, f"--junit-xml={report}", *folders, *session.posargs)
        return [report]
    ignored = {option.removeprefix("--ignore=") for option in left_out}
    alone = [
        path
        for path in (f"tests/{name}" for name in ALONE)
        if not ignored & {path, str(Path(path).parent)}
        and (not folders or str(Path(path).parent) in folders)
    ]
    parts = [("", [*SIDE_BY_SIDE, *(f"--ignore={path}" for path in alone), *folders])]
    if alone:
        parts.append(("-alone", alone))
    reports, failures = [], 0
    for part, words in parts:
        reports.append(_report(session, part))
        try:
            session.run(*whole, f"--junit-xml={reports[-1]}", *words)
        except CommandFailed:
            failures += 1  # What the other part finds is of interest, too.
    if failures:
        session.error("Tests failed.")
    return reports


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests of all three distributions."""
    _install(session, "test", "lint")
    _run_tests(session)


@nox.session
def coverage(session: nox.Session) -> None:
    """
    Run the tests and say which lines and branches no test has run.

    It takes more than half as long again as `tests`, and so is not part of CI. After
    ``--`` may stand which tests to run.
    """
    _install(session, "test", "lint")
    session.run("coverage", "erase")
    # The plugin measures what pytest-xdist's processes run, too, and adds it up.
    _run_tests(session, "--cov", "--cov-append", "--cov-report=")
    session.run("coverage", "report")


@nox.session(requires=["build"], reuse_venv=False)
@nox.parametrize("dist", DISTS, ids=DISTS)
def isolated(session: nox.Session, dist: str) -> None:
    """
    Run one distribution's tests with nothing but that wheel and what it requires.

    Our own names come from the wheels just built and from nowhere else.
    """
    own, foreign = _requirements(dist)
    _install_groups(session, f"test-{dist.removeprefix('hsm-')}", options=foreign)
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
    for sibling in sorted(set(DISTS) - set(own)):
        session.run(
            *("python", "-c", f"import {sibling.replace('-', '_')}"),
            success_codes=[1],
            silent=True,
        )
    reports = _run_tests(session, folders=OWN_TESTS[dist], left_out=ONCE)
    _refuse_many_skips(session, reports)


def _requirements(dist: str) -> tuple[list[str], list[str]]:
    """
    Return what a built wheel needs: our own distributions, and everybody else's.

    Those of a required sibling are followed, for it is installed without its own.
    """
    (wheel,) = WHEELS.glob(f"{dist.replace('-', '_')}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    own, foreign = [dist], []
    for requirement in metadata.get_all("Requires-Dist", []):
        sibling = next((d for d in DISTS if requirement.startswith(d)), None)
        if sibling is None:
            foreign.append(requirement)
        else:
            more_own, more_foreign = _requirements(sibling)
            own += more_own
            foreign += more_foreign
    return own, foreign


def _refuse_many_skips(session: nox.Session, reports: Sequence[Path]) -> None:
    """Fail when more than a tenth of the tests were skipped."""
    total = skipped = 0
    for report in reports:
        # It was written by pytest a moment ago.
        for suite in ET.parse(report).getroot().iter("testsuite"):  # noqa: S314
            total += int(suite.get("tests", "0"))
            skipped += int(suite.get("skipped", "0"))
    if skipped * 10 > total:
        session.error(f"{skipped} of {total} tests were skipped.")


@nox.session(reuse_venv=False, venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """Run the tests with the lowest versions that the distributions allow."""
    _install(session, "test", options=["--resolution", "lowest-direct"])
    _run_tests(session, left_out=ONCE)


@nox.session
def lint(session: nox.Session) -> None:
    """Check format, style, import contracts and changelog fragments."""
    _install_groups(session, "lint")
    session.run("ruff", "format", "--check")
    session.run("ruff", "check")
    sources = os.pathsep.join(str(Path("packages", d, "src").resolve()) for d in DISTS)
    session.run("lint-imports", "--no-cache", env={"PYTHONPATH": sources})
    for dist in DISTS:
        session.run(
            *("towncrier", "build", "--draft", "--dir", f"packages/{dist}"),
            *("--config", f"packages/{dist}/pyproject.toml", "--version", "draft"),
            silent=True,
        )


@nox.session
def typecheck(session: nox.Session) -> None:
    """Check types, strictly, in everything that is Python."""
    _install(session, "typing", "docs", "fuzz")
    session.run("mypy", "packages", "tests", "examples", "docs/conf.py", "noxfile.py")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation and run its examples; a warning is an error."""
    _install(session, "docs")
    for builder in ("html", "doctest"):
        session.run(
            *("sphinx-build", "--builder", builder, "--nitpicky"),
            *("--fail-on-warning", "--show-traceback", "--fresh-env"),
            *("docs", f"docs/_build/{builder}"),
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
        _copy_otherwise(Path("packages", dist), again / dist)
        with session.chdir(again / dist):
            session.run(
                *("python", "-m", "hatchling", "build", "-d", str(again / "dist")),
                silent=True,
            )
    found = {path.name: path.read_bytes() for path in (again / "dist").iterdir()}
    if found != {path.name: path.read_bytes() for path in WHEELS.iterdir()}:
        session.error("What was built twice is not the same.")


def _copy_otherwise(source: Path, target: Path) -> None:
    """Copy a source tree, as somebody with another umask does at another time."""
    left_out = shutil.ignore_patterns("__pycache__", "dist")
    shutil.copytree(source, target, ignore=left_out)
    for path in (target, *target.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
        os.utime(path, (1_000_000_000, 1_000_000_000))


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

    It fails, too, where PyPI can't be asked about one of them.
    """
    _install_groups(session, "supply")
    listed = Path(session.create_tmp()).resolve() / "requirements.txt"
    lines: set[str] = set()
    for dist in DISTS:
        python = _install_wheel(session, dist)
        frozen = session.run(
            *("python", "-m", "pip", "--python", python, "freeze"),
            *("--exclude", dist, "--exclude", "hsm-core"),
            silent=True,
        )
        lines.update(str(frozen).splitlines())
    listed.write_text("\n".join(sorted(lines)) + "\n", "utf-8")
    session.run(
        *("pip-audit", "--strict", "--no-deps", "--disable-pip"),
        *("--requirement", str(listed), *session.posargs),
    )


def _install_wheel(session: nox.Session, dist: str) -> str:
    """Install a built wheel, and what it requires, by itself; return that Python."""
    own, _ = _requirements(dist)
    wheels = [
        str(wheel)
        for name in own
        for wheel in WHEELS.glob(f"{name.replace('-', '_')}-*.whl")
    ]
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
    """Read and use what every release has stored, in files and in SQLite."""
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
def browser(session: nox.Session) -> None:
    """Use the console in the system's Chromium, and look for what no page may do."""
    _install(session, "test", "browser")
    session.run(
        *("pytest", "-o", "addopts=-ra --import-mode=importlib", *SIDE_BY_SIDE),
        *(f"--junit-xml={_report(session)}", "tests/browser", *session.posargs),
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

    Not part of CI, which lives through 500.
    """
    _install(session, "test")
    words = session.posargs or ("--seeds", "5000")
    session.run("python", "-m", "tests.simulation", *words)


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
    session.run("python", "-m", "tests.e2e.fuzz", *words)


@nox.session
def fuzz_long(session: nox.Session) -> None:
    """
    Do it with 20,000 requests at least, and 50,000 malformed ones.

    Takes most of an hour. Not part of CI, which runs a short form.
    """
    _install(session, "test", "fuzz")
    numbers = ("--least", "20000", "--max-examples", "250", "--malformed", "50000")
    session.run("python", "-m", "tests.e2e.fuzz", *numbers, *session.posargs)


@nox.session
def timing(session: nox.Session) -> None:
    """
    Measure whether a secret can be told by the time that a comparison takes.

    A million samples of each kind take a quarter of an hour on a machine that does
    nothing else. Not part of CI, whose machines are too restless.
    """
    _install(session, "test")
    words = session.posargs or ["--samples", "1000000"]
    session.run("python", "-m", "tests.timing", *words)


@nox.session
def faults(session: nox.Session) -> None:
    """
    Fail and kill every call of the disk, break the trail's place, cut the power.

    Takes most of an hour; needs root, strace, and loop devices. Not part of CI, which
    runs a short form of each.
    """
    _install(session, "test")
    session.run(
        *("pytest", "--timeout=3600", *(f"tests/{path}" for path in FAULTS)),
        env={"FERROHSM_FAULTS": "1", "FERROHSM_REQUIRE_SERVICES": "1"},
    )
    for words in (
        ("tests.faults.store_sweep",),
        ("tests.faults.histories", "--count", "100"),
        ("tests.faults.sink_trials", "--trials", "40"),
        ("tests.faults.powercut", "--images", "60"),
    ):
        session.run("python", "-m", *words)


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
    Measure goals P1 to P16 beside rivals; write docs/reference/benchmarks.md.

    After ``--`` may stand which rows to measure, as in ``-- P4 P5``: the page then
    stays as it is. Rivals in C need a compiler, OpenSSL's headers and SoftHSM2.
    """
    _install(session, "test")
    session.run("python", "-m", "tests.bench", *session.posargs)


@nox.session
def bench_more(session: nox.Session) -> None:
    """Measure stores, starts, pages of the console, and processes, one by one."""
    _install(session, "test", "bench")
    session.run(
        *("pytest", "--benchmark-columns=min,median,rounds", "-s", "--timeout=1200"),
        *("-o", "addopts=--import-mode=importlib", "-o", "python_files=bench_*.py"),
        *("tests/bench", *session.posargs),
    )


@nox.session
def kill(session: nox.Session) -> None:
    """Kill a busy server again and again; nothing acknowledged may be lost."""
    _install(session, "test")
    words = session.posargs or ("--kills", os.environ.get("FERROHSM_KILLS", "100"))
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


if __name__ == "__main__":
    sys.exit("Run this file with nox.")
