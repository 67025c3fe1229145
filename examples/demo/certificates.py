# SPDX-License-Identifier: MIT
"""Development certificates, made by openssl: an authority and the two it signs."""

from typing import Final

from stage import Stage

__all__ = ["make_certificates"]

_KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
_SERVER_NAMES: Final = "subjectAltName=DNS:localhost,IP:127.0.0.1"


def make_certificates(stage: Stage) -> None:
    """
    Make ``ca.pem``, ``server.pem`` and ``client.pem``, each with its ``-key.pem``.

    They are valid for a day, and their keys are readable by their owner alone.
    """
    for name in ("ca", "server", "client"):
        # openssl keeps the mode of a file that is there already.
        stage.write_private(f"{name}-key.pem", "")
    stage.run(
        *("openssl", "req", "-x509", *_KEY, "-days", "1"),
        *("-subj", "/CN=Demonstration CA", "-keyout", "ca-key.pem", "-out", "ca.pem"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        show=False,
    )
    _issue(stage, "server", "/CN=localhost", "serverAuth", _SERVER_NAMES)
    _issue(stage, "client", "/CN=Demonstration client", "clientAuth")


def _issue(stage: Stage, name: str, subject: str, purpose: str, *more: str) -> None:
    extensions = [
        "basicConstraints=critical,CA:FALSE",
        f"extendedKeyUsage={purpose}",
        *more,
    ]
    stage.run(
        *("openssl", "req", "-x509", *_KEY, "-days", "1", "-subj", subject),
        *("-CA", "ca.pem", "-CAkey", "ca-key.pem"),
        *(word for extension in extensions for word in ("-addext", extension)),
        *("-keyout", f"{name}-key.pem", "-out", f"{name}.pem"),
        show=False,
    )
