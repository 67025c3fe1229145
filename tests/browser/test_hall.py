# SPDX-License-Identifier: MIT
"""The browser shows the certificates that a test wants it to show."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Error

from tests.browser.hall import Hall


def test_certificates_are_shown(hall_of: Callable[..., Hall]) -> None:
    """
    Where a certificate is demanded, a browser with one is served, and one without not.
    """
    hall = hall_of("--client-auth", "required")
    own, none = hall.desk(certificate_of="olga"), hall.desk()

    own.open("/livez")
    with pytest.raises(Error, match="ERR_"):
        none.open("/livez")
