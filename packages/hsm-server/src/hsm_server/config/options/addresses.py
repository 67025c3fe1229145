# SPDX-License-Identifier: MIT
"""Parser of listen addresses."""

from __future__ import annotations

import re
from typing import Final

import click

_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]\s]+)):([0-9]{1,5})\Z")


def parse_address(text: str) -> tuple[str, int]:
    """
    Return host and port.

    Raises:
        click.BadParameter: It has another form.
    """
    found = _ADDRESS.match(text)
    if found is None or int(found[3]) > 65535:
        raise click.BadParameter("must be HOST:PORT, or [IPV6]:PORT.")
    return found[1] or found[2], int(found[3])
