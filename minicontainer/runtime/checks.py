"""Small checks from which the shape of a configuration is made: each takes (value, its name).

A check raises ValueError that names the field and says what is expected there. null is the same as
absent, as Go's encoders write it; fields that are not listed are ignored (config.md#extensibility).
"""

from __future__ import annotations

UINT32 = 2**32 - 1


def wrong(name: str, expected: str, value) -> ValueError:
    shown = repr(value)
    return ValueError(f"{name}: {expected} is expected, not {shown[:80]}")


def text(value, name: str) -> None:
    if not isinstance(value, str):
        raise wrong(name, "a text", value)
    if "\0" in value:
        raise ValueError(f"{name}: {value!r} contains a NUL byte")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name}: {value!r} is no valid Unicode") from None


def absolute(value, name: str) -> None:
    text(value, name)
    if not value.startswith("/"):
        raise wrong(name, "an absolute path", value)


def nonempty(value, name: str) -> None:
    text(value, name)
    if not value:
        raise wrong(name, "a text that is not empty", value)


def boolean(value, name: str) -> None:
    if not isinstance(value, bool):
        raise wrong(name, "true or false", value)


def number(low: int, high: int):
    def check(value, name: str) -> None:
        if type(value) is not int or not low <= value <= high:
            raise wrong(name, f"a whole number from {low} to {high}", value)

    return check


def one_of(*words: str):
    def check(value, name: str) -> None:
        if not isinstance(value, str) or value not in words:
            raise wrong(name, "one of " + ", ".join(words), value)

    return check


# The four below are classes, so that `explain` can ask them for their parts.


class items:
    """A list, each member of which passes `one`."""

    def __init__(self, one, least: int = 0) -> None:
        self.one, self.least = one, least

    def __call__(self, value, name: str) -> None:
        if not isinstance(value, list):
            raise wrong(name, "a list", value)
        if len(value) < self.least:
            raise ValueError(f"{name}: at least {self.least} is needed")
        for n, one in enumerate(value):
            self.one(one, f"{name}[{n}]")


class mapping:
    """An object with any keys, each value of which passes `one`."""

    def __init__(self, one) -> None:
        self.one = one

    def __call__(self, value, name: str) -> None:
        if not isinstance(value, dict):
            raise wrong(name, "an object", value)
        for key, one in value.items():
            text(key, f"{name} (a key)")
            self.one(one, f"{name}.{key}")


class fields:
    """An object with the members `known`. Those that are null are taken out."""

    def __init__(self, required: tuple[str, ...] = (), **known) -> None:
        self.required, self.known = required, known

    def __call__(self, value, name: str) -> None:
        if not isinstance(value, dict):
            raise wrong(name, "an object", value)
        for key in [key for key, one in value.items() if one is None]:
            del value[key]
        prefix = f"{name}." if name else ""
        for key in self.required:
            if key not in value:
                raise ValueError(f"{prefix}{key}: is required")
        for key, one in value.items():
            if key in self.known:
                self.known[key](one, prefix + key)


class refused:
    """A field that the spec has and this runtime has not: never ignored in silence."""

    def __init__(self, why: str) -> None:
        self.why = why

    def __call__(self, value, name: str) -> None:
        if value not in ("", [], {}):
            raise ValueError(f"{name}: not supported: {self.why}")
