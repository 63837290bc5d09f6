"""In the suite's pytest: starts the guest with the first test, which then runs beside the suite;
puts its results into the suite's own report; and says at the end what passes on one layout only.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict

import pytest

from minicontainer.kernel.cgroups import detect
from tests.v2_rig import compare, guest, selection
from tests.v2_rig.beside import Beside

RIG = pytest.StashKey["Rig"]()
PREFIX = "v2:"  # then the pass and ":", before a test's id


class Rig:
    """outcomes: by pass, "" being this host: test -> (outcome, reason).
    left_out: by pass: test -> why it did not run in the guest.
    """

    def __init__(self) -> None:
        self.beside: Beside | None = None
        self.outcomes: defaultdict[str, compare.Outcomes] = defaultdict(dict)
        self.left_out: dict[str, dict[str, str]] = {}

    def stop(self) -> None:
        if self.beside:
            self.beside.stop()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.passed and report.when != "call":
            return
        name, test = "", report.nodeid
        if test.startswith(PREFIX):
            _, name, test = test.split(":", 2)
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        self.outcomes[name][test] = (report.outcome, reason.removeprefix("Skipped: "))


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RIG] = rig = Rig()
    config.pluginmanager.register(rig)
    config.add_cleanup(rig.stop)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_needs_guest)  # they wait for the guest: last of all


def pytest_collection_finish(session: pytest.Session) -> None:
    wanted = any(_needs_guest(item) for item in session.items)
    if wanted and not session.config.option.collectonly and not guest.missing():
        session.config.stash[RIG].beside = Beside()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Before the leak check, which is the last test's last teardown."""
    if nextitem is None:
        item.config.stash[RIG].stop()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """After -x or Ctrl-C the leak check comes here."""
    session.config.stash[RIG].stop()


def _needs_guest(item: pytest.Item) -> bool:
    return "v2_guest" in getattr(item, "fixturenames", ())


@pytest.fixture
def v2_guest(request: pytest.FixtureRequest) -> Beside:
    beside = request.config.stash[RIG].beside
    if beside is None:
        pytest.skip(guest.missing())
    return beside


def merge(request: pytest.FixtureRequest, beside: Beside, name: str) -> tuple[int, set[str]]:
    """One pass of the guest into this session's report, each test as "v2:NAME:its id". Returns the
    exit status of the guest's pytest, and the tests of which nothing was heard.
    """
    config, hook = request.config, request.config.hook
    capture = config.pluginmanager.getplugin("capturemanager")
    missing: set[str] = set()
    for line in beside.follow(name):
        if "exit" in line:
            return line["exit"], missing
        if "collected" in line:
            missing = set(line["collected"])
            request.session.testscollected += len(missing)
            config.stash[RIG].left_out[name] = line["left_out"]
        elif "broken" in line:
            raise AssertionError(f"{line['broken']} is not collected: {line['why']}")
        else:
            report = hook.pytest_report_from_serializable(config=config, data=line["report"])
            if isinstance(report.longrepr, list):  # of a skip; JSON knows no tuples
                report.longrepr = tuple(report.longrepr)
            missing.discard(report.nodeid)
            report.nodeid = f"{PREFIX}{name}:{report.nodeid}"
            with capture.global_and_fixture_disabled():
                hook.pytest_runtest_logstart(nodeid=report.nodeid, location=report.location)
                hook.pytest_runtest_logreport(report=report)
    raise AssertionError("unreachable")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    rig = config.stash[RIG]
    here = rig.outcomes.pop("", {})
    if not rig.outcomes or rig.beside is None:
        return
    layout = detect.detect().kind
    terminalreporter.section(f"cgroup v2 in a guest ({rig.beside.accelerator}), {layout} here")
    for name, outcomes in rig.outcomes.items():
        counts = Counter(outcome for outcome, _ in outcomes.values())
        words = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
        terminalreporter.line(f"{PREFIX}{name}: {words}")
        reasons = Counter(rig.left_out[name].values())
        for reason, count in reasons.most_common():
            terminalreporter.line(f"  {count} left out: {reason}")
    if rig.beside.cpu_s:
        terminalreporter.line(f"The guest took {rig.beside.cpu_s:.0f} s of CPU time")
    for file, reason in selection.LEFT_OUT.items():
        if "::" not in file:
            terminalreporter.line(f"{file} is left out: {reason}")
    root, learner = rig.outcomes["root"], rig.outcomes["learner"]
    there = learner | root if os.geteuid() == 0 else root | learner
    both = (
        (f"Passed here ({layout}), not in the guest (v2)", compare.only(here, there)),
        (f"Passed in the guest (v2), not here ({layout})", compare.only(there, here)),
    )
    for line in (line for title, found in both for line in compare.lines(title, found)):
        terminalreporter.line(line)
