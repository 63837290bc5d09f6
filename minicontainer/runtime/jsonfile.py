"""JSON, read and written without the module json: importing that costs a start 6 ms.

(It compiles regular expressions.) Its scanner in C does the work; only when a text is wrong, and
speed no longer matters, the module itself says where.
"""

from __future__ import annotations

import os

MAX_DEPTH = 100  # of nesting; a configuration has about eight levels


class _Rules:
    """What json.JSONDecoder tells the scanner."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_int = int
    parse_float = float
    memo: dict = {}

    @staticmethod
    def parse_constant(name: str):
        raise ValueError(f"{name} is not JSON")


def loads(text: str):
    """The value of a JSON text. Raises ValueError that says what is wrong, and where."""
    try:
        from _json import make_scanner

        value, end = make_scanner(_Rules)(  # type: ignore[arg-type]
            text, len(text) - len(text.lstrip(" \t\r\n"))
        )
        if not text[end:].strip(" \t\r\n"):
            return value
    except (StopIteration, ImportError, TypeError, SystemError):
        pass
    except RecursionError:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep") from None
    import json

    return json.loads(text, parse_constant=_Rules.parse_constant)


def dumps(value) -> str:
    """A value made of dict, list, str, int, bool and None as JSON."""
    if isinstance(value, dict):
        inner = [f"{_text(str(key))}:{dumps(one)}" for key, one in value.items()]
        return f"{{{','.join(inner)}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join([dumps(one) for one in value])}]"
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return repr(value)


def _text(value: str) -> str:
    from _json import encode_basestring_ascii

    return encode_basestring_ascii(value)


def read_file(path: str, limit: int = 1 << 24) -> str:
    """The text of a file. Raises OSError, and ValueError when it is no UTF-8 or over the limit."""
    # O_NONBLOCK: a fifo in the bundle must not hold us up
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        parts, size = [], 0
        while part := os.read(fd, 1 << 18):
            parts.append(part)
            size += len(part)
            if size > limit:
                raise ValueError(f"{path}: more than {limit} bytes")
    finally:
        os.close(fd)
    return b"".join(parts).decode()


def write_file(path: str, text: str, mode: int = 0o600) -> None:
    """Whole or not at all: written beside, then renamed over. After an OSError it is untouched."""
    beside = f"{path}.{os.getpid()}"
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        data = text.encode()
        try:
            while data:
                data = data[os.write(fd, data) :]
        finally:
            os.close(fd)
        os.rename(beside, path)
    except OSError:
        os.unlink(beside)
        raise
