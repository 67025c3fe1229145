# SPDX-License-Identifier: MIT
"""Bindings of an agent connection to SSH sessions (session-bind@openssh.com)."""

from __future__ import annotations

from typing import Final

import msgspec

from hsm_cli.interfaces.ssh_agent.encoding import MalformedError, SSHReader
from hsm_cli.interfaces.ssh_agent.requests import Login, Signed
from hsm_cli.interfaces.ssh_agent.signatures import verify

_FORWARD: Final = "ssh-forward"
"""Tag of keys that forwarded connections may use."""

_MOST: Final = 16
"""Bindings of a connection, one for each host that forwards it."""


class _Binding(msgspec.Struct, frozen=True):
    host_key: bytes
    session_id: bytes
    is_forwarding: bool


class Bindings:
    """
    Sessions that a connection is bound to, from the first host to the last.

    A forwarded connection has a forwarding binding for each host on its way, and a
    last one for the host to log in to. A local connection has only the last one, or
    none if its client is old.
    """

    def __init__(self) -> None:
        self._bound: list[_Binding] = []
        self._is_broken = False

    @property
    def is_forwarded(self) -> bool:
        """Whether another host sends the requests of the connection."""
        return any(binding.is_forwarding for binding in self._bound)

    def may_see(self, tags: frozenset[str]) -> bool:
        """Return whether the connection may learn of a key with these tags."""
        return not self.is_forwarded or _FORWARD in tags

    def bind(self, reader: SSHReader) -> bool:
        """
        Read and add a binding; return whether it is valid.

        After an invalid one, `objection` refuses every signature of the connection.
        """
        try:
            host_key, session_id = reader.string(), reader.string()
            signature, is_forwarding = reader.string(), reader.boolean()
            reader.end()
        except MalformedError:
            self._is_broken = True
            return False
        found = _Binding(host_key, session_id, is_forwarding)
        if found in self._bound and not self._is_broken:
            return True
        if not self._may_follow(found) or not verify(host_key, signature, session_id):
            self._is_broken = True
            return False
        self._bound.append(found)
        return True

    def _may_follow(self, found: _Binding) -> bool:
        if len(self._bound) >= _MOST:
            return False
        known = any(found.session_id == one.session_id for one in self._bound)
        return not known and all(one.is_forwarding for one in self._bound)

    def objection(self, signed: Signed, tags: frozenset[str]) -> str:
        """
        Return why the connection may not have this signature; empty if it may.

        Args:
            signed: What is to be signed.

            tags: Tags of the key.
        """
        if self._is_broken:
            return "the connection had an invalid session binding"
        if not self.may_see(tags):
            return f"the agent is forwarded, and the key has no tag {_FORWARD}"
        if not isinstance(signed, Login) or not self._bound:
            return ""
        last = self._bound[-1]
        if last.is_forwarding or signed.session_id != last.session_id:
            return "the login is not for the session of the connection"
        if signed.host_key and signed.host_key != last.host_key:
            return "the login is not for the host of the connection"
        return ""
