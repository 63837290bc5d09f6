"""The benchmarks whose loads are existing tools: what is read of what they say, and one real short
sample in a process, in a container and (slow) in a machine.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import netns, schema
from benchmarks.arms.base import ArmFailed
from benchmarks.benches import disk
from benchmarks.benches.application import Application
from benchmarks.benches.base import Size
from benchmarks.benches.disk import Disk
from benchmarks.benches.network import Network
from benchmarks.benches.tools import PID, Host, Load, Tools
from benchmarks.rows import RowMaker, Where
from benchmarks.workdir import remove_own
from tests.bench_fakes import probe, processes_with
from tests.roots import REPOSITORY
from tests.waiting import until

FIO = """{{
  "jobs" : [ {{
      "read" : {{
        "io_bytes" : 10240, "bw" : 55,
        "iops" : {read},
        "slat_ns" : {{ "min" : 0 }} }},
      "write" : {{
        "io_bytes" : 0,
        "iops" : {write} }} }} ]
}}"""
SAID = {
    "disk.fio.read_4k_qd1": (FIO.format(read="14364.635365", write="0.000000"), 14364.635365),
    "disk.fio.write_1m": (FIO.format(read="0.000000", write="1598.401598"), 1598.401598),
    "network.qperf.tcp_latency": ("tcp_lat:\n    latency  =  9119 ns\n", 9119),
    "network.iperf3.in": (
        "[  5]   0.00-1.00   sec  2.22 GBytes  19102 Mbits/sec   11             sender\n"
        "[  5]   0.00-1.00   sec  2.22 GBytes  19028 Mbits/sec                  receiver\n",
        19028,
    ),
    "application.redis.get": (
        "GET: rps=0.0 (overall: 0.0) avg_msec=-nan (overall: -nan)\r"
        "GET: 50125.32 requests per second, p50=0.079 msec\n",
        50125.32,
    ),
    "application.nginx.get_1k": (
        "  28421 requests in 1.01s, 35.38MB read\nRequests/sec:  28195.24\nTransfer/sec: 35.1MB\n",
        28195.24,
    ),
    "application.sqlite.query": ("Run Time: real 0.071 user 0.070 sys 0.000\n", 0.071),
}


@pytest.mark.parametrize("metric", SAID)
def test_the_figure_in_what_a_tool_says(metric):
    text, value = SAID[metric]
    [bench] = [one for one in (Disk(), Network(), Application()) if metric.startswith(one.name)]
    [load] = [one for one in bench.loads if metric == f"{bench.name}.{one.metric}"]
    assert bench.found(load, text).value == value
    with pytest.raises(ArmFailed, match="no such device"):
        bench.found(load, "no such device")


def test_errors_of_a_server_are_no_figure():
    [wrk] = [load for load in Application.loads if load.metric == "nginx.get_1k"]
    said = "  Non-2xx or 3xx responses: 28421\nRequests/sec:  28195.24\n"
    with pytest.raises(ArmFailed, match="Non-2xx"):
        Application().found(wrk, said)


@pytest.mark.parametrize("bench", [Disk(), Network(), Application()], ids=lambda one: one.name)
def test_a_missing_tool_names_its_package(monkeypatch, bench):
    monkeypatch.setattr("benchmarks.benches.tools.PATH", "/nowhere")
    skip = bench.unavailable(bench.arms()[0])
    load = bench.loads[0]
    assert skip.reason.startswith(f"tool missing: {load.words.split()[0]}")
    assert skip.fix == f"apt-get install {load.package}"


def test_a_tool_without_its_server_is_missing(monkeypatch):
    load = Load("sh.x", "busybox thing", "busybox true", "", "s", "lower", server="no-such-thing")
    assert load.missing().reason == "tool missing: no-such-thing"
    monkeypatch.setattr(Application, "loads", (load,))
    assert Application().able == []


def test_ratios_are_of_the_plain_process():
    plan = Disk().plan({"runc:tools": 0.1, "fork+exec": 1.0}, 1, Size(rounds=2), [])
    assert plan.reference == "fork+exec"


def test_direct_io_is_looked_for(tmp_path):
    skip = disk._no_direct("/proc/version")
    assert "no direct I/O" in skip.reason
    assert "MINICONTAINER_CACHE" in skip.fix


def test_the_arms_are_listed_before_anything_is_made():
    probe()
    words = [sys.executable, "-m", "benchmarks", "list", "--bench", "disk,network,application"]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "vm-direct:tools" in done.stdout
    assert "VIRTIO_MMIO_CMDLINE_DEVICES" in done.stdout
    assert "tools root tree" not in done.stdout


# --- real ones --------------------------------------------------------------------------------


class Serves(Tools):
    """A load and its server that are always there."""

    name = rows = "application"
    files = {"/load/here": ""}

    def __init__(self, server: str, words: str) -> None:
        self.loads = (Load("sh.x", "busybox", words, r"(\d+) served", "s", "lower", server=server),)


def test_a_server_runs_as_long_as_its_load():
    probe()
    listens = f'busybox sh -c "echo \\$\\$ >{PID.strip(chr(34))}; exec busybox sleep 4242"'
    served = 'busybox sh -c "kill -0 $(cat $HERE/load/pid) && echo 7 served"'
    for server, words in ((listens, served), ('busybox sh -c "echo cannot bind"', served)):
        bench = Serves(server, words)
        try:
            bench.prepare(Size())
            if "bind" in server:
                with pytest.raises(ArmFailed, match="cannot bind"):
                    sampled(bench, Host())
            else:
                [row] = sampled(bench, Host())
                assert row["value"] == 7
                assert row["params"]["server"].startswith(server)
        finally:
            bench.close()
            remove_own()
        assert processes_with("sleep 4242") == []


def sampled(bench, arm):
    make = RowMaker("run", "env").of(bench)
    return list(bench.sample(arm, Where(1, 0, 0), make))


@pytest.fixture
def ready():
    """A function: the benchmark prepared, and those of its arms that are asked for and able."""
    opened = []

    def make(bench, *names):
        probe()
        opened.append(bench)
        bench.prepare(Size())
        arms = [arm for arm in bench.arms() if arm.name.partition(":")[0] in names]
        assert len(arms) == len(names)
        for arm in arms:
            skip = bench.unavailable(arm)
            if skip:
                pytest.skip(f"{arm.name}: {skip.reason}: {skip.fix}")
            opened.insert(0, arm)
            arm.prepare()
        return arms

    yield make
    for one in opened:
        one.close()
    remove_own()


def checked(rows, loads):
    """Every load has a figure in its unit, as the published form of a row asks."""
    assert [row["metric"].partition(".")[2] for row in rows] == [load.metric for load in loads]
    for row, load in zip(rows, loads, strict=True):
        assert schema.problem(row) == ""
        assert (row["unit"], row["direction"]) == (load.unit, load.direction)
        assert row["value"] > 0
        assert row["params"]["tool"]


def test_disk_in_a_process_and_in_a_container(ready, monkeypatch):
    monkeypatch.setattr(Disk, "loads", (Disk.loads[0], Disk.loads[-1]))
    bench = Disk()
    for arm in ready(bench, "fork+exec", "minicontainer-cli"):
        before = digest(bench.path())
        checked(sampled(bench, arm), bench.loads)
        assert digest(bench.path()) != before, "it is this file of the host that was written"


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.root
def test_network_of_a_process_and_of_a_container(ready):
    if os.geteuid() != 0:
        pytest.skip("needs root, for a bridge")
    bench = Network()
    for arm in ready(bench, "fork+exec", "netns", "minicontainer-runtime-run"):
        before = crossed()
        rows = sampled(bench, arm)
        checked(rows, bench.loads)
        # they end when nobody hears them, a moment later
        until(lambda: processes_with("iperf3 --server") == [], 10)
        # A second of each direction, in bytes: all of it over the bridge, or nothing.
        bytes_moved = sum(row["value"] for row in rows if "iperf3" in row["metric"]) * 1e6 / 8
        if arm.name == "fork+exec":
            assert crossed() - before < bytes_moved / 10
        else:
            assert crossed() - before > bytes_moved / 2
    bench.close()
    assert not os.path.exists(f"/sys/class/net/{netns.bridge(os.getpid())}")


def crossed() -> int:
    """Bytes that the host itself has sent and received on this process's bridge."""
    place = Path("/sys/class/net", netns.bridge(os.getpid()), "statistics")
    return sum(int((place / name).read_text()) for name in ("rx_bytes", "tx_bytes"))


