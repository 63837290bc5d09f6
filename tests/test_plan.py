"""The plan of a container start: complete, in the right order, and readable without privilege."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.runtime import plan, report, spec, steps_files, steps_process
from minicontainer.runtime.failures import exec_failure, hint
from minicontainer.runtime.failures import failure as failure_of
from tests.roots import COMMAND, ORDINARY_UID


def names(described: list[dict]) -> list[str]:
    return [step["name"] for step in described]


@pytest.fixture
def described(tmp_path) -> list[dict]:
    (tmp_path / "x").touch()
    return plan.describe(plan.build(spec.default(tmp_path, ["sh"], read_only=True)))


def test_every_step_says_what_why_where_and_which_lesson(described):
    for number, step in enumerate(described, 1):
        assert step["n"] == number
        assert step["calls"], step
        assert all(isinstance(call, str) and "(" in call for call in step["calls"])
        assert step["why"], step
        assert step["clause"], step
        assert step["lesson"].isdigit(), step
        assert step["where"] in ("parent", "outside", "init")


def test_order_that_the_kernel_wants(described):
    order = names(described)

    def before(first: str, second: str) -> None:
        assert order.index(first) < order.index(second), (first, second)

    before("clone", "new session")
    before("private mounts", "bind root")
    before("mount /dev", "mount /dev/pts")
    before("mount /proc", "pivot_root")
    before("pivot_root", "mask paths")
    before("bounding set", "identity")  # needs CAP_SETPCAP
    before("identity", "capabilities")  # setresuid needs CAP_SETUID
    before("identity", "die with parent")  # a change of ids clears PR_SET_PDEATHSIG
    before("close descriptors", "exec")
    assert order[-1] == "exec"
    places = [("parent", "outside", "init").index(step["where"]) for step in described]
    assert places == sorted(places)


@pytest.mark.root
@pytest.mark.parametrize("kinds", [{"pid": "/proc/1/ns/pid"}, {"pid": "/x", "user": "/y"}])
def test_nobody_in_a_joined_pid_namespace_can_look_into_init(tmp_path, kinds):
    (tmp_path / "x").touch()
    config = spec.default(tmp_path, ["sh"])
    config["linux"]["namespaces"] = [
        {"type": kind, "path": path} for kind, path in {"mount": "", **kinds}.items()
    ]
    order = names(plan.describe(plan.build(config)))
    assert order.count("not dumpable") == 1
    assert order[order.index("not dumpable") + 1] == "fork"


def test_explain_needs_no_privilege(root, ordinary_user):
    done = subprocess.run(
        [*ordinary_user, *COMMAND, "explain", "--rootfs", root, "sh"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "clone3(flags=CLONE_NEWTIME|CLONE_NEWNS|" in done.stdout
    assert "CLONE_NEWUSER" in done.stdout
    assert f"write(file='/proc/PID/uid_map', text='0 {ORDINARY_UID} 1')" in done.stdout


def test_rootless_has_one_id(root, ordinary_user):
    done = subprocess.run(
        [*ordinary_user, *COMMAND, "explain", "--user", "1000", "--rootfs", root, "sh"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 125
    assert "only one id can be mapped" in done.stderr


FIELDS = st.lists(
    st.text(st.characters(exclude_characters="\x1e\x1f", exclude_categories=["Cs"])), min_size=1
)


@given(st.lists(FIELDS))
def test_records_survive_the_pipe(records):
    data = b"".join(report.encode(*fields) for fields in records)
    assert report.decode(data) == records


def test_failures_name_step_call_and_fix():
    step = steps_files.PivotRoot("/r")
    failure = failure_of([step, step, step], 2, 22, "pivot_root(new_root='.')", "mount it")
    assert str(failure) == (
        "step 2 of 3, pivot_root: invalid argument: pivot_root(new_root='.')\n  fix: mount it"
    )


@pytest.mark.parametrize(
    ("errno", "code", "words"),
    [
        (2, 127, "executable file not found in $PATH"),
        (13, 126, "permission denied"),
        (8, 126, "exec format error"),
        (12, 126, "cannot allocate memory"),
    ],
)
def test_exec_failures_have_dockers_codes_and_words(errno, code, words):
    step = steps_process.Exec(["x"], ["PATH=/none"])
    failure = exec_failure(step, errno, hint(step, OSError(errno, "")))
    assert (failure.exit_code, failure.errno) == (code, errno)
    assert words in str(failure)
