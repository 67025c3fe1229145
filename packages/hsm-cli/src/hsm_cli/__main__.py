# SPDX-License-Identifier: MIT
"""Makes ``python -m hsm_cli`` the same as ``hsm-cli``."""

from hsm_cli.main import main

main()
