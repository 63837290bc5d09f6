"""`predict`, `check` and `hint`: what a notebook asks, and how it answers.

Each prints one or two lines and returns nothing, so that a cell shows the same on every host.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
import types
from collections.abc import Callable

from . import catalogue, progress_file
from .workbench import Workbench, WorkbenchError


def predict(number: str, answer: str | None) -> None:
    """Note a prediction: a letter, or None for none yet. What is right, the next cell shows."""
    catalogue.prediction(number)
    letters = ", ".join(catalogue.LETTERS)
    if answer is None:
        print(f"{number}: no prediction yet. Put one of {letters} in place of None, in quotes.")
    elif answer not in tuple(catalogue.LETTERS):
        print(f"{number}: {answer!r} is none of {letters}.")
    else:
        _record(number, lambda record: record["predictions"].update({number: answer}))
        print(f"{number}: {answer}, noted. The next cell shows what happens.")


def check(number: str) -> None:
    """Try the attendee's answer in a workbench of its own, and say what is missing."""
    exercise = catalogue.exercise(number)
    answer = vars(sys.modules["__main__"]).get(exercise.answer)
    if answer is None or not _attempted(answer):
        print(f"{number}: not attempted yet. Write {exercise.answer}, then run its cell again.")
        return
    try:
        print(f"{number}: {_verdict(number, exercise, answer)}")
    except WorkbenchError as error:
        print(f"{number}: could not be checked. {error}")


def _verdict(number: str, exercise: catalogue.Exercise, answer: object) -> str:
    if not isinstance(answer, types.FunctionType):
        return f"not yet. {exercise.answer} must be a function, not a {type(answer).__name__}."
    with Workbench() as bench:
        try:
            praise = exercise.check(bench, answer)
        except catalogue.NotYet as reason:
            return f"not yet. {reason}"
    _record(number, lambda record: record["passed"].append(number))
    return f"passed. {praise}"


def _attempted(answer: object) -> bool:
    """Whether a function has more in it than a docstring, `...` and `pass`."""
    if not isinstance(answer, types.FunctionType):
        return True
    try:
        function = ast.parse(textwrap.dedent(inspect.getsource(answer))).body[0]
    except (OSError, SyntaxError):
        return True
    return not all(
        isinstance(line, ast.Pass)
        or (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
        for line in getattr(function, "body", [])
    )


def hint(number: str) -> None:
    """Print the next hint; each one says more than the one before, none says it all."""
    hints = catalogue.exercise(number).hints
    shown = 0

    def count(record: dict) -> None:
        nonlocal shown
        shown = min(record["hints"].get(number, 0), len(hints) - 1)
        record["hints"][number] = shown + 1

    _record(number, count)
    print(f"{number}, hint {shown + 1} of {len(hints)}: {hints[shown]}")
    if shown + 1 == len(hints):
        print("That was the last one. A solution is folded below the exercise.")


def _record(number: str, change: Callable[[dict], object]) -> None:
    """Change the record of the number's lesson. An unwritable home does not stop a lesson."""
    known = progress_file.load()
    record = progress_file.of_lesson(known, number.partition(".")[0])
    change(record)
    record["passed"] = sorted(set(record["passed"]))
    progress_file.save(known)
