"""The lecture's table, row by row: what it says, what we measured, what others published, and the
verdict.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import anchors
from benchmarks.report import facts_claims, sizes, units, words
from benchmarks.report.analysis import Analysis
from benchmarks.report.capacity import Curve
from benchmarks.report.claim import NOT_MEASURED, Claim
from benchmarks.report.comparison import BEYOND
from benchmarks.report.measures import Measured
from benchmarks.report.starts import ArmResult


def claims(analysis: Analysis) -> list[Claim]:
    """Every row, measured in this run or not."""
    published = anchors.starts()
    return [
        facts_claims.own_kernel(analysis),
        _container_start(analysis, published),
        _vm_start(analysis, published),
        _images(analysis),
        _density(analysis),
        facts_claims.isolation(analysis),
        facts_claims.own_root(analysis),
        facts_claims.own_address(analysis),
    ]


def _lines(arms: Sequence[ArmResult]) -> list[str]:
    return [
        _emulated(f"{units.label(arm)}: {units.measured(arm.first)}", arm.emulated) for arm in arms
    ]


def _emulated(line: str, emulated: bool) -> str:
    return f"{line} – {units.EMULATED}" if emulated else line


def _cited(published: list[anchors.Anchor], names: tuple[str, ...]) -> list[str]:
    return [
        f"{anchor.arm}: {units.duration(anchor.value)} ({anchor.cited}; {anchor.hardware})"
        for anchor in published
        if any(name in anchor.arm for name in names)
    ]


def _container_start(analysis: Analysis, published: list[anchors.Anchor]) -> Claim:
    bound = anchors.claim("container startup")
    arms = analysis.of_kind("container")
    fast = [arm for arm in arms if arm.first.median <= bound]
    if not arms:
        verdict = "not measured: this run timed no start of a container"
    elif len(fast) == len(arms):
        verdict = f"holds: all {len(arms)} container arms stay below 1 s ({words.span(arms)})"
    else:
        slow = ", ".join(arm.name for arm in arms if arm not in fast)
        verdict = f"holds for {len(fast)} of {len(arms)} container arms; not for {slow}"
    cited = _cited(published, ("crun", "runc", "runsc"))
    return Claim("A container starts in milliseconds (below 1 s)", _lines(arms), cited, verdict)


def _not_minutes(arms: list[ArmResult]) -> str:
    tiers = {arm.tier for arm in arms}
    what = "boot sectors without a kernel" if tiers == {"nano"} else "guests"
    if tiers <= {"micro", "direct"}:
        what = "guests trimmed to a kernel and one program"
    emulated = [arm for arm in arms if arm.emulated]
    how = "" if not emulated else " (emulated)" if emulated == arms else " (some emulated)"
    full = "A guest with firmware, disk and systemd (tier “full”) is not measured in this run"
    said = f"not minutes: {words.span(arms)} for {what}{how}"
    return said + ("" if "full" in tiers else f". {full}")


def _vm_start(analysis: Analysis, published: list[anchors.Anchor]) -> Claim:
    bound = anchors.claim("VM startup")
    arms = analysis.of_kind("vm")
    slow = [arm for arm in arms if arm.first.median >= bound]
    if not arms:
        verdict = "not measured: this run timed no start of a virtual machine"
    elif slow:
        verdict = f"holds for {', '.join(units.label(arm) for arm in slow)} here"
    else:
        verdict = _not_minutes(words.guests(analysis))
    names = ("Firecracker", "Cloud", "QEMU", "Alpine", "Lupine", "OSv", "LightVM")
    cited = _cited(published, names)
    return Claim("A virtual machine starts in minutes (60 s or more)", _lines(arms), cited, verdict)


def _images(analysis: Analysis) -> Claim:
    """Commit, clone and revert of a layer against those of a machine's disk."""
    said = "Images are built in layers; virtual machines' snapshots are used sparingly"
    found = [one for one in analysis.measured if one.key.group.bench == "images"]
    if not found:
        return Claim(said, [], [], NOT_MEASURED)
    arms: dict[str, list[Measured]] = {}
    for one in found:
        arms.setdefault(units.label(one), []).append(one)
    lines = [
        _emulated(f"{arm}: {', '.join(map(_named, of_arm))}", of_arm[0].emulated)
        for arm, of_arm in arms.items()
    ]
    return Claim(said, lines, [], _layers_against_disks(found))


def _named(one: Measured) -> str:
    return f"{one.key.group.metric.partition('.')[2]} {units.summed(one.summary, one.unit)}"


def _layers_against_disks(found: list[Measured]) -> str:
    """The best of each side by every metric that both have."""
    ratios: dict[str, float] = {}
    for metric in ("clone", "commit", "revert", "unique"):
        sides = [
            [one.summary.median for one in found if _is(one, kind, metric)]
            for kind in ("vm", "container")
        ]
        if all(sides) and min(sides[1]) > 0:
            ratios[metric] = min(sides[0]) / min(sides[1])
    if not ratios:
        return "open: this run measured one side only"
    told = ", ".join(f"{metric} × {units.figures(of)}" for metric, of in ratios.items())
    times = [of for metric, of in ratios.items() if metric != "unique"]
    word = "cost is a reason for some"
    if all(of > BEYOND for of in times):
        word = "cost is a reason"
    elif all(of < 1 / BEYOND for of in times):
        word = "cost is no reason here"
    emulated = any(one.emulated for one in found)
    said = f"{word}: the best of the machines' disks takes, of the best of the layers, {told}"
    return _emulated(said, emulated)


def _is(one: Measured, kind: str, metric: str) -> bool:
    return one.kind == kind and one.key.group.metric == f"images.{metric}"


def _density(analysis: Analysis) -> Claim:
    """How many ran at once, and what one costs the host."""
    said = "Many containers fit on a laptop, few virtual machines"
    lines = [sizes.density(one) for one in analysis.curves if one.starts]
    lines += sizes.footprint_lines(analysis.footprints)
    cited = [
        f"{anchor.arm}, {anchor.metric.partition('.')[2].replace('_', ' ')}: "
        f"{units.mebibytes(anchor.mebibytes)} ({anchor.cited})"
        for anchor in anchors.memory()
    ]
    container, machine = (_densest(analysis, kind) for kind in ("container", "vm"))
    if container is None:
        verdict = NOT_MEASURED if not lines else "open: memory is measured, numbers are not"
        return Claim(said, lines, cited if lines else [], verdict)
    verdict = f"{sizes.reached(container)} at once"
    if machine is None:
        return Claim(said, lines, cited, f"{verdict}; no virtual machines in this run")
    verdict += f", {sizes.reached(machine)}"
    more = container.reached > machine.reached
    verdict = f"{'holds' if more else 'does not hold'} here: {verdict}"
    return Claim(said, lines, cited, _emulated(verdict, machine.emulated))


def _densest(analysis: Analysis, kind: str) -> Curve | None:
    alike = [one for one in analysis.curves if one.kind == kind]
    return max(alike, key=lambda one: one.reached, default=None)
