"""The report's sentences: the finding in each title, and what is said about a run as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.anchors import Anchor
from benchmarks.report import units
from benchmarks.report.analysis import Analysis
from benchmarks.report.budgets import noise_budget
from benchmarks.report.measures import Measured
from benchmarks.report.series import Group
from benchmarks.report.starts import ArmResult


def noise(analysis: Analysis) -> str:
    """The A/A interval in words."""
    if analysis.a_a is None or analysis.noise_floor is None:
        return "no A/A interval: too few rounds; no difference is resolved"
    a_a, reach = analysis.a_a, analysis.noise_floor
    return (
        f"noise floor: ratios from × {1 / reach:.3g} to × {reach:.3g} are not resolved, because "
        f"{analysis.reference} against itself in {a_a.n} rounds is × {a_a.value:.3f} "
        f"({a_a.low:.3f}–{a_a.high:.3f}; budget ±5%: {noise_budget(a_a)})"
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


def span(arms: Sequence[ArmResult]) -> str:
    """'5.5 ms to 166 ms', from the fastest median to the slowest."""
    return units.between([arm.first.median for arm in arms], "ms")


def spans(arms: Sequence[ArmResult]) -> str:
    return units.by_kind([(arm.kind, arm.emulated, arm.first.median) for arm in arms], "ms")


def medians(found: Sequence[Measured]) -> str:
    unit = found[0].unit if found else ""
    return units.by_kind([(one.kind, one.emulated, one.summary.median) for one in found], unit)


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
    if not parts and not analysis.arms:
        kinds = sorted({one.key.group.bench for one in analysis.measured})
        for name, there in (
            ("memory", analysis.footprints),
            ("density", analysis.curves),
            ("isolation", analysis.facts),
        ):
            kinds += [name] if there else []
        parts.append(f"containers and virtual machines: {', '.join(kinds)}")
    elif not parts:
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


def published(anchor: Anchor) -> str:
    """A published figure in its unit."""
    if anchor.unit == "ms":
        return units.duration(anchor.value)
    return units.mebibytes(anchor.mebibytes)


def group_title(group: Group, found: Sequence[Measured]) -> str:
    """'stop.teardown: a container 5 ms to 9 ms, a virtual machine 80 ms'."""
    apart = [
        "cold page cache" if group.cache_state == "cold" else "",
        f"N={group.n_concurrent}" if group.n_concurrent != 1 else "",
    ]
    said = "".join(f" ({text})" for text in apart if text)
    return f"{group.metric}{said}: {medians(found)}"


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
