"""tar, read as a stream: what strangers pack layers in.

POSIX.1-2017 pax (https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html), GNU tar's
long names and sparse files, star's extended attributes, Version 7. Not the module tarfile: a layer
of 10,000 files costs it half a second, it has had holes (CVE-2024-6232, CVE-2025-8194), and the
Python that runs here is the distribution's, whatever its age.

Names are bytes: a tar says nothing about their encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .compression import Plain
from .errors import ImageError

BLOCK = 512
MAX_HEADER = 1 << 20  # bytes of a pax header or a long name
HEADER = struct.Struct("100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12s")
REGULAR, LINK, SYMLINK, CHAR, BLOCKDEV, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
XATTR = b"SCHILY.xattr."


class Entry:
    """One file of a tar.

    name     as it is in the tar, without slashes at the end
    kind     REGULAR, LINK (hard), SYMLINK, CHAR, BLOCKDEV, DIRECTORY or FIFO
    size     of the file in bytes, holes included
    stored   bytes of it in the tar
    extents  [(offset, length)] of what is stored, when the file is sparse
    mtime    nanoseconds since 1970
    xattrs   name -> value
    """

    __slots__ = (
        "extents", "gid", "kind", "link", "major", "minor", "mode", "mtime", "name", "size",
        "stored", "uid", "xattrs",
    )  # fmt: skip

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    stored: int
    mtime: int
    link: bytes
    major: int
    minor: int
    extents: list[tuple[int, int]] | None
    xattrs: dict[bytes, bytes]


def entries(stream: Plain) -> Iterator[Entry]:
    """The files of a tar; each one's `stored` bytes can be read from the stream, or be left.

    Raises ImageError that names the last entry before what is wrong.
    """
    last = b""
    try:
        shared: dict[bytes, bytes] = {}
        while entry := _next(stream, shared):
            last = entry.name
            end = stream.position + entry.stored
            padded = end + -entry.stored % BLOCK
            yield entry
            _skip(stream, padded - stream.position)
    except (ValueError, EOFError) as error:
        where = f"after {show(last)}" if last else "at its beginning"
        raise ImageError(f"{stream.name}: {where}: {error}") from None


def show(name: bytes) -> str:
    """A name as text for messages: no control characters, no lone surrogates."""
    return repr(name.decode("utf-8", "backslashreplace"))


def _next(stream: Plain, shared: dict[bytes, bytes]) -> Entry | None:
    records = dict(shared)
    long_name = long_link = None
    while header := stream.read(BLOCK):
        if len(header) < BLOCK:
            raise EOFError("cut short within a header")
        if not header.strip(b"\0"):
            after = stream.read(BLOCK)
            if after.strip(b"\0"):
                raise ValueError("a block of zeros, and then more")
            return None
        fields = HEADER.unpack(header)
        checksum = sum(header) - sum(fields[6]) + 256
        if _number(fields[6]) != checksum:
            raise ValueError("a header's checksum is wrong: damaged, or no tar")
        kind, size = fields[7], _number(fields[4])
        if kind in (b"x", b"g"):
            found = _pax(_content(stream, size))
            if kind == b"g":
                shared.update(found)
                found = [*shared.items()]
            records.update(found)
        elif kind == b"L":
            long_name = _content(stream, size).partition(b"\0")[0]
        elif kind == b"K":
            long_link = _content(stream, size).partition(b"\0")[0]
        else:
            entry = _entry(fields, records, long_name, long_link)
            _find_extents(stream, entry, header, records)
            return entry
    if len(records) > len(shared) or long_name or long_link:
        raise EOFError("cut short before the file that a header announced")
    return None


def _entry(fields, records: dict[bytes, bytes], long_name, long_link) -> Entry:
    entry = Entry()
    kind = fields[7]
    prefix = fields[15].partition(b"\0")[0] if fields[9] == b"ustar\0" else b""
    name = fields[0].partition(b"\0")[0]
    name = records.get(b"path", long_name or (prefix + b"/" + name if prefix else name))
    entry.link = records.get(b"linkpath", long_link or fields[8].partition(b"\0")[0])
    if b"\0" in name or b"\0" in entry.link:
        raise ValueError(f"{show(name)}: its name contains a NUL byte")
    entry.name = name.rstrip(b"/") if name.strip(b"/") else name[:1]
    if kind in (b"\0", b"7", b"S"):  # Version 7 and contiguous files; GNU's sparse files
        kind = DIRECTORY if kind == b"\0" and name.endswith(b"/") else REGULAR
    if kind not in b"0123456" or len(kind) != 1:
        raise ValueError(f"{show(name)}: entries of type {kind!r} are not supported")
    entry.kind = kind
    entry.mode = _number(fields[1]) & 0o7777
    entry.uid = _decimal(records[b"uid"]) if b"uid" in records else _number(fields[2])
    entry.gid = _decimal(records[b"gid"]) if b"gid" in records else _number(fields[3])
    size = _decimal(records[b"size"]) if b"size" in records else _number(fields[4])
    entry.size = entry.stored = size if kind == REGULAR else 0
    if size < 0 or not 0 <= entry.uid < 2**32 - 1 or not 0 <= entry.gid < 2**32 - 1:
        raise ValueError(f"{show(name)}: size {size}, owner {entry.uid}:{entry.gid}: out of range")
    entry.mtime = _time(records[b"mtime"]) if b"mtime" in records else _number(fields[5]) * 10**9
    entry.major, entry.minor = (
        (_number(fields[13]), _number(fields[14])) if kind in (CHAR, BLOCKDEV) else (0, 0)
    )
    entry.extents = None
    entry.xattrs = {
        key[len(XATTR) :]: value for key, value in records.items() if key.startswith(XATTR)
    } if records else {}  # fmt: skip
    return entry


# --- sparse files (https://www.gnu.org/software/tar/manual/html_node/Sparse-Formats.html) ---------


def _find_extents(stream: Plain, entry: Entry, header: bytes, records: dict) -> None:
    """Set `extents` and the real size and name of a sparse file: GNU's own form, or 1.0 of pax."""
    if header[156:157] == b"S":
        numbers = _old_map(stream, header)
        entry.size = _number(header[483:495])
    elif records.get(b"GNU.sparse.major") == b"1":
        numbers = _map_in_data(stream, entry)
    elif any(key.startswith(b"GNU.sparse.") for key in records):
        raise ValueError(f"{show(entry.name)}: sparse files of version 0 are not supported")
    else:
        return
    entry.name = records.get(b"GNU.sparse.name", entry.name)
    if b"GNU.sparse.realsize" in records:
        entry.size = _decimal(records[b"GNU.sparse.realsize"])
    entry.extents = list(zip(numbers[::2], numbers[1::2], strict=True))
    end = 0
    for offset, length in entry.extents:
        if offset < end or length < 0:
            raise ValueError(f"{show(entry.name)}: the map of its holes is wrong")
        end = offset + length
    if end > entry.size or sum(length for _, length in entry.extents) != entry.stored:
        raise ValueError(f"{show(entry.name)}: the map of its holes does not fit its size")


