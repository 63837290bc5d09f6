"""Where minicontainer keeps things outside a clone: what can be built again (cache), sockets
(runtime), images (data).

All follow the XDG base directory specification for an ordinary user and the FHS for root.
"""

import os


def cache_dir() -> str:
    """Directory of things that can be built again; `MINICONTAINER_CACHE` overrides it.

    Not created here: whoever writes first makes it.
    """
    override = os.environ.get("MINICONTAINER_CACHE")
    if override:
        return os.path.abspath(override)
    if os.geteuid() == 0:
        return "/var/cache/minicontainer"
    return os.path.join(_base("XDG_CACHE_HOME", "~/.cache"), "minicontainer")


def _in_user_namespace() -> bool:
    try:
        with open("/proc/self/uid_map") as uid_map:
            return uid_map.read().split() != ["0", "0", "4294967295"]
    except OSError:
        return False


def runtime_dir() -> str:
    """Directory of sockets and other things that do not outlive a boot; not created here.

    Who is root in a user namespace alone, as podman without root calls a runtime, cannot write to
    /run, and is the ordinary user that he is outside.
    """
    if os.geteuid() == 0 and (os.access("/run", os.W_OK) or not _in_user_namespace()):
        return "/run/minicontainer"
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and os.access(base, os.W_OK):
        return os.path.join(base, "minicontainer")
    return f"/tmp/minicontainer-{os.geteuid()}"


def data_dir() -> str:
    """Directory of what is kept until it is removed: images; `MINICONTAINER_DATA` overrides it."""
    override = os.environ.get("MINICONTAINER_DATA")
    if override:
        return os.path.abspath(override)
    if os.geteuid() == 0:
        return "/var/lib/minicontainer"
    return os.path.join(_base("XDG_DATA_HOME", "~/.local/share"), "minicontainer")


def _base(variable: str, otherwise: str) -> str:
    """The directory that is named there; a relative one is ignored, as the specification wants."""
    named = os.environ.get(variable, "")
    return named if os.path.isabs(named) else os.path.expanduser(otherwise)
