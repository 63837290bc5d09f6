"""The table-driven command line."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.cli import COMMANDS, RUN_OPTIONS
from minicontainer.options import Option, UsageError, parse
from tests.roots import COMMAND

TABLE = [
    Option("--name", "-n", metavar="NAME", default="x"),
    Option("--env", "-e", metavar="K=V", default=[]),
    Option("--quiet", default=False),
    Option("--trace", metavar="[=text|json]"),
]


def test_spellings():
    values, rest = parse(["--name=a=b", "-e", "A=1", "--env", "B=2", "--quiet", "c", "-x"], TABLE)
    assert values == {"name": "a=b", "env": ["A=1", "B=2"], "quiet": True, "trace": None}
    assert rest == ["c", "-x"]
    assert parse(["--", "-n"], TABLE)[1] == ["-n"]
    assert parse(["--trace", "text"], TABLE) == (parse(["--trace"], TABLE)[0], ["text"])
    assert parse(["--trace=json"], TABLE)[0]["trace"] == "json"


def test_defaults_are_not_shared():
    parse(["-e", "A=1"], TABLE)
    assert parse([], TABLE)[0]["env"] == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--nam", "x"], "unknown option --nam; did you mean --name?"),
        (["-z"], "unknown option -z"),
        (["--name"], "option --name needs a value: -n, --name NAME"),
        (["--quiet=1"], "takes no value"),
    ],
)
def test_errors(words, says):
    with pytest.raises(UsageError, match=says.replace("?", r"\?")):
        parse(words, TABLE)


@given(st.lists(st.text(max_size=8), max_size=8))
def test_never_anything_but_a_usage_error(words):
    try:
        _, rest = parse(words, RUN_OPTIONS)
    except UsageError:
        return
    assert words[len(words) - len(rest) :] == rest  # what follows is handed on untouched


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_usage(command):
    for words in ([command, "--help"], ["help", command]):
        done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=True)
        assert done.stdout.startswith(f"usage: minicontainer {command}")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 125, "usage: minicontainer"),
        (["--help"], 0, "show the steps"),
        (["--version"], 0, "minicontainer 0."),
        (["rnu"], 125, "did you mean run?"),
        (["doctor", "x"], 125, "takes no arguments"),
    ],
)
def test_top_level(words, code, says):
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True)
    assert done.returncode == code
    assert says in done.stdout + done.stderr
