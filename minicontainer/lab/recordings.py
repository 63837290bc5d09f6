"""The workbench of a lesson: live where the machine can do it, else as another machine did it.

    bench = start("07")
    bench.run(replace, live=notes)
    bench.sh(serve, live=registry, name="push")

The recordings are in lessons/recorded/NN.json: name of a call -> its outcome. The environment
variable MINICONTAINER_RUNS says `record`: keep what is live; or `recorded`: show all from the
recordings, as a machine does that can do nothing of it. To renew them, as root, on one that can:

    sysctl vm.nr_hugepages=4    # for lesson 06; 0 afterwards
    MINICONTAINER_RUNS=record python -m minicontainer.lab.regenerate 06 07 08
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from .workbench import PACKAGE, Outcome, Workbench, WorkbenchError, explain, print_now

DIRECTORY = os.path.join(os.path.dirname(PACKAGE), "lessons", "recorded")
ALWAYS = object()


class LessonWorkbench(Workbench):
    """A workbench with recordings; a call is live unless it says otherwise.

    live  whether this machine can do it; when false, the recording is shown
    name  of the recording; that of a function's is the function's, with its arguments
    """

    def __init__(self, lesson: str) -> None:
        super().__init__()
        self._path = os.path.join(DIRECTORY, f"{lesson}.json")

    def sh(self, script: str, timeout: float = 20, live: object = ALWAYS, name: str = "") -> None:
        """As `Workbench.sh`."""
        outcome = self._outcome_of(
            name, live, print_now, lambda: self.shell(script, timeout, echo=print_now)
        )
        explain(outcome, timeout, of_script=True)

    def run(
        self, function: Callable, *args: object, timeout: float = 20,
        echo: Callable[[str], object] = print_now, live: object = ALWAYS,
    ) -> object:  # fmt: skip
        """As `Workbench.run`."""
        name = " ".join([function.__name__, *map(str, args)])
        outcome = self._outcome_of(
            name, live, echo, lambda: self.call(function, *args, timeout=timeout, echo=echo)
        )
        explain(outcome, timeout)
        return outcome.value

    def _outcome_of(
        self, name: str, live: object, echo: Callable[[str], object], run: Callable[[], Outcome]
    ) -> Outcome:
        """That of `run`, which tells its output to `echo`; or the recorded one, told to it here.

        Raises WorkbenchError when there is no such recording.
        """
        if live is ALWAYS:
            return run()
        mode, known = os.environ.get("MINICONTAINER_RUNS"), _load(self._path)
        if live and mode != "recorded":
            outcome = run()
            if mode == "record":
                _save(self._path, {**known, name: _told(outcome)})
            return outcome
        if name not in known:
            raise WorkbenchError(f"there is no recorded run of {name!r} in {self._path}")
        outcome = Outcome(**known[name])
        echo(outcome.output)
        return outcome


def _told(outcome: Outcome) -> dict:
    plain = vars(Outcome())
    return {key: value for key, value in vars(outcome).items() if value != plain[key]}


def _save(path: str, known: dict) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        json.dump(known, file, indent=1, sort_keys=True)
        file.write("\n")


def _load(path: str) -> dict:
    if not os.path.exists(path):
        return {}
    with open(path) as file:
        return json.load(file)
