# SPDX-License-Identifier: MIT
"""``python -m hsm_server``."""

from hsm_server.main import main

if __name__ == "__main__":
    main(prog_name="hsm-server")
