# SPDX-License-Identifier: MIT
"""First certificate of the listener, before an ACME order."""

from __future__ import annotations

from datetime import datetime

from cryptography import x509

from hsm_core.errors import HSMError
from hsm_server.config.exit_codes import ListenError
from hsm_server.config.settings import ACMESettings
from hsm_server.tls.acme.cache import Cache
from hsm_server.tls.acme.self_signed import placeholder
from hsm_server.tls.client_certificates import UNREADABLE
from hsm_server.tls.state import ServerPair


def first_pair(settings: ACMESettings, now: datetime) -> ServerPair:
    """
    Return the certificate that is kept, else one that stands in for it.

    One for other names than asked for is better than none.

    Raises:
        ListenError: Nothing can be kept, or *authorities* can't be read.
        UnsafeFileModeError: What is kept is open to others.
    """
    _check_authorities(settings)
    cache = Cache(settings.cache, settings.directory)
    cache.prepare()
    stored = cache.certificate()
    if stored is not None:
        try:
            return stored.pair(now)
        except HSMError:
            # It has expired; the task orders another one, and says so.
            pass
    return placeholder(settings.names)


def _check_authorities(settings: ACMESettings) -> None:
    path = settings.authorities
    if path is None:
        return
    try:
        x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise ListenError(
            f"Cannot read the ACME CA bundle {path} ({error.strerror})."
        ) from None
    except UNREADABLE:
        raise ListenError(f"{path} contains no PEM certificates.") from None
