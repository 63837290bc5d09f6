"""What the tests know about each lesson: a module for each, with

BUILDS         the functions that the lesson builds, in one text, and the file of the package that
               has them
IGNORED_CELLS  how many cells show what depends on the machine. A new one is a decision, so it is
               counted; the cell after each asserts what counts
WRONG          exercise -> plausible wrong answers, and what the check must say about each
"""

from __future__ import annotations

import importlib


def of(lesson: str):
    """The module of a lesson, as "02"."""
    return importlib.import_module(f"{__name__}.lesson_{lesson}")
