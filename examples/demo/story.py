# SPDX-License-Identifier: MIT
"""What the demonstration shows, step by step."""

import base64
import secrets
import shutil
from pathlib import Path
from typing import Final

from certificates import make_certificates
from quantum import show_hybrid, show_slh_dsa
from stage import DemoError, Server, Stage
from steps import AUDITOR, OPERATOR, expect, result

__all__ = ["KEPT", "prepare", "show_tampering", "show_use"]

KEPT: Final = "Nothing was changed outside that directory."

_CORE: Final = Path(__file__).resolve().parents[2] / "packages" / "hsm-core"
_SECRETS: Final = {
    "master-key": "FERROHSM_MASTER_KEY",
    "hmac-key": "FERROHSM_HMAC_KEY",
    "jwt-secret": "FERROHSM_JWT_SECRET",
}
_DENIED: Final = 3
_MISMATCH: Final = 6
_TAMPERED: Final = 7
_NO_CONNECTION: Final = 9


def prepare(stage: Stage, wheel: Path | None) -> str:
    """Make certificates, secrets and the artefact; return the artefact's name."""
    transcript = stage.transcript
    transcript.step("Development certificates and secrets, in a scratch directory")
    make_certificates(stage)
    for name, variable in _SECRETS.items():
        # The commands get the name of a file, never the secret itself.
        secret = base64.b64encode(secrets.token_bytes(32)).decode()
        stage.write_private(f"secrets/{name}", secret + "\n")
        stage.environment[variable] = f"@secrets/{name}"
    stage.environment |= {
        "FERROHSM_CA_BUNDLE": "ca.pem",
        "FERROHSM_CLIENT_CERT": "client.pem",
        "FERROHSM_CLIENT_KEY": "client-key.pem",
        "COLUMNS": "88",
    }
    for name in sorted(stage.environment):
        if name.startswith("FERROHSM_"):
            transcript.say(f"{name}={stage.environment[name]}")
    transcript.say("Not in data/: a backup of it must not hold what opens its keys.")

    transcript.step("An artefact worth signing: the hsm-core wheel")
    if wheel is None:
        stage.run(
            *("python", "-m", "build", "--wheel", "--no-isolation", "--outdir", "."),
            str(_CORE),
            show=False,
        )
        (wheel,) = stage.folder.glob("hsm_core-*.whl")
    else:
        shutil.copy(wheel, stage.folder)
    size = wheel.stat().st_size
    transcript.good(f"{wheel.name}, {size} bytes")
    return wheel.name


def show_use(stage: Stage, artefact: str) -> None:
    """Create keys and use them, from start to stop of a server."""
    transcript = stage.transcript
    transcript.step("A server on loopback HTTPS that demands client certificates")
    server = _serve(stage, "data")
    stage.environment["FERROHSM_ENDPOINT"] = server.url.replace(
        "127.0.0.1", "localhost"
    )
    transcript.say(f"FERROHSM_ENDPOINT={stage.environment['FERROHSM_ENDPOINT']}")
    stage.run(
        *("env", "-u", "FERROHSM_CLIENT_CERT", "-u", "FERROHSM_CLIENT_KEY"),
        *("hsm-cli", *OPERATOR, "status"),
        status=_NO_CONNECTION,
    )
    transcript.good("without a client certificate there is no connection")
    _create_keys(stage)
    _sign(stage, artefact)
    _encrypt(stage)
    show_hybrid(stage)
    show_slh_dsa(stage, artefact)
    _audit(stage, artefact)

    transcript.step("Stop the server, and verify the trail without it")
    if (status := server.stop()) != 0:
        raise DemoError(f"The server ended with status {status} after SIGTERM.")
    transcript.good("SIGTERM: the server finished its work and ended with 0")
    stage.run("hsm-cli", "audit", "verify", "--audit-path", "data/audit.log")


def _serve(stage: Stage, folder: str) -> Server:
    return stage.serve(
        *("hsm-server", "--bind", "127.0.0.1:0"),
        *("--cert", "server.pem", "--key", "server-key.pem", "--client-ca", "ca.pem"),
        *("--key-dir", f"{folder}/keys", "--audit-log", f"{folder}/audit.log"),
        *("--log-level", "warning"),
    )


def _create_keys(stage: Stage) -> None:
    stage.transcript.step("Three keys")
    wanted = {"release": "EC-P256", "archive": "RSA-3072", "files": "AES-256-GCM"}
    for name, algorithm in wanted.items():
        stage.run("hsm-cli", *OPERATOR, "create", algorithm, "--name", name)
    stage.run("hsm-cli", *OPERATOR, "list")
    listed = result(stage.run("hsm-cli", *OPERATOR, "list", "--json", show=False))
    found = {key["name"]: key["algorithm"] for key in listed["items"]}
    expect(found == wanted, "these three keys should be listed")


