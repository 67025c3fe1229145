# SPDX-License-Identifier: MIT
"""Where the bytes of a result go: to a file, or to standard output in some form."""

from __future__ import annotations

from hsm_cli.files import encode_base64, write_file
from hsm_cli.output import Output

__all__ = ["deliver"]


def deliver(
    output: Output,
    record: object,
    data: bytes,
    out: str | None,
    *,
    private: bool,
    text: str | None = None,
) -> None:
    """
    Give the result of a command to whom it is for.

    Args:
        output: Standard output.

        record: The whole result, printed where JSON is asked for.

        data: The bytes that it is about.

        out: File that gets *data*, ``-`` for standard output, or None.

        private: Whether *data* is nobody else's business: then its file has mode 0600,
            and it is not printed as well.

        text: What is printed for people; None means base64 of *data*.
    """
    if out == "-":
        output.data(data)
        return
    if out is not None:
        write_file(out, data, private=private)
        if output.json and not private:
            output.record(record, "")
        return
    output.record(record, encode_base64(data) if text is None else text)
