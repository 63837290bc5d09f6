"""What the report says of a run whose truth is known, and how it looks in a browser."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks import anchors, results
from benchmarks.report import units, words, write_report
from benchmarks.report.analysis import analyse
from benchmarks.report.budgets import Budget
from benchmarks.report.claims import claims as lecture
from benchmarks.report.html import unbroken
from benchmarks.rows import Where
from benchmarks.statistics import Ratio
from tests.bench_fakes import BUSY, QUIET, FakeArm, write_run
from tests.report_fakes import MICRO, NANO, Writer, arms, every_bench, full_run, machines


def test_titles_never_mix_kvm_with_emulation(tmp_path):
    kvm = FakeArm("vm-direct:busybox", 400, kind="vm", tier="direct", accel="kvm (nested)")
    emulated = FakeArm("vm-micro:busybox", 2300, **MICRO)
    others = (FakeArm("vm-nano", 60, **NANO), emulated, kvm)
    found = analyse(write_run(tmp_path, [FakeArm("runc:busybox", 20), *others], 6))
    assert words.start_title(found) == (
        "A container runs its first instruction after 20 ms, a virtual machine after 400 ms, "
        "an emulated virtual machine after 2.3 s"
    )
    machines = lecture(found)[2]
    assert machines.verdict.startswith("not minutes: 400 ms to 2.3 s for guests trimmed to")
    assert "(some emulated)" in machines.verdict
    assert "tier “full”) is not measured" in machines.verdict


def test_a_boot_sector_is_no_virtual_machine_with_a_kernel(tmp_path):
    found = analyse(write_run(tmp_path, arms(machines()[0]), 6))
    assert "boot sectors without a kernel" in lecture(found)[2].verdict


def test_every_emulated_figure_is_labelled(tmp_path):
    written = write_report(write_run(tmp_path, arms(*machines()), 6))
    assert "[tcg] is emulated: not a KVM figure" in written.text
    for name in ("report.md", "figures/start_times.svg", "figures/waterfall.svg"):
        text = (tmp_path / name).read_text()
        assert "emulated: not a KVM figure" in text or "vm-nano" in text, name
    for line in (tmp_path / "report.md").read_text().splitlines():
        if line.startswith("| vm-micro"):
            assert "[tcg]" in line
            assert "not a KVM figure" in line
    claims = lecture(written.analysis)[2].measured
    assert [("emulated" in line) for line in claims] == [False, True]


def test_the_lectures_claims(tmp_path):
    slow = FakeArm("docker:busybox", 1500)
    full = FakeArm("vm-full:debian", 70_000, kind="vm", tier="full", accel="kvm")
    claims = lecture(analyse(write_run(tmp_path, arms(slow, full), 6)))
    containers, machines = claims[1:3]
    assert containers.verdict == "holds for 3 of 4 container arms; not for docker:busybox"
    assert machines.verdict == "holds for vm-full:debian [kvm] here"
    others = [claims[0], *claims[3:]]
    assert {claim.verdict for claim in others} == {"not measured in this run"}
    assert len(claims) == 8


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A report with every benchmark: (what was written, its directory)."""
    directory = tmp_path_factory.mktemp("full")
    return write_report(full_run(directory)), directory


def test_every_row_of_the_lectures_table_is_fed(full):
    verdicts = [claim.verdict for claim in lecture(full[0].analysis)]
    kernel, containers, vms, images, number, isolation, root, address = verdicts
    assert kernel == root == "holds for all 3 arms"
    assert address == "holds for all 3 arms; 3 replied on an address of their own"
    assert containers.startswith("holds: all 3 container arms")
    assert vms.startswith("not minutes: 2.3 s")
    assert re.fullmatch(
        r"cost is a reason: the best of the machines' disks takes, of the best of the layers, "
        r"clone × (9|10|11).*, commit × (9|10|11).*, revert × (9|10|11).*, unique × 1\d.*"
        r" – emulated: not a KVM figure",
        images,
    )
    assert number.startswith("holds here: 1000 × runc:busybox at once, 20 × vm-micro:busybox [tcg]")
    assert isolation == (
        "holds as far as probed: 3 facts do not set a container apart (own kernel, host cpu model, "
        "host load), every one sets the machines apart"
    )
    for claim in lecture(full[0].analysis):
        assert claim.measured, claim.claim
        for line in claim.measured:
            assert ("tcg" in line) == (units.EMULATED in line) or "read:" in line, line


