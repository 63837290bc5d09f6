"""The rows of the lecture's table that are no matter of time: answered by probes."""

from __future__ import annotations

from benchmarks.report import units
from benchmarks.report.analysis import Analysis
from benchmarks.report.claim import NOT_MEASURED, Claim
from benchmarks.report.isolation import Answer, Fact

WHO = {"vm": "virtual machines", "container": "containers", "process": "processes"}

SOME = 6  # facts that a verdict names


def own_kernel(analysis: Analysis) -> Claim:
    said = "A virtual machine runs its own operating system; containers share the host's kernel"
    fact = analysis.fact("own_kernel")
    return _expected(said, fact, {"vm": True, "container": False})


def own_root(analysis: Analysis) -> Claim:
    said = "Each has its own root file system"
    return _expected(said, analysis.fact("own_root"), {"vm": True, "container": True})


def own_address(analysis: Analysis) -> Claim:
    """A network of its own, by probe; that it answers on an address there, by its first reply."""
    said = "Each has its own IP address"
    found = _expected(said, analysis.fact("own_network"), {"vm": True, "container": True})
    ready = [
        f"first reply, {one.key.label}: {units.measured(one.summary)}"
        + (f" – {units.EMULATED}" if one.emulated else "")
        for one in analysis.of_metric("start.ready_ip")
    ]
    replied = f"{len(ready)} replied on an address of their own" if ready else "no address asked"
    verdict = found.verdict if found.measured or not ready else "open: networks were not probed"
    if found.measured or ready:
        verdict = f"{verdict}; {replied}"
    return Claim(said, found.measured + ready, [], verdict)


def isolation(analysis: Analysis) -> Claim:
    """How many of the probes find each arm apart from its host."""
    said = "Virtual machines are fully isolated, containers at the level of processes"
    facts = [fact for fact in analysis.facts if fact.unit == "fact"]
    calls = [fact for fact in analysis.facts if fact.unit == "calls"]
    if not facts:
        return Claim(said, [], [], NOT_MEASURED)
    lines = [_probes(who, kind, facts) for kind, who in WHO.items() if _answers(facts, kind)]
    for fact in calls:
        said_of = fact.sentence.rstrip(".")
        lines += [
            f"{said_of}, {who}: {_range([answer.value for answer in fact.of_kind(kind)])}"
            for kind, who in WHO.items()
            if fact.of_kind(kind)
        ]
    shared = {
        kind: [fact for fact in facts if any(not fact.apart(a) for a in fact.of_kind(kind))]
        for kind in ("vm", "container")
    }
    if not all(_answers(facts, kind) for kind in shared):
        return Claim(said, lines, [], "open: this run probed only one side")
    ours, theirs = shared["container"], shared["vm"]
    if not theirs and ours:
        verdict = f"holds as far as probed: {_listed('do not set a container apart', ours)}, "
        verdict += "every one sets the machines apart"
    elif theirs:
        verdict = f"not fully: {_listed('do not set a virtual machine apart', theirs)}"
    else:
        verdict = "no probe tells the two apart"
    return Claim(said, lines, [], verdict)


def _expected(said: str, fact: Fact | None, expected: dict[str, bool]) -> Claim:
    """Holds when every arm of each kind answers as the lecture says."""
    if fact is None:
        return Claim(said, [], [], NOT_MEASURED)
    lines, against, open_ = [], [], []
    for kind, yes in expected.items():
        answers = fact.of_kind(kind)
        if not answers:
            open_.append(WHO[kind])
            continue
        agreeing = [answer for answer in answers if bool(answer.value)]
        seen = ", ".join(list(dict.fromkeys(answer.seen for answer in answers if answer.seen))[:2])
        lines.append(
            f"{WHO[kind]}: yes for {len(agreeing)} of {len(answers)} (read: {seen or 'nothing'})"
        )
        against += [answer for answer in answers if bool(answer.value) != yes]
    if against:
        names = ", ".join(_name(answer) for answer in against)
        verdict = f"not for {names}"
    else:
        verdict = f"holds for all {sum(len(fact.of_kind(kind)) for kind in expected)} arms"
    if open_:
        verdict = f"open: no {' and no '.join(open_)} in this run; {verdict}"
    return Claim(said, lines, [], verdict)


def _answers(facts: list[Fact], kind: str) -> list[Answer]:
    return [answer for fact in facts for answer in fact.of_kind(kind)]


def _probes(who: str, kind: str, facts: list[Fact]) -> str:
    """'containers: 7 to 11 of 14 probes find them apart from the host (9 arms)'."""
    arms: dict[str, list[bool]] = {}
    for fact in facts:
        for answer in fact.of_kind(kind):
            arms.setdefault(answer.arm, []).append(fact.apart(answer))
    apart = [sum(found) for found in arms.values()]
    asked = max(len(found) for found in arms.values())
    return f"{who}: {_range(apart)} of {asked} probes find them apart from the host (n={len(arms)})"


def _range(values: list[float] | list[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _listed(what: str, facts: list[Fact]) -> str:
    names = ", ".join(fact.name.replace("_", " ") for fact in facts[:SOME])
    more = f" and {len(facts) - SOME} more" if len(facts) > SOME else ""
    return f"{len(facts)} facts {what} ({names}{more})"


def _name(answer: Answer) -> str:
    return f"{answer.arm} [{answer.accel}]" if answer.accel else answer.arm
