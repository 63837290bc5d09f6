"""The libraries of others, which a program that was started without site-packages has yet to find.

Containers start with `python -I -S`, in half the time; what compresses and fetches images comes
from site-packages, and is looked for when it is needed.
"""

from __future__ import annotations

import importlib
import os
import sys

from .runtime.errors import ContainerError


def load(name: str):
    """A module of others. Raises ContainerError when it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        pass
    find()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        hint = "./workshop setup, or: pip install 'minicontainer[images]'"
        raise ContainerError(f"{error.name} is not installed", hint=hint) from None


def find() -> None:
    """Let imports find what is installed: in the virtual environment, or in the system.

    A sealed interpreter is in no virtual environment: `-X prefix=DIR` says which one it came from.
    """
    if not sys.flags.no_site or "site" in sys.modules:
        return
    import site

    site.main()
    version = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    clone = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for prefix in (sys._xoptions.get("prefix"), f"{clone}/.venv"):
        if isinstance(prefix, str) and os.path.isdir(f"{prefix}/{version}"):
            site.addsitedir(f"{prefix}/{version}")
