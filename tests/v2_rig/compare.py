"""Which tests pass on one layout of control groups only, and what the other says to them."""

from __future__ import annotations

import textwrap
from collections import defaultdict

Outcomes = dict[str, tuple[str, str]]  # a test's id -> (outcome, reason)


def only(first: Outcomes, second: Outcomes) -> dict[str, list[str]]:
    """What passes in `first` and not in `second`: why not -> ids. Of tests that both have."""
    found = defaultdict(list)
    for test, (outcome, _) in first.items():
        other, reason = second.get(test, ("passed", ""))
        if outcome == "passed" and other != "passed":
            found[reason or other].append(test)
    return dict(found)


def lines(title: str, found: dict[str, list[str]]) -> list[str]:
    """For people: each reason, the largest group first, and the tests' names, cases counted."""
    said = [f"{title}: {sum(map(len, found.values()))}"]
    for reason, tests in sorted(found.items(), key=lambda group: -len(group[1])):
        said.append(f"  {len(tests)} × {' '.join(reason.split())[:160]}")
        said += textwrap.wrap(_names(tests), 100, initial_indent="      ",
                              subsequent_indent="      ", break_long_words=False)  # fmt: skip
    return said


def _names(tests: list[str]) -> str:
    """'test_pty.py: test_size (3), test_signals; test_run.py: …'"""
    files: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for test in tests:
        file, _, name = test.partition("::")
        files[file.rpartition("/")[2]][name.partition("[")[0]] += 1
    return "; ".join(
        f"{file}: "
        + ", ".join(f"{name} ({count})" if count > 1 else name for name, count in names.items())
        for file, names in files.items()
    )