def test_a_probe_that_contradicts_the_lecture_is_named(tmp_path):
    directory = write_run(tmp_path, arms(), 6)
    write, where = Writer(), Where(1, 0, 0)
    for arm, value in ((FakeArm("runc:busybox"), 0), (FakeArm("lxc:debian"), 1)):
        row = write.row(
            arm, where, "isolation", "isolation.own_kernel", value, unit="fact",
            params={"fact": "a kernel of its own", "how": "uname", "seen": "6.1"},
        )  # fmt: skip
        results.append(directory, [row])
    verdict = lecture(analyse(directory))[0].verdict
    assert verdict == "open: no virtual machines in this run; not for lxc:debian"


def test_a_run_without_starts_has_a_report(tmp_path):
    directory = write_run(tmp_path, [FakeArm("runc:busybox", 20)], 1)
    rows = Writer().rounds(FakeArm("runc:busybox"), "stop", "stop.teardown", 12.0)
    (tmp_path / results.SAMPLES).write_text("")
    results.append(directory, list(rows))
    written = write_report(directory)
    assert "containers and virtual machines: stop" in written.text.lower()
    assert written.analysis.of_metric("stop.teardown")[0].summary.n == 12
    assert "stop.teardown" in (tmp_path / "report.md").read_text()


def test_cold_and_warm_are_never_mixed(full):
    found = full[0].analysis
    warm, cold = ({arm.name: arm.first.median for arm in arms} for arms in (found.arms, found.cold))
    assert warm["runc:busybox"] == pytest.approx(20, rel=0.02)
    assert cold["runc:busybox"] == pytest.approx(80, rel=0.05)
    assert found.arm("runc:busybox").first.n == 12


def test_every_emulated_line_of_the_whole_report_is_labelled(full):
    for line in (full[1] / "report.md").read_text().splitlines():
        if line.startswith("| vm-micro"):
            assert units.EMULATED in line, line
    figures = {path.stem: path.read_text() for path in (full[1] / "figures").glob("*.svg")}
    assert set(figures) == {
        "start_times", "waterfall", "ecdf", "forest", "cold_times", "ready_times", "stop_times",
        "memory", "density", "drift",
    }  # fmt: skip
    for line in full[0].text.splitlines():
        if line.startswith("density: vm-") or "best of the machines' disks" in line:
            assert units.EMULATED in line
    record = full[0].record()
    assert {arm["arm"]: arm["emulated"] for arm in record["arms"]}["vm-micro:busybox"] is True


def test_the_record_for_programs_has_every_benchmark(full):
    record = json.loads(json.dumps(full[0].record()))
    assert record["density"][0]["reached"] == 1000
    assert record["density"][0]["extrapolated"] > 1000
    assert {one["metric"] for one in record["measured"]} >= {"start.ready_ip", "images.commit"}
    assert record["memory"][0]["mib"]["pss"] == pytest.approx(1.5, rel=0.05)
    assert {fact["fact"] for fact in record["isolation"]} >= {"own_kernel", "own_root"}
    assert record["cold"][0]["arm"] == "runc:busybox"
    assert record["claims"][0]["verdict"] == "holds for all 3 arms"


def test_without_machines_the_claim_is_open(tmp_path):
    machines = lecture(analyse(write_run(tmp_path, arms(), 6)))[2]
    assert machines.verdict == "not measured: this run timed no start of a virtual machine"


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.8, 0.95, "met"), (0.8, 1.1, "not resolved"), (1.1, 1.3, "not met"), (None, None, None)],
)
def test_a_budget_is_met_by_the_whole_interval(low, high, said):
    assert Budget("a", 1.0, "b", Ratio(9, 0.9, low, high)).verdict == (said or "not resolved")


