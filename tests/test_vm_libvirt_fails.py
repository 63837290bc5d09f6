"""A libvirt that does not answer or goes away: the harness says so, goes on, leaves nothing."""

from __future__ import annotations

import pytest

from benchmarks import roots
from tests import own_libvirt
from tests.bench_fakes import rows_of

pytest.importorskip("benchmarks.vm.hypervisor", reason="libvirt-python is not installed")
pytestmark = [pytest.mark.vm, pytest.mark.root]


@pytest.fixture(autouse=True)
def images():
    for skip in (roots.missing_guest(""), roots.missing("busybox")):
        if skip:
            pytest.skip(f"{skip.reason}; fix: {skip.fix}")


def test_libvirt_goes_away_while_a_machine_runs():
    done = own_libvirt.run("""
with Machine("orphan", "nano", kvm=False) as machine:
    machine.start(60.0)
    pid = machine.pid()
    os.kill(DAEMON, signal.SIGKILL)
    daemons[1].wait()
    try:
        machine.cpu_ms()
    except ArmFailed as failure:
        print(failure)
    assert os.path.exists(f"/proc/{pid}"), "QEMU outlives its libvirt"
print(own_qemus())
""")
    assert "libvirt went away (qemu:///system): " in done.stdout, done.stderr
    assert "start it, then run this again" in done.stdout
    assert done.stdout.endswith("[]\n"), done.stderr


def test_libvirt_stops_answering_while_a_machine_runs():
    """Its QEMU is ended all the same; when libvirt goes on, it serves the same process again."""
    done = own_libvirt.run("""
with Machine("hung", "nano", kvm=False) as machine:
    machine.start(60.0)
    hypervisor.ANSWER_S = 2.0
    os.kill(DAEMON, signal.SIGSTOP)
    for _ in range(2):
        try:
            machine.cpu_ms()
        except ArmFailed as failure:
            print(failure)
    print(machine.state())
print(own_qemus())
os.kill(DAEMON, signal.SIGCONT)
until(answers, 60)
hypervisor.ANSWER_S = 60.0
with Machine("again", "nano", kvm=False) as machine:
    machine.start(60.0)
    print(machine.state())
print(own_qemus(), hypervisor.connection().listAllDomains())
""")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("libvirt for 2 s does not answer (qemu:///system): "), done.stderr
    assert lines[1].startswith("libvirt still does not answer (qemu:///system): ")
    assert lines[2:] == ["not to be asked for", "[]", "running", "[] []"], done.stderr


def test_a_start_that_libvirt_sleeps_through_makes_no_machine_later():
    done = own_libvirt.run("""
hypervisor.ANSWER_S = 2.0
machine = Machine("late", "nano", kvm=False, kept=True)
os.kill(DAEMON, signal.SIGSTOP)
try:
    machine.start(60.0)
except ArmFailed as failure:
    print(failure)
os.kill(DAEMON, signal.SIGCONT)
until(answers, 60)
print(own_qemus(), hypervisor.connection().listAllDomains())
""")
    assert "libvirt for 2 s does not answer (qemu:///system): " in done.stdout, done.stderr
    assert done.stdout.endswith("[] []\n"), done.stdout + done.stderr


A_RUN = """
from benchmarks.__main__ import main
directory, number = sys.argv[1], getattr(signal, sys.argv[2])

def measured():
    found = glob.glob(f"{directory}/*/samples.jsonl")
    return found and '"round": 2' in Path(found[0]).read_text()

def break_libvirt():
    until(measured, 60)
    os.kill(DAEMON, number)

breaker = threading.Thread(target=break_libvirt)
breaker.start()
hypervisor.ANSWER_S = 8.0
code = main(["run", "--arms", "fork+exec,vm-nano", "--rounds", "5", "--out", directory])
breaker.join()
print(code, own_qemus())
"""


@pytest.mark.parametrize("number", ["SIGSTOP", "SIGKILL"])
def test_a_run_goes_on_without_libvirt(tmp_path, number):
    """The other arm is measured to the end; the machine's rows say what happened."""
    done = own_libvirt.run(A_RUN, str(tmp_path), number)
    assert done.stdout.endswith("0 []\n"), done.stdout + done.stderr
    (directory,) = tmp_path.iterdir()
    first = [row for row in rows_of(directory) if row["metric"] == "start.first_instruction"]
    status = {
        arm: [row["status"] for row in first if row["arm"] == arm and row["rep"] == 0]
        for arm in ("fork+exec", "vm-nano")
    }
    assert status["fork+exec"] == ["ok"] * 6, status  # five rounds and the warm-up
    failed = [row for row in rows_of(directory) if row["status"] == "error"]
    assert {row["arm"] for row in failed} == {"vm-nano"}
    words = {"SIGSTOP": "libvirt for 8 s does not answer", "SIGKILL": "libvirt went away"}
    assert words[number] in failed[0]["reason"], failed[0]["reason"]
    later = {"SIGSTOP": "libvirt still does not answer", "SIGKILL": "Failed to connect socket"}
    assert later[number] in failed[-1]["reason"], failed[-1]["reason"]


STOPPED_THEN_RESUMED = """
from benchmarks.__main__ import main
directory = sys.argv[1]

def said(words):
    found = glob.glob(f"{directory}/*/samples.jsonl")
    return found and words in Path(found[0]).read_text()

def break_and_stop():
    until(lambda: said('"round": 2'), 60)
    os.kill(DAEMON, signal.SIGKILL)
    until(lambda: said('"status": "error"'), 60)
    os.kill(os.getpid(), signal.SIGINT)

breaker = threading.Thread(target=break_and_stop)
breaker.start()
print(main(["run", "--arms", "fork+exec,vm-nano", "--rounds", "12", "--out", directory]))
breaker.join()
(run,) = glob.glob(f"{directory}/*")
resume = [sys.executable, "-m", "benchmarks", "run", "--resume", run]
refused = subprocess.run(resume, capture_output=True, text=True)
print(refused.returncode, "cannot resume: vm-nano" in refused.stderr, refused.stderr[-400:])
daemons[1].wait()
daemons.append(subprocess.Popen(["libvirtd"], stderr=subprocess.DEVNULL))
until(lambda: subprocess.run(["virsh", "-c", "qemu:///system", "version"],
                             capture_output=True).returncode == 0, 60)
done = subprocess.run(resume, capture_output=True, text=True)
print(done.returncode, done.stderr[-400:], own_qemus())
"""


def test_a_run_is_resumed_when_libvirt_is_back(tmp_path):
    """Without it a resume is refused, and keeps what was measured."""
    done = own_libvirt.run(STOPPED_THEN_RESUMED, str(tmp_path), timeout=200)
    assert "\n130\n" in f"\n{done.stdout}", done.stdout + done.stderr
    assert "1 True" in done.stdout, done.stdout + done.stderr
    (directory,) = tmp_path.iterdir()
    rows = [
        row for row in rows_of(directory)
        if row["metric"] == "start.first_instruction" and row["rep"] == 0 and not row["warmup"]
    ]  # fmt: skip
    for arm in ("fork+exec", "vm-nano"):
        shot = [row["round"] for row in rows if row["arm"] == arm and row["status"] == "ok"]
        failed = {row["round"] for row in rows if row["arm"] == arm} - {*shot}  # some twice: traced
        assert sorted([*shot, *failed]) == [*range(1, 13)]
    status = {row["round"]: row["status"] for row in rows if row["arm"] == "vm-nano"}
    assert status[1] == status[12] == "ok"
    assert "error" in status.values()
