# SPDX-License-Identifier: MIT
"""The listener's TLS context: version 1.3 alone, replaced as a whole."""

from __future__ import annotations

import base64
import os
import ssl
import textwrap
from collections.abc import Iterable
from typing import Any

from hsm_server.exit_codes import ListenError
from hsm_server.sealed_memory import seal
from hsm_server.tls.state import ClientRules, ServerPair, TLSState

__all__ = ["ListenerContext"]


class ListenerContext(ssl.SSLContext):
    """
    Gives each connection the state that is in force when it begins.

    Standard:
        RFC 8446 (TLS 1.3); client certificates by RFC 5280, strictly.
    """

    _active: ssl.SSLContext

    def __new__(cls) -> ListenerContext:
        """Return a context without a state; it can't be used before `use`."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def use(self, state: TLSState) -> None:
        """
        Go by another state from the next connection on.

        Raises:
            ListenError: It can't be used; the former one stays in force.
        """
        try:
            self._active = _context(state)
        except (ssl.SSLError, OSError, ValueError):
            raise ListenError("OpenSSL refuses certificates or keys.") from None

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """Begin a connection; see `ssl.SSLContext.wrap_bio`."""
        return self._active.wrap_bio(*arguments, **options)


def _context(state: TLSState) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    # Each connection shows its certificate anew.
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    for pair in state.pairs:
        _load_pair(context, pair)
    if state.client is not None:
        _ask_clients(context, state.client)
    return context


def _load_pair(context: ssl.SSLContext, pair: ServerPair) -> None:
    pem = _pem("PRIVATE KEY", [pair.key]) + _pem("CERTIFICATE", pair.chain)
    descriptor = seal("ferrohsm-pair", pem)
    try:
        # It takes files alone, and this one is on no disk.
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _ask_clients(context: ssl.SSLContext, rules: ClientRules) -> None:
    for der in rules.authorities:
        context.load_verify_locations(cadata=der)
    context.verify_mode = ssl.CERT_REQUIRED if rules.is_required else ssl.CERT_OPTIONAL
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if rules.revocation_lists:
        descriptor = seal("ferrohsm-crls", _pem("X509 CRL", rules.revocation_lists))
        try:
            context.load_verify_locations(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN


def _pem(label: str, items: Iterable[bytes]) -> bytes:
    lines = []
    for der in items:
        body = textwrap.fill(base64.b64encode(der).decode(), 64)
        lines.append(f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    return "".join(lines).encode()
