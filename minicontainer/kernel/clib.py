"""The C library's functions and C's types, of which `syscalls` makes system calls.

The C half of ctypes is enough for that. Importing all of ctypes costs a start more than 2 ms, a
tenth of it: dozens of classes, byte orders and function prototypes that nothing here uses.
`tests/test_kernel.py` holds these types against those of ctypes.
"""

from __future__ import annotations

import os
from _ctypes import (
    FUNCFLAG_CDECL,
    FUNCFLAG_PYTHONAPI,
    FUNCFLAG_USE_ERRNO,
    CFuncPtr,
    _SimpleCData,
    addressof,
    byref,
    dlopen,
    dlsym,
    get_errno,
    sizeof,
)

__all__ = [
    "INT", "LONG", "POINTER", "STRING", "UINT32", "UINT64", "ULONG", "addressof", "buffer", "byref",
    "function", "get_errno", "python_function", "raising", "sizeof", "view",
]  # fmt: skip


class INT(_SimpleCData):
    _type_ = "i"


class LONG(_SimpleCData):
    _type_ = "l"


class ULONG(_SimpleCData):
    _type_ = "L"


class UINT32(_SimpleCData):
    _type_ = "I"


class UINT64(_SimpleCData):
    _type_ = "Q"


class _CHAR(_SimpleCData):
    _type_ = "c"


class STRING(_SimpleCData):
    """`char *` of bytes, or NULL of None."""

    _type_ = "z"


class POINTER(_SimpleCData):
    """`void *` of an address, or NULL of None."""

    _type_ = "P"


class _Function(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = INT


class _PythonFunction(CFuncPtr):
    """Called without letting Python's lock go."""

    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO | FUNCFLAG_PYTHONAPI
    _restype_ = INT


_program = dlopen(None, 0)  # type: ignore[arg-type]  # the whole program, dlopen(3)


def function(name: str, *argtypes):
    """A function that returns an int. Raises OSError when there is none of that name."""
    found = _Function(dlsym(_program, name))
    found.argtypes = argtypes
    return found


def python_function(name: str):
    """One that other threads must not run beside: it forks, or is Python's own."""
    return _PythonFunction(dlsym(_program, name))


def raising(name: str, *argtypes):
    """A function that returns -1 and sets errno on failure, which becomes OSError(errno, name)."""
    called = function(name, *argtypes)

    def call(*args):
        result = called(*[os.fsencode(a) if isinstance(a, str) else a for a in args])
        if result == -1:
            raise OSError(get_errno(), name)
        return result

    return call


def buffer(content: bytes, size: int):
    """`char[size]` that begins with `content`."""
    return (_CHAR * size).from_buffer_copy(content.ljust(size, b"\0"))


def view(writable: bytearray):
    """`char[]` in the very memory of a bytearray."""
    return (_CHAR * len(writable)).from_buffer(writable)
