# SPDX-License-Identifier: MIT
"""The post-quantum steps: hybrid encryption, and a signature that rests on hashes."""

import re
from typing import Final

from stage import Stage
from steps import OPERATOR, expect, result

__all__ = ["show_hybrid", "show_slh_dsa"]

_HYBRID: Final = "P-256 + ML-KEM-768"
_SLH_DSA: Final = "SLH-DSA-SHA2-128f"
_OPENSSL_WITH_SLH_DSA: Final = (3, 5)


def show_hybrid(stage: Stage) -> None:
    """Seal a message with nothing but a public key, and open it in the HSM."""
    transcript = stage.transcript
    transcript.step(f"Hybrid encryption: {_HYBRID}, sealed without the server")
    created = stage.run(
        *("hsm-cli", *OPERATOR, "create", _HYBRID, "--name", "mailbox", "--json"),
    )
    key = result(created)
    stage.run("hsm-cli", *OPERATOR, "public-key", "mailbox", "--out", "mailbox.pem")
    transcript.say("Whoever has the public key can seal; no server is asked:")
    message = "Both halves must be broken to read this.\n"
    stage.write_private("message.txt", message)
    stage.run(
        *("env", "-u", "FERROHSM_ENDPOINT", "hsm-cli", "seal", key["key_id"]),
        *("--public-key", "mailbox.pem", "--version", str(key["version"])),
        *("--in", "message.txt", "--out", "message.sealed"),
    )
    opened = stage.run(
        *("hsm-cli", *OPERATOR, "open", "mailbox", "--in", "message.sealed")
    )
    expect(opened.out == message, "the message should come out as it went in")
    transcript.good("opened by the HSM, which alone holds the private key")


def show_slh_dsa(stage: Stage, artefact: str) -> None:
    """Sign with SLH-DSA, or say what to install where nobody here can."""
    transcript = stage.transcript
    transcript.step(f"A signature that rests on hashes alone: {_SLH_DSA}")
    hint = _what_is_missing(stage)
    if hint:
        transcript.say(f"{_SLH_DSA} is not available on this machine. {hint}")
        return
    stage.run("hsm-cli", *OPERATOR, "create", _SLH_DSA, "--name", "firmware")
    words = ("--in", artefact)
    stage.run(
        *("hsm-cli", *OPERATOR, "sign", "firmware", *words, "--out", "firmware.sig")
    )
    stage.run(
        *("hsm-cli", *OPERATOR, "verify", "firmware", *words),
        *("--signature", "firmware.sig"),
    )
    if _version_of_openssl(stage) < _OPENSSL_WITH_SLH_DSA:
        transcript.say("This openssl is older than 3.5, and can't check it too.")
        return
    stage.run("hsm-cli", *OPERATOR, "public-key", "firmware", "--out", "firmware.pem")
    verified = stage.run(
        *("openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "firmware.pem"),
        *("-rawin", "-in", artefact, "-sigfile", "firmware.sig"),
    )
    expect("Verified Success" in verified.out, "openssl should verify the signature")


def _what_is_missing(stage: Stage) -> str:
    """Return what to install for SLH-DSA; empty if nothing is missing."""
    status = result(stage.run("hsm-cli", *OPERATOR, "status", "--json", show=False))
    for row in status["algorithms"]:
        if row["algorithm"] == _SLH_DSA:
            missing = row.get("hint") or f"It is {row['status']}."
            return "" if row["status"] == "available" else str(missing)
    return ""


def _version_of_openssl(stage: Stage) -> tuple[int, int]:
    told = stage.run("openssl", "version", show=False).out
    found = re.match(r"OpenSSL (\d+)\.(\d+)", told)
    return (int(found[1]), int(found[2])) if found else (0, 0)
