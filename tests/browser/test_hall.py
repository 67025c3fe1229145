# SPDX-License-Identifier: MIT
"""Client certificates of test browsers."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Error

from tests.browser.hall import Hall


def test_certificates_are_shown(hall_of: Callable[..., Hall]) -> None:
    """
    A server that requires client certificates serves only browsers with one.
    """
    hall = hall_of("--client-auth", "required")
    own, none = hall.desk(certificate_of="olga"), hall.desk()

    own.open("/livez")
    with pytest.raises(Error, match="ERR_"):
        none.open("/livez")
