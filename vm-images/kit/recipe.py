"""What a recipe is: the output's path, what it is made of, and the function that makes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kit.tools import Tools


class Failed(Exception):
    """An artifact that cannot be built: what failed, the tool's last words, and what to do."""

    def __init__(self, what: str, fix: str, words: list[str] | None = None) -> None:
        super().__init__(what)
        self.fix = fix
        self.words = words or []


@dataclass(frozen=True)
class Work:
    """What `make` gets. target: a path that does not exist yet, in a scratch directory of its own;
    output: path by name of each artifact that the recipe needs.
    """

    target: str
    scratch: str
    output: dict[str, str]
    tools: Tools


@dataclass(frozen=True)
class Recipe:
    """make(work) writes `work.target`, a file or a tree, and returns the versions of what it used.

    path: of the output, below the cache directory; also its name in the manifest.
    sources: files of this repository that it is made of. Their contents are inputs.
    facts: its other inputs, found in some milliseconds: versions of tools, environment variables.
    shared: it takes the network (and may take root), so an ordinary user copies root's, if that was
            made of the same inputs.
    opt_in: it is big: built only when its group is named, not with `all`.
    """

    path: str
    group: str
    make: Callable[[Work], dict[str, str]]
    sources: tuple[str, ...]
    needs: tuple[str, ...] = ()
    facts: Callable[[], dict[str, str]] = field(default=dict)
    shared: bool = False
    opt_in: bool = False
