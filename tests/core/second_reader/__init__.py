# SPDX-License-Identifier: MIT
"""
A second reader of the audit log, written from its published page alone.

It uses the standard library only, and nothing of the first one: not its code, its names
or its order of checks. Where the two disagree, one of them or the page is wrong.
"""

from tests.core.second_reader.cluster import read_cluster
from tests.core.second_reader.database import read_database
from tests.core.second_reader.files import read_files
from tests.core.second_reader.follower import Entry, Log
from tests.core.second_reader.keys import BadLogError

__all__ = ["BadLogError", "Entry", "Log", "read_cluster", "read_database", "read_files"]
