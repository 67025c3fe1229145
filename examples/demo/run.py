# SPDX-License-Identifier: MIT
"""
FerroHSM from the first key to a tampered one, on this machine, in well under a minute.

Starts a real hsm-server on loopback HTTPS with certificates and secrets made for the
occasion, and drives it with the real hsm-cli, in processes of their own. Everything
lies in a scratch directory that is removed at the end, however it ends.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Final

from stage import DemoError, Stage
from story import KEPT, prepare, show_tampering, show_use
from transcript import Transcript

__all__ = ["main"]

_INTERRUPTED: Final = 130
_OUTPUT_CLOSED: Final = 141


def main() -> int:
    """Run the demonstration; return 0 if every step went as it should."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").strip().splitlines()[0]
    )
    parser.add_argument(
        "--wheel",
        type=Path,
        help="the artefact to sign; by default the hsm-core wheel is built for it",
    )
    wheel: Path | None = parser.parse_args().wheel
    if wheel is not None and not wheel.is_file():
        parser.error(f"{wheel} is not a file.")
    transcript = Transcript(sys.stdout)
    transcript.title(
        "FerroHSM: keys, signatures, an audit trail, and what tampering does"
    )
    try:
        with Stage(transcript) as stage:
            artefact = prepare(stage, wheel.resolve() if wheel is not None else None)
            show_use(stage, artefact)
            show_tampering(stage, artefact)
            transcript.step("Clean up")
        transcript.good("the processes have ended, and the scratch directory is gone")
    except DemoError as error:
        transcript.bad(f"The demonstration failed in {transcript.step_name}: {error}")
        return 1
    except KeyboardInterrupt:
        transcript.bad("Interrupted; the scratch directory is gone.")
        return _INTERRUPTED
    except BrokenPipeError:
        # Nobody reads on. Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _OUTPUT_CLOSED
    transcript.say(f"{KEPT} All of this took {transcript.seconds:.0f} seconds.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