def _old_map(stream: Plain, header: bytes) -> list[int]:
    numbers, table, more = [], header[386:482], header[482]
    while True:
        for start in range(0, len(table), 24):
            if table[start : start + 24].strip(b"\0"):
                numbers += [_number(table[start : start + 12]), _number(table[start + 12 :][:12])]
        if not more:
            return numbers
        if len(numbers) > MAX_HEADER:
            raise ValueError("a sparse file has too many holes")
        block = _content(stream, BLOCK)
        table, more = block[:504], block[504]


def _map_in_data(stream: Plain, entry: Entry) -> list[int]:
    # Version 1.0: the data begins with decimal numbers, a line each, padded to whole blocks.
    text = b""
    wanted = 1
    while text.count(b"\n") < wanted:
        if len(text) > MAX_HEADER or entry.stored < BLOCK:
            raise ValueError("the map of a sparse file's holes is wrong")
        text += _content(stream, BLOCK)
        entry.stored -= BLOCK
        if b"\n" in text:
            wanted = 1 + 2 * _decimal(text.partition(b"\n")[0])
    return [_decimal(line) for line in text.split(b"\n")[1:wanted]]


# --- fields ---------------------------------------------------------------------------------------


def _content(stream: Plain, size: int) -> bytes:
    if not 0 <= size <= MAX_HEADER:
        raise ValueError(f"a header of {size} bytes; no more than {MAX_HEADER} are accepted")
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("cut short within a header")
    _skip(stream, -size % BLOCK)
    return data


def _skip(stream: Plain, size: int) -> None:
    for part in stream.pieces(size):
        size -= len(part)
    if size:
        raise EOFError("cut short")


def _number(field: bytes) -> int:
    """Octal digits; or GNU's: a first byte of 0x80 or 0xff, then big-endian binary."""
    if field[0] >= 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big") - (
            1 << 8 * len(field) - 1 if field[0] & 0x40 else 0
        )
    digits = field.strip(b" \0")
    if digits.strip(b"01234567"):
        raise ValueError(f"{field!r} is no octal number")
    return int(digits, 8) if digits else 0


def _decimal(field: bytes) -> int:
    if not field.isdigit() or len(field) > 20:
        raise ValueError(f"{field[:40]!r} is no number")
    return int(field)


def _time(field: bytes) -> int:
    """Seconds as a decimal fraction, perhaps negative -> nanoseconds."""
    whole, _, fraction = field.removeprefix(b"-").partition(b".")
    value = _decimal(whole) * 10**9 + (_decimal(fraction[:9].ljust(9, b"0")) if fraction else 0)
    return -value if field.startswith(b"-") else value


def _pax(data: bytes) -> list[tuple[bytes, bytes]]:
    """Records "LENGTH KEY=VALUE\\n", where LENGTH counts the whole record."""
    found, start = [], 0
    while start < len(data):
        space = data.find(b" ", start, start + 20)
        end = start + _decimal(data[start:space]) if space > 0 else 0
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end <= space or end > len(data) or data[end - 1 : end] != b"\n" or not equals:
            raise ValueError("a pax header is wrong")
        found.append((key, value))
        start = end
    return found
