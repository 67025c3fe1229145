# SPDX-License-Identifier: MIT
"""Contents of a retention policy's file that are no policy."""

from __future__ import annotations

from typing import Final

_BOMB: Final = b"tags: &a {x: 1}\noverrides: [*a, *a, *a]\n"

REFUSED: Final[dict[str, bytes]] = {
    "nothing": b"",
    "a comment alone": b"# later\n",
    "half a line": b"default_days: [",
    "no days": b"default_days: 0",
    "negative days": b"default_days: -1",
    "negative days of a tag": b"tags: {a: -30}",
    "too many days": b"default_days: 36501",
    "days that are none": b"default_days: soon",
    "a number in quotes": b'default_days: "30"',
    "part of a day": b"default_days: 1.5",
    "an empty value": b"default_days: 30\ntags:\n",
    "an unknown field": b"default_day: 30",
    "an unknown field of an override": b"overrides: [{key_id: a, day: 1, days: 2}]",
    "an override without key": b"overrides: [{days: 2}]",
    "an override without days": b"overrides: [{key_id: a}]",
    "version 0": b"overrides: [{key_id: a, version: 0, days: 2}]",
    "a repeated tag": b"tags:\n  a: 1\n  a: 2\n",
    "a repeated override of a version": (
        b"overrides: [{key_id: a, version: 1, days: 1},"
        b" {key_id: a, version: 1, days: 2}]"
    ),
    "huge days": b"default_days: " + b"9" * 400,
    "a repeated override": b"overrides: [{key_id: a, days: 1}, {key_id: a, days: 2}]",
    "a bomb": _BOMB,
    "a constructor": b"default_days: !!python/object/apply:os.getpid []",
    "two documents": b"default_days: 1\n---\ndefault_days: 2\n",
    "a list": b"- 1\n",
    "Latin 1": b"tags: {\xe4: 1}",
    "a long text": b"#" * 70_000,
}
"""By what is wrong with each; none of it is ever taken for a shorter window."""