def test_the_drivers_cost_is_held_against_createxml(full):
    said = {(b.arm, b.against): b for b in full[0].analysis.budgets if b.limit == 1.05}
    assert set(said) == {("create-by-driver", "create-by-createXML")}
    assert said["create-by-driver", "create-by-createXML"].ratio.value == pytest.approx(1.03, 0.01)
    lines = {one.name: one for one in full[0].analysis.of_metric("libvirt.create")}
    assert lines["create-by-QEMU"].verdict == "reference"
    assert lines["create-by-createXML"].ratio.value == pytest.approx(100 / 90, 0.01)


def test_a_run_without_starts_has_an_a_a_too(tmp_path):
    write_run(tmp_path, arms(), 12)
    path = tmp_path / "samples.jsonl"
    rows = every_bench(Writer())
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if row["bench"] == "stop"))
    assert analyse(str(tmp_path)).a_a.n == 12


def test_budgets_compare_whole_processes(tmp_path):
    budgets = analyse(write_run(tmp_path, arms(), 10)).budgets
    found = {(budget.arm, budget.against): budget for budget in budgets}
    # The fakes end 1 ms after their first instruction.
    cli = found["minicontainer-cli:busybox", "runc:busybox"]
    assert cli.ratio.value == pytest.approx(16 / 21, rel=0.03)
    assert found["minicontainer-library:busybox", "runc:busybox"].verdict == "met"


def test_too_few_rounds_resolve_nothing(tmp_path):
    written = write_report(write_run(tmp_path, arms(), 4))
    assert written.analysis.noise_floor is None
    assert {arm.verdict for arm in written.analysis.arms} == {"not resolved", "reference"}
    assert "too few rounds; no difference is resolved" in written.text
    assert "n=4, no interval" in written.text


def test_p95_only_from_forty_on(tmp_path):
    few = write_report(write_run(tmp_path / "few", arms(), 30))
    assert "<th>p95</th>" not in (tmp_path / "few" / "report.html").read_text()
    assert few.analysis.arm("fork+exec").first.p95 is None
    write_report(write_run(tmp_path / "many", arms(), 40))
    assert "<th>p95</th>" in (tmp_path / "many" / "report.html").read_text()


def test_marked_rounds_have_a_column_of_their_own(tmp_path):
    write_report(write_run(tmp_path / "quiet", arms(), 6))
    write_report(write_run(tmp_path / "busy", arms(), 6, QUIET, BUSY, QUIET))
    column = "<th>unmarked rounds only</th>"
    assert column not in (tmp_path / "quiet" / "report.html").read_text()
    busy = (tmp_path / "busy" / "report.html").read_text()
    assert column in busy
    assert "1 of 6 rounds broke the guard" in busy


@pytest.mark.parametrize(
    ("ms", "said"),
    [
        (0.0085, "8.5 µs"),
        (0.43, "0.43 ms"),
        (0.0997, "0.1 ms"),
        (999.7, "1 s"),
        (123_456, "123 s"),
        (1_234_567, "1230 s"),
        (19.66, "19.7 ms"),
        (166, "166 ms"),
        (2512, "2.51 s"),
    ],
)
def test_durations(ms, said):
    assert units.duration(ms) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(1234.5, "1230"), (0.0000712, "0.0000712"), (2.3e-13, "0"), (-2.3e-13, "0"), (0, "0")],
)
def test_figures_are_never_in_powers(value, said):
    assert units.figures(value) == said


def test_lines_break_between_values_and_never_inside():
    assert " " not in unbroken("(5.7–6.4 ms; n=12)")
    assert unbroken("runc: 6.1 ms (a b)").split(" ") == ["runc:", "6.1\xa0ms", "(a", "b)"]


def test_every_published_figure_names_its_source():
    for anchor in anchors.load():
        assert anchor.value > 0
        assert anchor.source
        assert anchor.locator
        assert anchor.verified in {"read", "abstract"}
    starts = anchors.starts()
    assert [a.value for a in starts] == sorted(a.value for a in starts)
    assert anchors.claim("VM startup") == 60_000


def test_a_damaged_anchor_is_named_by_its_line(tmp_path):
    path = tmp_path / "anchors.csv"
    with open(anchors.PATH, encoding="utf-8") as file:
        path.write_text(file.read().replace("33.4", "fast"))
    with pytest.raises(ValueError, match=r"anchors\.csv:5: .*fast"):
        anchors.load(str(path))
