# SPDX-License-Identifier: MIT
"""Commands of ``hsm-server``, one module each."""
