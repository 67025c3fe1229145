# SPDX-License-Identifier: MIT
"""
Ask the server on this machine whether it can serve; exit with 0 if it can.

The certificate is for names that others reach it by, so it is not looked at; nothing is
sent that somebody else must not see. Where every client must show a certificate, it
is enough that the server is there to refuse this one.
"""

import http.client
import os
import ssl
import sys

SECONDS = 4.0


def is_healthy(port: int, *, demands_certificates: bool) -> bool:
    """Return whether the server on *port* says that it can serve."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(
        "127.0.0.1", port, timeout=SECONDS, context=context
    )
    try:
        connection.connect()
    except OSError:
        return False
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return demands_certificates
    finally:
        connection.close()


def main() -> int:
    """Return the exit status."""
    port = int(os.environ.get("FERROHSM_BIND", ":8443").rpartition(":")[2])
    demands = bool(os.environ.get("FERROHSM_CLIENT_CA"))
    return 0 if is_healthy(port, demands_certificates=demands) else 1


if __name__ == "__main__":
    sys.exit(main())
