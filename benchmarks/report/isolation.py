"""What a process in each arm sees and reaches of its host: facts found by probes."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from benchmarks.report.series import usable


@dataclass(frozen=True)
class Answer:
    """One arm's answer to one fact: 0 or 1, or a count; and what was read to know it."""

    arm: str
    kind: str
    tier: str
    accel: str
    value: float
    seen: str


@dataclass(frozen=True)
class Fact:
    """name: the metric's last part. sentence: what is true where the value is 1. direction: higher
    where that is what isolates (an own kernel), lower where it is what is shared (the host's log).
    """

    name: str
    sentence: str
    how: str
    unit: str
    direction: str
    answers: dict[str, Answer]

    def of_kind(self, kind: str) -> list[Answer]:
        return [answer for answer in self.answers.values() if answer.kind == kind]

    def apart(self, answer: Answer) -> bool:
        """Whether this answer sets the arm apart from its host."""
        return bool(answer.value) == (self.direction == "higher")

    def said(self, arm: str) -> str:
        """The cell of a table: yes, no, or the count."""
        answer = self.answers.get(arm)
        if answer is None:
            return "–"
        if self.unit != "fact":
            return f"{answer.value:g}"
        return "yes" if answer.value else "no"


def facts(table: pd.DataFrame) -> list[Fact]:
    """Every fact that a probe of this run found, in the order of the probes. Of several answers of
    one arm the last counts.
    """
    rows = usable(table)
    rows = rows[rows.bench == "isolation"]
    found: dict[str, Fact] = {}
    for row in rows.itertuples():
        name = row.metric.partition(".")[2]
        params = row.params
        fact = found.setdefault(
            name, Fact(name, params["fact"], params["how"], row.unit, row.direction, {})
        )
        fact.answers[row.arm] = Answer(
            row.arm, row.kind, row.tier, row.accel, float(row.value), str(params["seen"])
        )
    return list(found.values())


def probed(found: list[Fact]) -> list[Answer]:
    """Each arm that answered anything, once: processes, containers, machines."""
    arms = {answer.arm: answer for fact in found for answer in fact.answers.values()}
    return sorted(arms.values(), key=lambda one: ("process", "container", "vm").index(one.kind))
