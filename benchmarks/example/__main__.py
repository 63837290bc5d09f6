"""`python -m benchmarks.example RUN`: the example in this directory, made anew from a stored run.

report.md and its figures as they are, and starts.csv: the headline's raw values, from which
everything that report.md says of starts can be computed again.
"""

from __future__ import annotations

import os
import shutil
import sys

from benchmarks import tables
from benchmarks.budgets import FIRST
from benchmarks.report import write_report
from benchmarks.report.series import usable

HERE = os.path.dirname(os.path.abspath(__file__))
COLUMNS = ["arm", "accel", "round", "order", "rep", "contaminated", "value"]


def main(run: str, here: str = HERE) -> None:
    write_report(run)
    figures = os.path.join(run, "figures")
    for name in os.listdir(here):
        if name.endswith((".svg", ".md", ".csv")):
            os.unlink(os.path.join(here, name))
    for name in os.listdir(figures):
        shutil.copyfile(os.path.join(figures, name), os.path.join(here, name))
    with open(os.path.join(run, "report.md"), encoding="utf-8") as file:
        text = file.read().replace("](figures/", "](")
    with open(os.path.join(here, "report.md"), "w", encoding="utf-8") as file:
        file.write(text)
    rows = usable(tables.load(run))
    starts = rows[(rows.metric == FIRST) & (rows.cache_state == "warm")]
    starts[COLUMNS].to_csv(os.path.join(here, "starts.csv"), index=False)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m benchmarks.example RUN")
    main(sys.argv[1])
