"""What of a build context is not for the image: .containerignore, .dockerignore.

The rules are docker's (moby/patternmatcher), not git's: a pattern is of the whole path, `**` also
crosses slashes, the last pattern that fits a path or a directory above it decides, `!` takes back.
"""

from __future__ import annotations

import posixpath
import re

from .errors import ImageError


class Ignore:
    """The patterns of a file; `name` is for messages. Raises ImageError that names the line."""

    def __init__(self, text: str = "", name: str = ".containerignore") -> None:
        self._rules: list[tuple[re.Pattern, bool]] = []
        self.has_exceptions = False
        for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
            pattern = line.strip()
            if not pattern or line.startswith("#"):
                continue
            exception = pattern.startswith("!")
            pattern = posixpath.normpath(pattern[exception:].strip()).lstrip("/")
            try:
                rule = re.compile(f"{translate(pattern)}(?:/.*)?", re.DOTALL)
            except re.error as error:
                raise ImageError(f"{name}:{number}: {line!a}: {error}") from None
            self._rules.append((rule, exception))
            self.has_exceptions |= exception

    def __call__(self, path: str) -> bool:
        """Whether a path, relative to the context, is ignored."""
        ignored = False
        for rule, exception in self._rules:
            if exception == ignored and rule.fullmatch(path):
                ignored = not exception
        return ignored


def translate(pattern: str) -> str:
    """A pattern of Go's filepath.Match, and `**`, as a regular expression."""
    found, at = "", 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*" and pattern[at : at + 1] == "*":
            at += 1
            slash = pattern[at : at + 1] == "/"
            at += slash
            found += ".*" if at == len(pattern) else "(?:.*/)?"
        elif char == "*":
            found += "[^/]*"
        elif char == "?":
            found += "[^/]"
        elif char == "[":
            end = pattern.find("]", at + 1)
            if end < 0:
                raise re.error("[ without its end")
            negated = pattern[at] == "^"
            members = re.sub(r"([^\w-])", r"\\\1", pattern[at + negated : end])
            members = members.replace("--", "-\\-")
            found += f"[{'^/' * negated}{members}]"
            at = end + 1
        elif char == "\\":
            if at == len(pattern):
                raise re.error("\\ at the end")
            found += re.escape(pattern[at])
            at += 1
        else:
            found += re.escape(char)
    return found
