"""Runs in the workbench, and recorded ones for what a host can't do: the lesson says the same.

    runs = Runs("06", bench)
    seen = runs.run(oom, needs="memory")    # as bench.run; or what a host said that can

`why_not` tells for each controller why its runs are recorded ones. The recordings are JSON, in
lessons/recorded/. MINICONTAINER_RECORD=1 before `python -m minicontainer.lab.regenerate 06` renews
those of all that runs here (as root; `sysctl vm.nr_hugepages=4` before it, and 0 after).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable

from ..kernel.cgroups.location import PREFIX
from . import controllers
from .workbench import PACKAGE, Outcome, Workbench, WorkbenchError, _explain, _print

RECORDINGS = os.path.join(os.path.dirname(PACKAGE), "lessons", "recorded")


class Runs:
    """The runs of one lesson; which of them are live is asked once, at the first."""

    def __init__(self, lesson: str, bench: Workbench) -> None:
        self._bench = bench
        self._path = os.path.join(RECORDINGS, f"{lesson}.json")
        self._why_not = reasons(bench)

    def why_not(self, controller: str) -> str:
        """Why the runs with this controller are recorded ones; "" where they are live."""
        return self._why_not[controller]

    def run(
        self, function: Callable, *args: object, needs: str, echo: Callable[[str], object] = _print
    ) -> object:
        """Call a function in the workbench, print what it prints, return what it returns.

        needs  the controller without which a recorded run of it is shown
        echo   gets its output piece by piece, in place of printing it
        """
        name = " ".join([function.__name__, *map(str, args)])
        if self._why_not[needs]:
            outcome = Outcome(**_load(self._path)[name])
            echo(outcome.output)
        else:
            outcome = self._bench.call(function, *args, echo=echo)
            if os.environ.get("MINICONTAINER_RECORD"):
                _save(self._path, name, outcome)
        _explain(outcome, 20)
        return outcome.value


def reasons(bench: Workbench) -> dict[str, str]:
    """Controller -> why the workbench cannot have it on this host, or ""."""
    outcome = bench.call(controllers.why_not, *controllers.CONTROLLERS)
    if outcome.error:
        raise WorkbenchError(outcome.error)
    found = dict(outcome.value)  # type: ignore[call-overload]
    if not found["devices"]:
        found["devices"] = _why_no_device_filter(bench)
    return found


def _why_no_device_filter(bench: Workbench) -> str:
    """Only the host's root may filter devices, so the workbench has it done from outside."""
    bench.call(controllers.make_group, "try")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        bench.deny_devices(f"{PREFIX}try", "c 1:5 r")
    bench.call(controllers.remove_group, "try")
    return said.getvalue().strip()


def _load(path: str) -> dict:
    with open(path) as file:
        return json.load(file)


def _save(path: str, name: str, outcome: Outcome) -> None:
    known = _load(path) if os.path.exists(path) else {}
    fields = ("output", "value", "error", "where")
    known[name] = {field: getattr(outcome, field) for field in fields}
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        json.dump(known, file, indent=1, sort_keys=True)
        file.write("\n")
