"""The interpreter cannot be overwritten from a container, as runc could (CVE-2019-5736).

Each attack aims at a *copy* of the interpreter, and is first shown to hit a copy that is not
sealed. /run/minicontainer is a tmpfs of the test's own mount namespace: the host's stays as it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bundles import RUNTIME, Bundle, bundle
from tests.roots import ORDINARY_UID, REPOSITORY, make_busybox_root

__all__ = ["bundle"]
needs_root = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: sudo ./workshop test"),
]
MAIN = str(REPOSITORY / "minicontainer" / "runtime_main.py")

# Says how it runs, once `ensure` is content.
SAY = f"""
import os, sys
sys.path.insert(0, {str(REPOSITORY)!r})
from minicontainer import sealed
from minicontainer.runtime.errors import ContainerError
try:
    sealed.ensure(*sys.orig_argv[1:])
except ContainerError as error:
    sys.exit(str(error))
exe = os.readlink("/proc/self/exe")
changed = "changed"  # writing would be ETXTBSY in any case, while it runs
try:
    os.chmod("/proc/self/exe", 0o755)
except OSError as error:
    changed = error.strerror
print(exe, changed, os.environ.get("A"), sys.argv[1:], sep="|", flush=True)
"""

# With command-line words of its own `main` does not seal: the crash tests depend on that, too.
UNSEALED = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from minicontainer import runtime_cli
sys.exit(runtime_cli.main(sys.argv[1:]))
"""


ENTRY_POINT = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from minicontainer.runtime_cli import main
sys.exit(main())
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """An interpreter that may be spoilt; like a virtual environment's it has the real library."""
    bin_directory = tmp_path / "copy" / "bin"
    bin_directory.mkdir(parents=True)
    real = Path(os.path.realpath(sys._base_executable))  # type: ignore[attr-defined]
    (bin_directory.parent / "pyvenv.cfg").write_text(f"home = {real.parent}\n")
    (bin_directory.parent / "lib").symlink_to(real.parent.parent / "lib")
    return Path(shutil.copy(real, bin_directory / "python3"))


def where(owner: int = 0) -> list[str]:
    """Words before a command: a /run/minicontainer for it alone, that belongs to `owner`.

    It belongs to root: root's interpreter is mounted there. Else it is not used.
    """
    script = f'mkdir -p /run/minicontainer; mount -t tmpfs -o mode=755,uid={owner} t \
        /run/minicontainer; exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, "sh"]


def say(copy: Path, *words: str, before=(), **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*before, str(copy), "-I", "-S", "-c", SAY, *words], capture_output=True, text=True,
        timeout=60, **kwargs,
    )  # fmt: skip


def place_of(copy: Path) -> str:
    return "/run/minicontainer/sealed/" + str(copy)[1:].replace("-", "--").replace("/", "-")


# --- the file that we run from ------------------------------------------------------------------