def _sign(stage: Stage, artefact: str) -> None:
    transcript = stage.transcript
    transcript.step("Sign the wheel; openssl checks it against the exported public key")
    pss = ("-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest")
    for name, options in (("release", ()), ("archive", pss)):
        signature, public_key = f"{name}.sig", f"{name}.pem"
        stage.run(
            *("hsm-cli", *OPERATOR, "sign", name, "--in", artefact),
            *("--out", signature),
        )
        stage.run("hsm-cli", *OPERATOR, "public-key", name, "--out", public_key)
        verified = stage.run(
            *("openssl", "dgst", "-sha256", "-verify", public_key, *options),
            *("-signature", signature, artefact),
        )
        expect("Verified OK" in verified.out, "openssl should verify the signature")
    transcript.say("A signature of something else is refused:")
    stage.run(
        *("hsm-cli", *OPERATOR, "verify", "release", "--in", "ca.pem"),
        *("--signature", "release.sig"),
        status=_MISMATCH,
    )


def _encrypt(stage: Stage) -> None:
    transcript = stage.transcript
    transcript.step("Encrypt a file, rotate the key twice, decrypt the old ciphertext")
    plaintext = "The treasure is buried under the third oak.\n"
    stage.write_private("letter.txt", plaintext)
    stage.run(
        *("hsm-cli", *OPERATOR, "encrypt", "files", "--in", "letter.txt"),
        *("--out", "letter.enc"),
    )
    for _ in range(2):
        stage.run("hsm-cli", *OPERATOR, "rotate", "files")
    stage.run("hsm-cli", *OPERATOR, "versions", "files")
    decrypted = stage.run(
        "hsm-cli", *OPERATOR, "decrypt", "files", "--in", "letter.enc"
    )
    expect(decrypted.out == plaintext, "the letter should come out as it went in")
    transcript.good("the ciphertext names version 1, which still decrypts")


def _audit(stage: Stage, artefact: str) -> None:
    transcript = stage.transcript
    transcript.step("An auditor reads the trail, and may not sign")
    stage.run("hsm-cli", *AUDITOR, "audit", "events", "--limit", "8")
    stage.run(
        *("hsm-cli", *AUDITOR, "sign", "release", "--in", artefact),
        status=_DENIED,
    )
    events = result(
        stage.run(
            *("hsm-cli", *AUDITOR, "audit", "events", "--principal", "grace"),
            *("--kind", "Sign", "--json"),
            show=False,
        )
    )
    codes = [entry["event"]["code"] for entry in events["items"]]
    expect(codes == ["access_denied"], "the refusal should be in the trail")
    transcript.good("the refusal is in the trail too")


def show_tampering(stage: Stage, artefact: str) -> None:
    """Flip one byte in a copy of the trail, and one in a copy of a stored key."""
    _tamper_with_trail(stage)
    _tamper_with_key(stage, artefact)


def _tamper_with_trail(stage: Stage) -> None:
    transcript = stage.transcript
    transcript.step("Flip one byte in a copy of the audit log")
    shutil.copytree(stage.folder / "data", stage.folder / "forged")
    log = stage.folder / "forged" / "audit.log"
    record = 7
    data = log.read_bytes()
    entries = [line for line in data.splitlines() if line.startswith(b'{"format"')]
    member = b'"kind":"'
    line = entries[record]
    _flip(stage, log, data.index(line) + line.index(member) + len(member))
    transcript.say(f"Record {record} now tells of another operation.")
    found = stage.run(
        *("hsm-cli", "audit", "verify", "--audit-path", "forged/audit.log"),
        status=_TAMPERED,
    )
    expect(f"record {record}" in found.err, "the record should be named")
    transcript.good("detected, and the record is named")


def _tamper_with_key(stage: Stage, artefact: str) -> None:
    transcript = stage.transcript
    transcript.step("Flip one byte in a copy of a stored key")
    shutil.copytree(stage.folder / "data", stage.folder / "copy")
    key_id = _key_id(stage, "archive")
    blob = stage.folder / "copy" / "keys" / "keys" / key_id / "v00000001"
    _flip(stage, blob, blob.stat().st_size // 2)
    server = _serve(stage, "copy")
    stage.environment["FERROHSM_ENDPOINT"] = server.url.replace(
        "127.0.0.1", "localhost"
    )
    stage.run("hsm-cli", *OPERATOR, "list")
    listed = result(stage.run("hsm-cli", *OPERATOR, "list", "--json", show=False))
    marked = {key["key_id"]: key["integrity"] for key in listed["items"]}
    expected = dict.fromkeys(marked, "ok") | {key_id: "tampered"}
    expect(marked == expected, "that key alone should be listed as tampered")
    refused = stage.run(
        *("hsm-cli", *OPERATOR, "sign", key_id, "--in", artefact),
        status=_TAMPERED,
    )
    expect("tampered" in refused.err, "the reason should be told")
    stage.run(
        *("hsm-cli", *OPERATOR, "verify", "release", "--in", artefact),
        *("--signature", "release.sig"),
    )
    transcript.good("detected and named; the other keys go on working")
    if (status := server.stop()) != 0:
        raise DemoError(f"The second server ended with status {status} after SIGTERM.")


def _key_id(stage: Stage, name: str) -> str:
    """Find a key in the stored documents."""
    for document in (stage.folder / "copy" / "keys" / "keys").glob("*/key.json"):
        if f'"{name}"' in document.read_text(errors="replace"):
            return document.parent.name
    raise DemoError(f"The key {name} is not stored.")


def _flip(stage: Stage, path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    name = path.relative_to(stage.folder)
    stage.transcript.say(f"Byte {at} of {name}: {data[at] ^ 1:#04x} → {data[at]:#04x}")
