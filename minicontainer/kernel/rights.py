"""Descriptors given to another process, in a message over a Unix socket (SCM_RIGHTS, unix(7)).

On _socket, the C half: the module socket brings enum and selectors along, half a megabyte that a
process would carry through each of its forks.
"""

from __future__ import annotations

import _socket
import sys

TYPE_CHECKING = False  # as in typing, whose import would cost a start 3 ms
if TYPE_CHECKING:
    from collections.abc import Iterable

_SIZE = 4  # of an int


def send(connection: _socket.socket, message: bytes, fds: Iterable[int]) -> None:
    """One message with these descriptors. Raises OSError."""
    data = b"".join([fd.to_bytes(_SIZE, sys.byteorder) for fd in fds])
    connection.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, data)])


def receive(connection: _socket.socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """One message of at most `size` bytes, and at most `most` descriptors, which exec closes.

    The message is empty when the other side has closed. Raises OSError.
    """
    space = _socket.CMSG_SPACE(most * _SIZE)
    message, rights, _, _ = connection.recvmsg(size, space, _socket.MSG_CMSG_CLOEXEC)
    data = b"".join([data for _, kind, data in rights if kind == _socket.SCM_RIGHTS])
    ends = range(_SIZE, len(data) + 1, _SIZE)
    return message, [int.from_bytes(data[end - _SIZE : end], sys.byteorder) for end in ends]
