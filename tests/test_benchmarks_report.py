"""What the report says of a run whose truth is known, and how it looks in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from benchmarks import anchors
from benchmarks.report import units, words, write_report
from benchmarks.report.analysis import analyse
from benchmarks.report.budgets import Budget
from benchmarks.report.claims import claims as lecture
from benchmarks.report.html import unbroken
from benchmarks.statistics import Ratio
from tests.bench_fakes import BUSY, QUIET, FakeArm, write_run

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def wobble(ms):
    return [ms * (1 + 0.02 * ((number * 7) % 5 - 2)) for number in range(40)]


def arms(*more):
    return [
        FakeArm("fork+exec", *wobble(0.5), kind="process"),
        FakeArm("runc:busybox", *wobble(20)),
        FakeArm("minicontainer-cli:busybox", *wobble(15)),
        FakeArm("minicontainer-library:busybox", *wobble(6)),
        *more,
    ]


NANO = {"kind": "vm", "tier": "nano", "accel": "kvm (pvm)"}
MICRO = {"kind": "vm", "tier": "micro", "accel": "tcg"}
MACHINES = (
    FakeArm("vm-nano", *wobble(60), **NANO),
    FakeArm("vm-micro:busybox", *wobble(2300), **MICRO),
)


def test_titles_never_mix_kvm_with_emulation(tmp_path):
    kvm = FakeArm("vm-direct:busybox", 400, kind="vm", tier="direct", accel="kvm (nested)")
    emulated = FakeArm("vm-micro:busybox", 2300, **MICRO)
    others = (FakeArm("vm-nano", 60, **NANO), emulated, kvm)
    found = analyse(write_run(tmp_path, [FakeArm("runc:busybox", 20), *others], 6))
    assert words.start_title(found) == (
        "A container runs its first instruction after 20 ms, a virtual machine after 400 ms, "
        "an emulated virtual machine after 2.3 s"
    )
    machines = lecture(found)[1]
    assert machines.verdict.startswith("not minutes: 400 ms to 2.3 s for guests trimmed to")
    assert "(some emulated)" in machines.verdict
    assert "tier “full”) is not measured" in machines.verdict


def test_a_boot_sector_is_no_virtual_machine_with_a_kernel(tmp_path):
    found = analyse(write_run(tmp_path, arms(MACHINES[0]), 6))
    assert "boot sectors without a kernel" in lecture(found)[1].verdict


def test_every_emulated_figure_is_labelled(tmp_path):
    written = write_report(write_run(tmp_path, arms(*MACHINES), 6))
    assert "[tcg] is emulated: not a KVM figure" in written.text
    for name in ("report.md", "figures/start_times.svg", "figures/waterfall.svg"):
        text = (tmp_path / name).read_text()
        assert "emulated: not a KVM figure" in text or "vm-nano" in text, name
    for line in (tmp_path / "report.md").read_text().splitlines():
        if line.startswith("| vm-micro"):
            assert "[tcg]" in line
            assert "not a KVM figure" in line
    claims = lecture(written.analysis)[1].measured
    assert [("emulated" in line) for line in claims] == [False, True]


def test_the_lectures_claims(tmp_path):
    slow = FakeArm("docker:busybox", 1500)
    full = FakeArm("vm-full:debian", 70_000, kind="vm", tier="full", accel="kvm")
    containers, machines, *others = lecture(analyse(write_run(tmp_path, arms(slow, full), 6)))
    assert containers.verdict == "holds for 3 of 4 container arms; not for docker:busybox"
    assert machines.verdict == "holds for vm-full:debian [kvm] here"
    assert {claim.verdict for claim in others} == {"not measured in this run"}


def test_without_machines_the_claim_is_open(tmp_path):
    machines = lecture(analyse(write_run(tmp_path, arms(), 6)))[1]
    assert machines.verdict == "not measured: no virtual machine arm runs on this host"


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.8, 0.95, "met"), (0.8, 1.1, "not resolved"), (1.1, 1.3, "not met"), (None, None, None)],
)
def test_a_budget_is_met_by_the_whole_interval(low, high, said):
    assert Budget("a", 1.0, "b", Ratio(9, 0.9, low, high)).verdict == (said or "not resolved")


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


def test_lines_break_between_values_and_never_inside():
    assert " " not in unbroken("(5.7–6.4 ms; n=12)")
    assert unbroken("runc: 6.1 ms (a b)").split(" ") == ["runc:", "6.1\xa0ms", "(a\xa0b)"]


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


# Runs in the page: what a reader would see that is wrong.
LOOK = """<script>addEventListener("load", () => {
  const images = [...document.images], scales = images.map(i => i.clientWidth / i.naturalWidth)
  const bad = images.filter(i => !i.complete || !i.naturalWidth || i.clientWidth < 300)
  parent.postMessage([innerWidth, document.documentElement.scrollWidth, images.length, bad.length,
                      Math.min(...scales).toFixed(3)].join(" "), "*")})</script>"""
# A frame, because a browser's window is never as narrow as a telephone.
FRAME = """<script>addEventListener("message", message =>
  document.body.setAttribute("data-look", message.data))</script>
<body style="margin: 0"><iframe src="look.html" style="border: 0; height: 900px; width: %dpx">"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_in_a_browser(tmp_path, width):
    if not CHROMIUM:
        pytest.skip("no browser to look with: apt-get install chromium")
    write_report(write_run(tmp_path, arms(*MACHINES), 12, QUIET, BUSY, QUIET))
    (tmp_path / "look.html").write_text((tmp_path / "report.html").read_text() + LOOK)
    (tmp_path / "frame.html").write_text(FRAME % width)
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000",
         f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,1000", "--dump-dom",
         (tmp_path / "frame.html").as_uri()],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    look = re.search(r'data-look="([^"]*)"', done.stdout)
    assert look, done.stderr[-500:]
    inner, scroll, images, bad, scale = look[1].split()
    assert int(inner) == width
    assert int(scroll) <= width, "the page scrolls sideways"
    assert (int(images), int(bad)) == (4, 0)
    # 7 pt, the smallest text of the figures, is then no smaller than 8 px on the screen.
    assert float(scale) * 7 * 96 / 72 >= 8