class TestAsRoot:
    pytestmark = needs_root

    @pytest.mark.parametrize(
        ("owner", "exe", "change"),
        [(0, "/run/minicontainer/sealed/", "Read-only file system"),
         (ORDINARY_UID, "/memfd:python3", "changed")],  # the mode; the bytes are sealed, see below
    )  # fmt: skip
    def test_process_goes_on_from_another_file(self, copy, owner, exe, change):
        done = say(copy, "x y", "--z", before=where(owner), env={"A": "b"})
        assert done.returncode == 0, done.stderr
        runs_from, changed, variable, words = done.stdout.strip().split("|")
        assert runs_from.startswith(exe)
        assert (changed, variable, words) == (change, "b", "['x y', '--z']")

    def test_descriptors_stay_open(self, copy):
        script = SAY.replace("print(", "os.write(int(sys.argv[1]), b'through'); print(")
        for owner in (0, ORDINARY_UID):
            read_fd, write_fd = os.pipe()
            words = [*where(owner), copy, "-I", "-S", "-c", script, str(write_fd)]
            subprocess.run(words, pass_fds=[write_fd], check=True, capture_output=True)
            os.close(write_fd)
            with open(read_fd, "rb") as pipe:
                assert pipe.read() == b"through"

    def test_it_is_made_once_and_found_again(self, copy):
        script = (
            f'"$@" && "$@" && grep -c {place_of(copy)} /proc/self/mountinfo && '
            f"stat -c '%a %u %n' /run/minicontainer/sealed {place_of(copy)}"
        )
        words = [copy, "-I", "-S", "-c", SAY]
        done = subprocess.run([*where(), "sh", "-c", script, "sh", *words], capture_output=True,
                              text=True, timeout=60)  # fmt: skip
        lines = done.stdout.splitlines()
        assert lines[0].split("|")[0] == lines[1].split("|")[0] == f"{place_of(copy)}/bin/python3"
        assert lines[2] == "1"
        assert [line.split()[:2] for line in lines[3:]] == [["700", "0"], ["700", "0"]]

    def test_first_starts_at_once(self, copy):
        script = (
            'for i in 1 2 3 4 5 6 7 8; do "$@" & done; wait; '
            f"grep -c {place_of(copy)} /proc/self/mountinfo"
        )
        words = [copy, "-I", "-S", "-c", SAY]
        done = subprocess.run([*where(), "sh", "-c", script, "sh", *words], capture_output=True,
                              text=True, timeout=60)  # fmt: skip
        assert done.stderr == ""
        *said, count = done.stdout.splitlines()
        assert {line.split("|")[0] for line in said} == {f"{place_of(copy)}/bin/python3"}
        assert (len(said), count) == (8, "1")

    @pytest.mark.parametrize(
        "state",
        [
            "true",  # only the directories
            "echo > pyvenv.cfg.new; ln -s / lib.new",  # killed while it wrote
            "touch bin/python3",  # before the mount
            "touch bin/python3; mount --bind $1 bin/python3",  # not read-only
            "touch bin/python3; mount --bind -o ro $2 bin/python3",  # another file, an upgrade
            "touch bin/python3; for i in 1 2; do mount --bind $2 bin/python3; done",
        ],
    )
    def test_what_a_killed_one_or_an_upgrade_left_is_mended(self, copy, tmp_path, state):
        old = shutil.copy(copy, tmp_path / "old")
        script = (
            f"mkdir -m 700 -p /run/minicontainer/sealed {place_of(copy)} {place_of(copy)}/bin && "
            f'cd {place_of(copy)} && {state} && shift 2 && "$@" && ls && '
            f"grep -c {place_of(copy)} /proc/self/mountinfo"
        )
        words = [str(copy), "-I", "-S", "-c", SAY]
        done = subprocess.run([*where(), "sh", "-c", script, "sh", str(copy), old, *words],
                              capture_output=True, text=True, timeout=60)  # fmt: skip
        assert done.returncode == 0, done.stderr
        said, *rest = done.stdout.splitlines()
        assert said.split("|")[:2] == [f"{place_of(copy)}/bin/python3", "Read-only file system"]
        assert rest == ["bin", "lib", "pyvenv.cfg", "1"]

    def test_upgrade_while_containers_wait(self, copy):
        """The file is replaced: who starts next runs the new one, and who runs goes on."""
        script = (
            f'"$@"; sleep 1000 & cp {copy} {copy}.new && mv {copy}.new {copy} && "$@"; kill $!; '
            f"[ {copy} -ef {place_of(copy)}/bin/python3 ] && echo same"
        )
        words = [str(copy), "-I", "-S", "-c", SAY]
        done = subprocess.run([*where(), "sh", "-c", script, "sh", *words], capture_output=True,
                              text=True, timeout=60)  # fmt: skip
        assert done.stdout.splitlines()[-1] == "same", done
        assert done.stdout.count("Read-only file system") == 2

    @pytest.mark.parametrize(
        "trap",
        [
            "mkdir -m 777 $BASE",
            f"mkdir -m 700 $BASE && chown {ORDINARY_UID} $BASE",
            "mkdir -m 700 $BASE.d && ln -s $BASE.d $BASE",
            "touch $BASE",
        ],
    )
    def test_directory_that_is_not_ours_alone_is_not_used(self, copy, trap):
        script = f'BASE=/run/minicontainer/sealed; {trap}; exec "$@"'
        done = say(copy, before=[*where(), "sh", "-c", script, "sh"])
        assert done.stdout.startswith("/memfd:python3"), done

    def test_memory_that_cannot_be_executed_is_explained(self, copy):
        """vm.memfd_noexec, Linux 6.3; it is the pid namespace's."""
        script = 'echo 2 > /proc/sys/vm/memfd_noexec || exit 77; exec "$@"'
        before = [*where(ORDINARY_UID), "unshare", "--pid", "--fork", "--mount-proc", "sh", "-c",
                  script, "sh"]  # fmt: skip
        done = say(copy, before=before)
        if done.returncode == 77:
            pytest.skip(f"this kernel has no vm.memfd_noexec: {done.stderr}")
        assert done.returncode == 1
        assert "containers could overwrite it" in done.stderr
        assert "memfd_noexec" in done.stderr

    def test_ordinary_users_copy_of_their_own(self, copy, tmp_path):
        """Theirs: a container's root is them, so it is copied. Root's: nobody's to write."""
        words = ["setpriv", f"--reuid={ORDINARY_UID}", "--clear-groups", "--inh-caps=-all"]
        for above in (copy.parent.parent, *copy.parent.parent.parents):
            if above.name.startswith(("pytest", "test_")) or above == tmp_path:
                above.chmod(0o755)
        done = say(copy, before=words)
        assert done.stdout.startswith(f"{copy}|Operation not permitted"), done
        os.chown(copy, ORDINARY_UID, -1)
        for mode in (0o755, 0o555):
            copy.chmod(mode)
            done = say(copy, before=words)
            assert done.stdout.startswith("/memfd:python3"), done


