"""Which lessons there are, and what belongs to each: the modules `content/lesson_NN.py`.

Such a module has EXERCISES, number -> Exercise, and PREDICTIONS, number -> the right letter.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass

from .workbench import Workbench

LETTERS = "abc"


class NotYet(Exception):
    """An answer does not do yet what was asked; the message says what is missing."""


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    answer  the name that the attendee's function has in the notebook
    check   called with a fresh workbench and the function; looks at what the function does,
            raises NotYet; returns the sentence for an answer that passes
    hints   from a nudge to almost the way; never the answer
    """

    answer: str
    check: Callable[[Workbench, Callable], str]
    hints: tuple[str, ...]


def lessons() -> list[str]:
    """The numbers of all lessons that have something to check."""
    names = os.listdir(os.path.join(os.path.dirname(__file__), "content"))
    return sorted(name[7:9] for name in names if name.startswith("lesson_"))


def content(lesson: str):
    """The module of a lesson. Raises ValueError for a lesson that does not exist."""
    if lesson not in lessons():
        raise ValueError(f"there is no lesson {lesson!r}; there are: {', '.join(lessons())}")
    return importlib.import_module(f"{__package__}.content.lesson_{lesson}")


def exercise(number: str) -> Exercise:
    """The exercise of a number as "02.1". Raises ValueError."""
    return _find(number, "EXERCISES", "exercise")


def prediction(number: str) -> str:
    """The right letter of the prediction of a number as "02.a". Raises ValueError."""
    return _find(number, "PREDICTIONS", "prediction")


def _find(number: str, table: str, kind: str):
    known = getattr(content(number.partition(".")[0]), table)
    if number not in known:
        raise ValueError(f"there is no {kind} {number!r}; there are: {', '.join(known)}")
    return known[number]
