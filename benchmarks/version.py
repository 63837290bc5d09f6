"""What a tool says of itself, and the checksum of its file."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess


@functools.cache
def first_line(tool: str, *arguments: str) -> str:
    """First line of `tool --version` ('' when it is not installed or says nothing)."""
    try:
        said = subprocess.run(
            [tool, *(arguments or ("--version",))],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (said.stdout or said.stderr).strip().partition("\n")[0]


@functools.cache
def sha256(path: str) -> str:
    """Hex SHA-256 of a file; '' when there is none."""
    if not path or not os.path.isfile(path):
        return ""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