# --- attacks -----------------------------------------------------------------------------------

# Runs as the interpreter in the container: keeps a descriptor of it, becomes another program, and
# writes as soon as nobody executes the file.
ATTACK = r"""
import os
fd = os.open("/proc/self/exe", os.O_RDONLY)
os.set_inheritable(fd, True)
tries = "for i in $(seq 100); do echo overwritten > /proc/self/fd/%d && exit; sleep 0.02; done"
os.execv("/bin/busybox", ["sh", "-c", "echo attack; " + tries % fd])
"""


class Target:
    """The bundle of a hostile image, and the runtime as the copied interpreter runs it."""

    def __init__(self, bundle: Bundle, copy: Path, sealed: str) -> None:
        self.bundle = bundle
        self.copy = copy
        self.bytes = copy.read_bytes()
        bundle.python("")  # its library is the hostile interpreter's, too
        (bundle.root / "attack").write_text(f"#!/proc/self/exe -IS\n{ATTACK}")
        (bundle.root / "attack").chmod(0o755)
        before = {"mount": where(), "memory": where(ORDINARY_UID), "": []}[sealed]
        program = [MAIN] if sealed else ["-c", UNSEALED]
        bundle.command = [*before, str(copy), "-I", "-S", *program, *bundle.command[1:]]

    def log(self) -> str:
        return (self.bundle.directory / "log").read_text()

    def wait(self) -> None:
        """Until the attacker has given up, or had success."""
        until = time.monotonic() + 60
        while self.bundle.state()["status"] != "stopped":
            assert time.monotonic() < until, self.log()
            time.sleep(0.05)

    def hit(self) -> bool:
        return self.copy.read_bytes() != self.bytes


def attack_by(kind: str) -> list[str]:
    """Words of a hostile image."""
    if kind == "script":
        return ["/attack"]
    return ["/proc/self/exe", "-I", "-S", "-c", ATTACK]


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize("sealed", ["", "mount", "memory"])
@pytest.mark.parametrize("kind", ["program", "script"])
class TestAttack:
    def expect(self, target: Target, sealed: str) -> None:
        assert "attack" in target.log()  # it did run, as our interpreter
        assert target.hit() == (not sealed), target.log()
        if sealed:
            assert {"mount": "Read-only file system", "memory": "Operation not permitted"}[
                sealed
            ] in target.log()

    def test_command_of_the_container(self, bundle, copy, kind, sealed):
        target = Target(bundle, copy, sealed)
        with open(bundle.directory / "log", "w") as log:
            bundle.args(*attack_by(kind)).create(out=log, stderr=log)
        bundle.call("start", bundle.id)
        target.bundle.command = [RUNTIME, *bundle.command[bundle.command.index("--root") :]]
        target.wait()
        self.expect(target, sealed)

    def test_exec_in_the_container(self, bundle, copy, kind, sealed):
        bundle.args("sleep", "1000")
        target = Target(bundle, copy, sealed)
        spoilt = bundle.command
        bundle.command = [RUNTIME, *spoilt[spoilt.index("--root") :]]
        bundle.create()
        bundle.call("start", bundle.id)
        bundle.command = spoilt
        with open(bundle.directory / "log", "w") as log:
            bundle.call("exec", "--detach", "--pid-file", "pid", bundle.id, *attack_by(kind),
                        capture_output=False, stdout=log, stderr=log)  # fmt: skip
        pid = int((bundle.directory / "pid").read_text())
        until = time.monotonic() + 60
        while os.path.exists(f"/proc/{pid}") and time.monotonic() < until:
            if Path(f"/proc/{pid}/stat").read_text().split(") ")[1].startswith("Z"):
                break
            time.sleep(0.05)
        bundle.command = [RUNTIME, *spoilt[spoilt.index("--root") :]]
        self.expect(target, sealed)


