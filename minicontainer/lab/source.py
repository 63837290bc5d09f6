"""The text of a notebook's function, with what it uses: what can be sent to another process.

A function written in a cell cannot be imported elsewhere, so its source goes: its own, that of the
functions it calls, an import for each name that comes from a module, a literal for plain data.
"""

from __future__ import annotations

import ast
import builtins
import dis
import inspect
import sys
import textwrap
import types
from collections.abc import Callable, Iterator


class NotSendable(Exception):
    """The function uses something that has no text; the message names it."""


def text_of(function: Callable) -> str:
    """Source that defines `function` and every global that it uses. Raises NotSendable."""
    parts: dict[str, str] = {}
    _add(function.__name__, function, parts)
    return "\n".join(["from __future__ import annotations", *parts.values(), ""])


def _add(name: str, value: object, parts: dict[str, str]) -> None:
    if name in parts:
        return
    if name in vars(builtins) and inspect.unwrap(value) is vars(builtins)[name]:  # type: ignore[arg-type]
        return  # a notebook's `open` is IPython's, around the real one
    imported = _import(name, value)
    if imported:
        parts[name] = imported
    elif isinstance(value, types.FunctionType):
        parts[name] = ""  # keeps a function that calls itself from coming twice
        text = _source(value)
        for used in _globals(value.__code__):
            if used in value.__globals__:
                _add(used, value.__globals__[used], parts)
        del parts[name]
        parts[name] = text  # below what it uses
    else:
        parts[name] = _literal(name, value)


def _source(function: types.FunctionType) -> str:
    if function.__name__ == "<lambda>":
        raise NotSendable("a lambda has no name: write it as a function, with def")
    if function.__code__.co_freevars:
        names = ", ".join(function.__code__.co_freevars)
        raise NotSendable(f"{function.__name__} uses {names} of the function around it: pass it")
    try:
        return textwrap.dedent(inspect.getsource(function))
    except OSError:
        raise NotSendable(
            f"the text of {function.__name__} is not known: run the cell that defines it again"
        ) from None


def _globals(code: types.CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals(constant)


def _import(name: str, value: object) -> str:
    """The import that gives this value its name, or "" for what comes from no module."""
    if isinstance(value, types.ModuleType):
        if not _is_inside(value.__name__):
            raise NotSendable(f"the module {value.__name__} is not installed in the workbench")
        return f"import {value.__name__} as {name}"
    if _is_literal(value):
        return ""
    home = getattr(value, "__module__", None) or ""
    homes = [home] if home in sys.modules else []
    homes += [module for module in sys.modules if module.startswith("minicontainer.kernel")]
    for module in filter(_is_inside, homes):
        for original, known in vars(sys.modules[module]).items():
            if known is value:
                return f"from {module} import {original} as {name}"
    return ""


def _is_inside(module: str) -> bool:
    """Whether the workbench's Python has it: the standard library and this package, no more."""
    first = module.partition(".")[0]
    return first == "minicontainer" or (first in sys.stdlib_module_names and first != "__main__")


def _literal(name: str, value: object) -> str:
    if not _is_literal(value):
        kind = type(value).__name__
        raise NotSendable(
            f"{name}, a {kind}, cannot be sent to the workbench: make it inside the function"
        )
    return f"{name} = {value!r}"


def _is_literal(value: object) -> bool:
    try:
        ast.literal_eval(repr(value))
    except (ValueError, SyntaxError):
        return False
    return True
