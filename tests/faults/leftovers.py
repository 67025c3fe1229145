# SPDX-License-Identifier: MIT
"""Whether crashes have left files in a store that nobody will ever look for."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.faults.client import JournalingClient
from tests.faults.expectation import check


def check_files(
    key_dir: Path, clients: Iterable[JournalingClient], shared: Mapping[str, int]
) -> None:
    """
    Check that every file of a store at rest is accounted for.

    An attempt to make a version that was aborted may leave its blob under the next
    number: no document names it, and the next attempt takes its place.

    Args:
        key_dir: The store.

        clients: Whose keys must be there.

        shared: Number of versions of each shared key, by id.

    Raises:
        Violation: There is a file, or a key, that nobody asked for.
    """
    staged = list((key_dir / "staging").iterdir())
    check(not staged, "temporary files were left", staged)
    blobs = {key_id: range(1, count + 2) for key_id, count in shared.items()}
    for client in clients:
        for key in client.expected.keys.values():
            attempt = len(key.versions) + 1
            first = attempt if key.is_destroyed else 1
            blobs[key.key_id] = range(first, attempt + 1)
    for folder in (key_dir / "keys").iterdir():
        check(folder.name in blobs, "a key lies there that nobody made", folder)
        allowed = {"key.json", *(f"v{number:08d}" for number in blobs[folder.name])}
        left = {path.name for path in folder.iterdir()} - allowed
        check(not left, "files of a key were left", folder, left)