@pytest.mark.root
def test_process_inside_writes_to_everybodys_program(bundle, copy):
    """It may look at all processes of its pid namespace, the joining one of `exec` included."""
    target = Target(bundle, copy, "mount")
    script = (
        "echo ready; while :; do for p in /proc/[0-9]*; do "
        "case $(readlink $p/exe) in *busybox|'') ;; *) echo attack $(readlink $p/exe);; esac; "
        "(echo overwritten >> $p/exe) 2>/dev/null; done; done"
    )
    with open(bundle.directory / "log", "w") as log:
        bundle.args("sh", "-c", script).create(out=log)
    bundle.call("start", bundle.id)
    for _ in range(10):
        assert bundle.call("exec", bundle.id, "true").returncode == 0
    assert not target.hit()


# --- how users start it ------------------------------------------------------------------------


@pytest.mark.root
def test_launchers_run_the_sealed_interpreter_directly(bundle):
    bundle.args("sleep", "1000").create()
    exe = os.readlink(f"/proc/{bundle.state()['pid']}/exe")
    assert exe.startswith("/run/minicontainer/sealed/")
    assert os.statvfs(exe).f_flag & os.ST_RDONLY
    strace = shutil.which("strace")
    if not strace:
        pytest.skip("strace is not installed")
    for name in ("minicontainer-runtime", "minicontainer"):
        words = [strace, "-e", "trace=execve", REPOSITORY / "minicontainer" / name, "run", "--help"]
        done = subprocess.run(words, env={}, capture_output=True, text=True, check=True)
        assert [line for line in done.stderr.splitlines() if exe in line], done.stderr
        assert done.stderr.count("execve(") == 2


@pytest.mark.root
@pytest.mark.parametrize("words", [["-I", "-S", MAIN], ["-c", ENTRY_POINT]])
def test_without_launcher(bundle, words):
    """By an interpreter of the caller's choice, and as pip's entry point does it."""
    bundle.command[0:1] = [sys.executable, *words]
    bundle.args("sleep", "1000").create()
    exe = os.readlink(f"/proc/{bundle.state()['pid']}/exe")
    assert os.statvfs(exe).f_flag & os.ST_RDONLY


def test_launchers_find_themselves_through_symlinks_and_without_environment(tmp_path: Path):
    package = REPOSITORY / "minicontainer"
    (tmp_path / "a b").mkdir()
    links = {
        tmp_path / "runc": package / "minicontainer-runtime",
        tmp_path / "a b/again": "../runc",
        tmp_path / "minicontainer": package / "minicontainer",
        tmp_path / "a b/minicontainer": "../minicontainer",
    }
    for link, to in links.items():
        link.symlink_to(to)
    for command in (*links, package / "minicontainer", package / "minicontainer-runtime"):
        done = subprocess.run([command, "--version"], env={}, capture_output=True, text=True)
        wanted = "minicontainer" if command.name == "minicontainer" else "minicontainer-runtime"
        assert done.stdout.split()[0] == wanted, (command, done)
    env = {"PATH": f"{tmp_path / 'a b'}"}
    assert subprocess.call(["/bin/sh", "-c", "again --version"], env=env) == 0


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: sudo ./workshop test")
def test_command_and_library_are_sealed_too(tmp_path: Path):
    import minicontainer

    helper = minicontainer.helper_start()
    root = make_busybox_root(tmp_path / "root")
    assert minicontainer.run(root, ["true"]).returncode == 0
    exe = os.readlink(f"/proc/{helper}/exe")
    assert os.statvfs(exe).f_flag & os.ST_RDONLY
    main = REPOSITORY / "minicontainer" / "__main__.py"
    words = [sys.executable, "-I", "-S", main, "run", "--rootfs", root, "sleep", "1000"]
    with subprocess.Popen(words) as process:
        until = time.monotonic() + 20
        while os.readlink(f"/proc/{process.pid}/exe") != exe:
            assert time.monotonic() < until
            time.sleep(0.01)
        process.terminate()


def test_wheel_has_the_launchers():
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    data = project["tool"]["setuptools"]["package-data"]["minicontainer"]
    for name in data:
        assert os.access(REPOSITORY / "minicontainer" / name, os.X_OK)
    assert {"minicontainer", "minicontainer-runtime"} == set(data)
