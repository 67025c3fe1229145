# SPDX-License-Identifier: MIT
"""What libraries have to say is a line of the log, without what they say it of."""

import json
import subprocess
import sys

PROGRAM = """
import logging, sys, warnings
from hsm_server.observability.logs import capture_foreign, make_logger
from hsm_server.config.settings import (LogFormat, LogLevel)
capture_foreign(make_logger(sys.stderr, LogLevel.INFO, LogFormat.JSON))
logging.getLogger("x").error("of %s", "somebody")
warnings.warn("of somebody")
"""


def test_warnings_are_lines_of_the_log() -> None:
    """Libraries warn of strange certificates, and anybody may show one."""
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", PROGRAM],
        check=True,
        capture_output=True,
        text=True,
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]

    assert ["x", "py.warnings"] == [line["library"] for line in lines]
    assert "somebody" not in done.stderr
