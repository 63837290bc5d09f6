"""Command line options as a table, from which parsing, `--help` and errors are made.

argparse does more, and costs each container start 5 ms: the time of the start itself.
"""

from __future__ import annotations


class UsageError(Exception):
    """The command line is wrong; the message says what, and what is near to it."""


class Option:
    """One option.

    flags    "--env", "-e": all spellings; the first one names the value
    metavar  the value's name in the help, "" for a switch, "[=WORD]" for one that may be left out
    help     what it does
    default  its value when absent; a list collects every occurrence
    """

    def __init__(self, *flags: str, metavar: str = "", help: str = "", default=None) -> None:
        self.flags = flags
        self.metavar = metavar
        self.help = help
        self.default = default
        self.key = flags[0].lstrip("-").replace("-", "_")

    def usage(self) -> str:
        joint = "" if self.metavar.startswith("[") or not self.metavar else " "
        return ", ".join(reversed(self.flags)) + joint + self.metavar


HELP = Option("--help", "-h", help="show this and exit", default=False)


def parse(
    argv: list[str], options: list[Option], mixed: bool = False
) -> tuple[dict, list[str]]:  # fmt: skip
    """Split argv into option values and the rest, which begins at the first word that is no option.

    Accepts `--name value`, `--name=value`, `-n value`, `-it` for `-i -t`, and `--`. Raises
    UsageError.
    mixed: options may come after other words, too.
    """
    known = {flag: option for option in options for flag in option.flags}
    values: dict = {
        option.key: list(option.default) if isinstance(option.default, list) else option.default
        for option in options
    }
    words, others = list(argv), []
    while words:
        word = words[0]
        if not word.startswith("-") or word == "-":
            if not mixed:
                break
            others.append(words.pop(0))
            continue
        words.pop(0)
        if word == "--":
            break
        flag, equals, value = word.partition("=")
        option = known.get(flag)
        if option is None and word[1] != "-" and all(f"-{letter}" in known for letter in word[1:]):
            words[:0] = [f"-{letter}" for letter in word[1:]]
            continue
        if option is None:
            raise UsageError(f"unknown option {flag}{_similar(flag, known)}")
        if option.metavar.startswith("["):
            values[option.key] = value if equals else True
        elif not option.metavar:
            if equals:
                raise UsageError(f"option {flag} takes no value")
            values[option.key] = True
        else:
            if not equals:
                if not words:
                    raise UsageError(f"option {flag} needs a value: {option.usage()}")
                value = words.pop(0)
            if isinstance(option.default, list):
                values[option.key].append(value)
            else:
                values[option.key] = value
    return values, others + words


def _similar(word: str, known) -> str:
    import difflib  # only when something is wrong already

    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def table(rows: list[tuple[str, str]]) -> str:
    """Two aligned columns, as in every help text."""
    width = max(len(left) for left, _ in rows) + 2
    return "\n".join(f"  {left:<{width}}{right}" for left, right in rows)


def describe(options: list[Option]) -> str:
    """The options' part of a help text."""
    return table([(option.usage(), option.help) for option in options])
