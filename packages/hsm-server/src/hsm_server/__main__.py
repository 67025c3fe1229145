# SPDX-License-Identifier: MIT
"""Entry point of ``python -m hsm_server``."""

from hsm_server.main import main

if __name__ == "__main__":
    main(prog_name="hsm-server")
