"""The report's sentences: units, badges, the finding in each title, and the lecture's table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks import anchors
from benchmarks.report.analysis import Analysis, ArmResult
from benchmarks.statistics import Ratio, Summary

EMULATED = "emulated: not a KVM figure"


def duration(ms: float) -> str:
    """Three figures at most, in the unit that suits: 8.5 µs, 0.43 ms, 19.7 ms, 166 ms, 2.51 s."""
    if ms >= 999.5:
        return f"{figures(ms / 1000)} s"
    if ms < 0.0995:
        return f"{figures(ms * 1000, 2)} µs"
    return f"{figures(ms, 2 if ms < 1 else 3)} ms"


def figures(value: float, count: int = 3) -> str:
    """The number to so many significant figures, never as 1.2e+03."""
    text = f"{value:.{count}g}"
    return f"{float(text):.0f}" if "e+" in text else text


def amount(value: float, unit: str) -> str:
    """A value in its unit; milliseconds and MiB in the size that suits."""
    if unit == "ms":
        return duration(value)
    if unit == "MiB":
        return mebibytes(value)
    return f"{figures(value)} {unit}"


def mebibytes(value: float) -> str:
    """Three figures at most: 12 KiB, 4.31 MiB, 1.2 GiB."""
    if abs(value) >= 1023.5:
        return f"{figures(value / 1024)} GiB"
    if abs(value) < 0.0995:
        return f"{figures(value * 1024)} KiB"
    return f"{figures(value)} MiB"


def interval(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "no interval"
    if max(low, high) >= 999.5:
        return f"{figures(low / 1000)}–{figures(high / 1000)} s"
    return f"{figures(low)}–{figures(high)} ms"


def measured(summary: Summary) -> str:
    """Median, 95% interval and n of one arm."""
    return f"{duration(summary.median)} {spread(summary)}"


def spread(summary: Summary) -> str:
    """The 95% interval of the median and n."""
    return f"({interval(summary.low, summary.high)}; n={summary.n})"


def times(of: Ratio | None) -> str:
    if of is None:
        return "–"
    if of.low is None or of.high is None:
        return f"× {figures(of.value)} (n={of.n}, no interval)"
    return f"× {figures(of.value)} ({figures(of.low)}–{figures(of.high)}; n={of.n})"


def label(arm: ArmResult) -> str:
    """The arm's name with its accelerator badge."""
    return f"{arm.name} [{arm.accel}]" if arm.accel else arm.name


def noise(analysis: Analysis) -> str:
    """The A/A interval in words."""
    if analysis.a_a is None or analysis.noise_floor is None:
        return "no A/A interval: too few rounds; no difference is resolved"
    a_a, reach = analysis.a_a, analysis.noise_floor
    return (
        f"noise floor: ratios from × {1 / reach:.3g} to × {reach:.3g} are not resolved, because "
        f"{analysis.reference} against itself in {a_a.n} rounds is × {a_a.value:.3f} "
        f"({a_a.low:.3f}–{a_a.high:.3f})"
    )


def extent(analysis: Analysis) -> str:
    """How much was measured, and whether that was all."""
    if analysis.rounds >= analysis.planned:
        return f"{analysis.rounds} rounds"
    return f"{analysis.rounds} of {analysis.planned} planned rounds (stopped early)"


def guard(analysis: Analysis) -> str:
    """How many rounds were marked, and what that means for the table."""
    if not analysis.marked:
        return (
            f"No round of {analysis.rounds} broke the guard's rules: "
            "the analyses with and without marked rounds are the same."
        )
    return (
        f"{analysis.marked} of {analysis.rounds} rounds broke the guard's rules (other work on the "
        "machine) and are marked; the column “unmarked rounds only” leaves them out."
    )


def span(arms: list[ArmResult]) -> str:
    """'5.5 ms to 166 ms', from the fastest median to the slowest."""
    medians = sorted(arm.first.median for arm in arms)
    low, high = duration(medians[0]), duration(medians[-1])
    return low if low == high else f"{low} to {high}"


def guests(analysis: Analysis) -> list[ArmResult]:
    """The virtual machines that run a kernel; without any, the boot sectors (tier nano)."""
    machines = analysis.of_kind("vm")
    return [machine for machine in machines if machine.tier != "nano"] or machines