ABANDONS = """
import os, signal
from benchmarks.benches.base import Size
from benchmarks.benches import network
from benchmarks.benches.network import BENCH, Loopback
def killed(words):
    print("listens", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
network.output_of = killed
BENCH.prepare(Size())
list(BENCH.values(BENCH.arms()[0], None))
"""


def test_a_killed_harness_leaves_no_server(ready):
    ready(Network(), "fork+exec")  # skips where its tools are missing
    done = subprocess.run(
        [sys.executable, "-c", ABANDONS], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.stdout == "listens\n", done.stderr
    until(lambda: processes_with("iperf3 --server") == [], 10)
    subprocess.run([sys.executable, "-m", "benchmarks", "clean"], cwd=REPOSITORY, check=True)


def test_applications_in_a_process_and_in_a_container(ready):
    bench = Application()
    for arm in ready(bench, "fork+exec", "minicontainer-cli"):
        checked(sampled(bench, arm), bench.loads)
        for server in ("redis-server", "nginx -p"):
            assert processes_with(f"{server} ") == []


@pytest.mark.vm
@pytest.mark.slow
def test_loads_in_a_machine(ready, monkeypatch):
    monkeypatch.setattr(Disk, "loads", (Disk.loads[0], Disk.loads[-1]))
    for bench in (Disk(), Network(), Application()):
        if bench.name == "network" and os.geteuid() != 0:
            continue
        [arm] = ready(bench, "vm-direct")
        before = digest(bench.path()) if bench.name == "disk" else ""
        rows = sampled(bench, arm)
        checked(rows, bench.loads)
        assert {row["tier"] for row in rows} == {"direct"}
        assert "" not in {row["accel"] for row in rows}
        if before:
            assert {row["disk_cache"] for row in rows} == {"none, io=native"}
            assert digest(bench.path()) != before, "its disk is this file of the host"
        arm.close()
        bench.close()
