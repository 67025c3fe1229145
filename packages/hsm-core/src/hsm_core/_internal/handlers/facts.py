# SPDX-License-Identifier: MIT
"""UpdateKey: what is said of a key, and what a change of it must not get round."""

from __future__ import annotations

from typing import Any

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.handlers.base import OperationContext, Plan
from hsm_core._internal.handlers.new_keys import check_name
from hsm_core._internal.handlers.new_versions import KeyMutation
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.keyring.versions import check_living, with_versions
from hsm_core.errors import InvalidInputError


class UpdateKeyHandler(KeyMutation[ops.UpdateKey]):
    """Change name, description, owner and tags."""

    def resolve(
        self, operation: ops.UpdateKey, document: KeyDocument | None, /
    ) -> ops.UpdateKey:
        """Put the tags in order."""
        if operation.tags is None:
            return operation
        return msgspec.structs.replace(
            operation, tags=tuple(sorted(set(operation.tags)))
        )

    def prepare(self, subject: OperationContext[ops.UpdateKey], /) -> None:
        """Refuse a destroyed key, a change of nothing, and names that are not free."""
        operation, document = subject.operation, subject.key
        check_living(document)
        if not _changes(operation):
            raise InvalidInputError(
                "Pass at least one of name, description, owner and tags."
            )
        if operation.name and operation.name != document.name:
            check_name(operation.name)
            self._services.inventory.require_free(operation.name, document.key_id)

    def plan(self, subject: OperationContext[ops.UpdateKey], /) -> Plan:
        """Make the next generation, even if nothing differs."""
        document, now = subject.key, self._services.clock.now()
        after = with_versions(
            updated(document, subject.operation), document.versions, now
        )
        return Plan(after, document.current)


def updated(document: KeyDocument, operation: ops.UpdateKey) -> KeyDocument:
    """Return a document with the facts that an operation wants, else as it is."""
    return msgspec.structs.replace(document, **_changes(operation))


def _changes(operation: ops.UpdateKey) -> dict[str, Any]:
    wanted = {
        "name": operation.name,
        "description": operation.description,
        "owner": operation.owner,
        "tags": operation.tags,
    }
    return {name: value for name, value in wanted.items() if value is not None}