def start_title(analysis: Analysis) -> str:
    """The finding of the start-time figure."""
    parts = []
    containers, machines = analysis.of_kind("container"), guests(analysis)
    if containers:
        parts.append(f"a container runs its first instruction after {span(containers)}")
    for emulated, name in ((False, "a virtual machine"), (True, "an emulated virtual machine")):
        alike = [machine for machine in machines if machine.emulated == emulated]
        if alike:
            parts.append(f"{name} after {span(alike)}")
    if not parts:
        parts.append(f"a process runs its first instruction after {span(analysis.arms)}")
    sentence = ", ".join(parts)
    return sentence[0].upper() + sentence[1:]


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def environment(record: dict[str, Any]) -> list[tuple[str, str]]:
    """The environment record, readable: (name, value), without the long lists."""
    cpu = record["cpu"]
    lines = [("CPU", f"{cpu['model']}, {cpu['online']} online")]
    if record["hypervisor"]:
        lines.append(("this host runs on", record["hypervisor"]))
    accelerators = ", ".join(record["accelerators"]) or "none used"
    lines += [
        ("kernel", f"{record['kernel']} {record['kernel_version']} ({record['architecture']})"),
        ("distribution", record["distribution"]),
        ("memory", f"{record['memory_mib']} MiB"),
        ("accelerator of the virtual machines", accelerators),
        ("/dev/kvm", "present" if record["kvm_device"] else "absent"),
        ("cgroups", record["cgroups"]),
        ("privilege", f"{'root' if record['root'] else 'user'}, CapEff {record['capabilities']}"),
        ("clocksource", record["clocksource"]),
        ("CPU governor", record["governor"] or "not told"),
        ("transparent huge pages, KSM", f"{record['transparent_hugepages']}, {record['ksm']}"),
    ]
    vulnerable = [name for name, text in record["mitigations"].items() if "Vulnerable" in text]
    lines.append(("not mitigated", ", ".join(vulnerable) or "nothing"))
    lines += [(name, version) for name, version in record["tools"].items()]
    lines += [("python", record["python"]), ("source commit", record["source"] or "unknown")]
    return lines


@dataclass(frozen=True)
class Claim:
    """One row of the lecture's table."""

    claim: str
    measured: list[str]
    published: list[str]
    verdict: str


def residents(analysis: Analysis) -> list[str]:
    """What lives as long as a created, and as a running container, for each arm that looked. Of
    ours only the container's first process may.
    """
    lines = []
    for arm in analysis.arms:
        for state, found in (arm.params.get("residents") or {}).items():
            who = ", ".join(
                f"{one['program']} ({one['pss_kib'] / 1024:.1f} MiB"
                f"{'' if one['in_container'] else ', not in the container'})"
                for one in found
            )
            said = f"{arm.name}: a {state} container keeps alive: {who}"
            if arm.name.startswith("minicontainer-"):
                alone = len(found) == 1 and found[0]["in_container"]
                said = f"budget {'met' if alone else 'not met'}: {said}; allowed: its first process"
            lines.append(said)
    return lines


def claims(analysis: Analysis) -> list[Claim]:
    """The lecture's table, row by row: what it says, what we measured, what others did, the
    verdict.
    """
    published = anchors.starts()
    return [
        _container_claim(analysis, published),
        _vm_claim(analysis, published),
        Claim("Many containers run on a laptop", [], [], "not measured in this run"),
        Claim(
            "Images are built in layers; VM snapshots are used sparingly",
            [],
            [],
            "not measured in this run",
        ),
        Claim(
            "VMs are fully isolated, containers at process level",
            [],
            [],
            "not measured in this run",
        ),
    ]


def _lines(arms: list[ArmResult]) -> list[str]:
    return [
        f"{label(arm)}: {measured(arm.first)}{f' – {EMULATED}' if arm.emulated else ''}"
        for arm in arms
    ]


def _cited(published: list[anchors.Anchor], words: tuple[str, ...]) -> list[str]:
    return [
        f"{anchor.arm}: {duration(anchor.value)} ({anchor.cited})"
        for anchor in published
        if any(word in anchor.arm for word in words)
    ]


def _container_claim(analysis: Analysis, published: list[anchors.Anchor]) -> Claim:
    bound = anchors.claim("container startup")
    arms = analysis.of_kind("container")
    fast = [arm for arm in arms if arm.first.median <= bound]
    if not arms:
        verdict = "not measured: no container arm runs on this host"
    elif len(fast) == len(arms):
        verdict = f"holds: all {len(arms)} container arms stay below 1 s ({span(arms)})"
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
    return f"not minutes: {span(arms)} for {what}{how}" + ("" if "full" in tiers else f". {full}")


def _vm_claim(analysis: Analysis, published: list[anchors.Anchor]) -> Claim:
    bound = anchors.claim("VM startup")
    arms = analysis.of_kind("vm")
    slow = [arm for arm in arms if arm.first.median >= bound]
    if not arms:
        verdict = "not measured: no virtual machine arm runs on this host"
    elif slow:
        verdict = f"holds for {', '.join(label(arm) for arm in slow)} here"
    else:
        verdict = _not_minutes(guests(analysis))
    cited = _cited(
        published, ("Firecracker", "Cloud", "QEMU", "Alpine", "Lupine", "OSv", "LightVM")
    )
    return Claim("A virtual machine starts in minutes (60 s or more)", _lines(arms), cited, verdict)
