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
        outcome = self._recorded(name, live, print_now)
        if outcome is None:
            outcome = self.shell(script, timeout, echo=print_now)
            self._record(name, live, outcome)
        explain(outcome, timeout, of_script=True)

    def run(
        self, function: Callable, *args: object, timeout: float = 20,
        echo: Callable[[str], object] = print_now, live: object = ALWAYS,
    ) -> object:  # fmt: skip
        """As `Workbench.run`."""
        name = " ".join([function.__name__, *map(str, args)])
        outcome = self._recorded(name, live, echo)
        if outcome is None:
            outcome = self.call(function, *args, timeout=timeout, echo=echo)
            self._record(name, live, outcome)
        explain(outcome, timeout)
        return outcome.value

    def _recorded(self, name: str, live: object, echo: Callable[[str], object]) -> Outcome | None:
        """What to show instead of a live run, its output told already; None when it is live.

        Raises WorkbenchError when there is no such recording.
        """
        if live is ALWAYS or (live and os.environ.get("MINICONTAINER_RUNS") != "recorded"):
            return None
        known = _load(self._path)
        if name not in known:
            raise WorkbenchError(f"there is no recorded run of {name!r} in {self._path}")
        outcome = Outcome(**known[name])
        echo(outcome.output)
        return outcome

    def _record(self, name: str, live: object, outcome: Outcome) -> None:
        if live is ALWAYS or os.environ.get("MINICONTAINER_RUNS") != "record":
            return
        known = _load(self._path)
        plain = vars(Outcome())
        known[name] = {key: told for key, told in vars(outcome).items() if told != plain[key]}
        os.makedirs(DIRECTORY, exist_ok=True)
        with open(self._path, "w") as file:
            json.dump(known, file, indent=1, sort_keys=True)
            file.write("\n")


def _load(path: str) -> dict:
    if not os.path.exists(path):
        return {}
    with open(path) as file:
        return json.load(file)
