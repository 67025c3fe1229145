# SPDX-License-Identifier: MIT
"""``python -m hsm_server``."""

from hsm_server.main import main

__all__: list[str] = []

if __name__ == "__main__":
    main(prog_name="hsm-server")
