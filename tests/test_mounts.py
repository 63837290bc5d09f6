"""Mounts by descriptor, and /proc that is /proc: effects in /proc/self/mountinfo; hostile roots."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.doctor import enter, in_child
from minicontainer.kernel import mountfd, mounts, proc, syscalls
from minicontainer.kernel.syscalls import (
    MOUNT_ATTR__ATIME,
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_BIND,
    MS_NOATIME,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_SHARED,
    MS_SLAVE,
    MS_STRICTATIME,
)

pytestmark = pytest.mark.rootless


def say(condition: object, what: str) -> None:
    if not condition:
        raise OSError(0, what)


def mountinfo() -> list[dict]:
    """proc_pid_mountinfo(5): target, options, optional fields, type."""
    found = []
    with open("/proc/self/mountinfo") as file:
        for line in file:
            fields = line.split()
            dash = fields.index("-")
            found.append({"target": fields[4], "options": set(fields[5].split(",")),
                          "shared": " ".join(fields[6:dash]), "type": fields[dash + 1],
                          "super": set(fields[dash + 3].split(","))})  # fmt: skip
    return found


def mount_at(path) -> dict:
    return [one for one in mountinfo() if one["target"] == str(path)][-1]


def in_root(tmp_path, function) -> None:
    """Call `function(root_fd, root)` in a child, in a mount namespace with a tmpfs as the root."""

    def child() -> None:
        enter("user", "mount")
        mounts.set_propagation("/", MS_PRIVATE | MS_REC)
        syscalls.mount("tmpfs", str(tmp_path), "tmpfs", 0, None)
        os.makedirs(tmp_path / "root/dev")
        os.makedirs(tmp_path / "host/below")
        (tmp_path / "host/secret").write_text("secret")
        root_fd = os.open(tmp_path / "root", os.O_PATH)
        function(root_fd, tmp_path / "root")

    in_child(child)


@pytest.mark.parametrize(
    ("header", "prefixes"),
    [("linux/mount.h", ("MOUNT_ATTR_", "FSCONFIG_", "MOVE_MOUNT_", "OPEN_TREE_", "FSMOUNT_",
                        "FSOPEN_", "MS_")),
     ("linux/openat2.h", ("RESOLVE_",)), ("linux/magic.h", ("PROC_SUPER", "DEVPTS_SUPER")),
     ("linux/prctl.h", ("PR_",)), ("linux/seccomp.h", ("SECCOMP_",)),
     ("asm/ioctls.h", ("TIOC",))],
)  # fmt: skip
def test_constants_are_the_c_headers(header, prefixes, tmp_path):
    names = [name for name in vars(syscalls) if name.startswith(prefixes)]
    assert names
    source = tmp_path / "constants.c"
    lines = "".join(f'printf("%lu\\n", (unsigned long){name});' for name in names)
    includes = f"#include <fcntl.h>\n#include <{header}>\n#include <stdio.h>\n"
    source.write_text(f"{includes}int main(void) {{ {lines} return 0; }}")
    try:
        done = subprocess.run(["cc", source, "-o", tmp_path / "constants"], capture_output=True)
    except FileNotFoundError:
        pytest.skip("no C compiler: apt install gcc")
    assert not done.returncode, done.stderr.decode()
    done = subprocess.run([tmp_path / "constants"], check=True, capture_output=True, text=True)
    theirs = [int(line) for line in done.stdout.split()]
    assert dict(zip(names, theirs, strict=True)) == {n: getattr(syscalls, n) for n in names}


# --- words ------------------------------------------------------------------------------------


def test_recursive_words_are_the_specs():
    words = """rro rrw rnosuid rsuid rnodev rdev rnoexec rexec rnoatime ratime rnodiratime rdiratime
        rrelatime rnorelatime rstrictatime rnostrictatime rnosymfollow rsymfollow"""
    assert set(mounts.RECURSIVE_OPTIONS) == set(words.split())
    options = ["rbind", "rro", "rnosuid", "rsuid", "rnoatime", "tmpcopyup", "size=1k"]
    assert mounts.recursive_attributes(options) == (
        MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOATIME, MOUNT_ATTR_NOSUID | MOUNT_ATTR__ATIME
    )  # fmt: skip
    assert mounts.parse_options(options) == (MS_BIND | MS_REC, 0, "size=1k")


@given(st.lists(st.sampled_from(sorted(mounts.RECURSIVE_OPTIONS))))
def test_recursive_attributes_never_contradict(words):
    on, off = mounts.recursive_attributes(words)
    assert not on & off & ~MOUNT_ATTR__ATIME
    atime = on & MOUNT_ATTR__ATIME
    assert not atime or off & MOUNT_ATTR__ATIME == MOUNT_ATTR__ATIME  # else EINVAL
    assert atime.bit_count() <= 1  # one choice
    for word, attribute in (("ro", MOUNT_ATTR_RDONLY), ("nosuid", MOUNT_ATTR_NOSUID)):
        opposite = {"ro": "rw", "nosuid": "suid"}[word]
        said = [w for w in words if w in (f"r{word}", f"r{opposite}")]
        assert bool(on & attribute) == bool(said and said[-1] == f"r{word}")
        assert bool(off & attribute) == bool(said and said[-1] == f"r{opposite}")


# --- binds ------------------------------------------------------------------------------------


def test_bind_has_its_flags_at_once(tmp_path):
    def use(root_fd, root) -> None:
        flags = MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME
        mountfd.bind_in_root(root_fd, str(tmp_path / "host"), "/data/here", flags)
        now = mount_at(root / "data/here")["options"]
        say({"ro", "nosuid", "nodev", "noexec", "noatime"} <= now, f"{now}")
        say(os.listdir(root / "data/here"), "nothing there")
        say("rw" in mount_at(tmp_path)["options"], "the source changed too")
        mountfd.bind_in_root(root_fd, str(tmp_path / "host/secret"), "/file", MS_STRICTATIME)
        say((root / "file").read_text() == "secret", "the file is not bound")
        say(not {"noatime", "relatime"} & mount_at(root / "file")["options"], "not strictatime")

    in_root(tmp_path, use)


@pytest.mark.parametrize("recursive", [True, False])
def test_rro_is_read_only_all_the_way_down(tmp_path, recursive):
    def use(root_fd, root) -> None:
        syscalls.mount("tmpfs", str(tmp_path / "host/below"), "tmpfs", 0, None)
        words = ["rbind", "rro" if recursive else "ro", "rnodev"]
        flags, _, _ = mounts.parse_options(words)
        attributes = mounts.recursive_attributes(words)
        mountfd.bind_in_root(root_fd, str(tmp_path / "host"), "/data", flags, attributes)
        for path, read_only in ((root / "data", True), (root / "data/below", recursive)):
            now = mount_at(path)["options"]
            say(("ro" in now) == read_only, f"{path}: {now}")
            say("nodev" in now, f"{path}: {now}")
        say("rw" in mount_at(tmp_path / "host/below")["options"], "the source changed too")

    in_root(tmp_path, use)


def test_old_kernels_bind_by_remounting(tmp_path, monkeypatch):
    def missing(*args):
        raise OSError(errno.ENOSYS, "mount_setattr(…)")

    monkeypatch.setattr(syscalls, "mount_setattr", missing)

    def use(root_fd, root) -> None:
        mountfd.bind_in_root(root_fd, str(tmp_path / "host"), "/data", MS_RDONLY | MS_NOSUID)
        say({"ro", "nosuid"} <= mount_at(root / "data")["options"], "flags are missing")
        (root / "dir").mkdir()
        mountfd.readonly_in_root(root_fd, "/dir")
        say("ro" in mount_at(root / "dir")["options"], "not read-only")
        try:
            mountfd.bind_in_root(root_fd, "/dev/null", "/more", 0, (MOUNT_ATTR_RDONLY, 0))
        except OSError as error:
            say(error.errno == errno.ENOSYS, f"{error}")
            return
        raise OSError(0, "rro was passed over in silence")

    in_root(tmp_path, use)


def test_targets_stay_inside(tmp_path):
    def use(root_fd, root) -> None:
        (root / "out").symlink_to("../host")
        (root / "absolute").symlink_to(tmp_path / "host")
        (root / "host").mkdir()
        mountfd.bind_in_root(root_fd, "/proc", "/out", MS_BIND | MS_REC)
        say(mount_at(root / "host")["type"] == "proc", "not where the link leads inside")
        say(not os.path.ismount(tmp_path / "host"), "mounted on the host")
        for target in ("/absolute", "/absolute/below"):
            try:
                mountfd.bind_in_root(root_fd, "/proc", target, MS_BIND | MS_REC)
            except OSError as error:
                say(error.errno in (errno.ENOENT, errno.ELOOP), f"{error}")
        say(not os.path.ismount(tmp_path / "host"), "mounted on the host")
        say(not os.path.ismount(tmp_path / "host/below"), "mounted on the host")

    in_root(tmp_path, use)


def test_target_swapped_meanwhile_is_never_the_hosts(tmp_path):
    """Another container that shares the directory swaps the target for a symlink, all the time."""

    def use(root_fd, root) -> None:
        (root / "a/target").mkdir(parents=True)
        stop = threading.Event()

        def swap() -> None:
            while not stop.is_set():
                os.rename(root / "a", root / "b")
                os.symlink(tmp_path / "host", root / "a")
                os.unlink(root / "a")
                os.rename(root / "b", root / "a")

        (tmp_path / "host/target").mkdir()
        thread = threading.Thread(target=swap)
        thread.start()
        try:
            for _ in range(300):
                try:
                    mountfd.bind_in_root(root_fd, "/dev/null", "/a/target/file", MS_RDONLY)
                except OSError as error:
                    # EXDEV, EAGAIN: openat2 saw the tree move
                    expected = (errno.ENOENT, errno.EAGAIN, errno.EXDEV, errno.ENOTDIR,
                                errno.EEXIST)  # fmt: skip
                    say(error.errno in expected, f"{error}")
        finally:
            stop.set()
            thread.join()
        say(not os.listdir(tmp_path / "host/target"), "made a file on the host")
        for one in mountinfo():
            say(not one["target"].startswith(f"{tmp_path}/host"), f"on the host: {one}")
            if one["target"].endswith("/file"):
                say("ro" in one["options"], f"without its flags: {one}")

    in_root(tmp_path, use)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [(MS_SHARED, "shared:"), (MS_PRIVATE, ""), (MS_SHARED | MS_REC, "shared:"),
     (MS_SLAVE | MS_REC, "master:")],
)  # fmt: skip
def test_propagation_by_descriptor(tmp_path, flags, expected):
    def use(root_fd, root) -> None:
        os.makedirs(root / "m/below")
        syscalls.mount("tmpfs", str(root / "m"), "tmpfs", 0, None)
        os.mkdir(root / "m/below")
        syscalls.mount("tmpfs", str(root / "m/below"), "tmpfs", 0, None)
        if flags & MS_SLAVE:
            mounts.set_propagation(str(root / "m"), MS_SHARED | MS_REC)
            syscalls.mount(str(root / "m"), str(root / "dev"), None, MS_BIND | MS_REC, None)
        fd = mounts.open_in_root(root_fd, "/m")
        mountfd.set_propagation(fd, flags)
        found = mount_at(root / "m")["shared"], mount_at(root / "m/below")["shared"]
        say(found[0].startswith(expected) and bool(found[0]) == bool(expected), f"{found}")
        if not flags & MS_REC:
            say(not found[1], f"{found}")
        else:
            say(found[1].startswith(expected), f"{found}")

    in_root(tmp_path, use)


# --- new file systems, masks ------------------------------------------------------------------


def test_new_filesystem_is_as_asked_and_nowhere_until_placed(tmp_path):
    def use(root_fd, root) -> None:
        before = len(mountinfo())
        fd = mountfd.new_filesystem("tmpfs", "me", MS_NOEXEC | MS_NODEV, "size=64k,mode=1770")
        say(len(mountinfo()) == before, "visible already")
        target = mounts.make_in_root(root_fd, "/t", directory=True)
        mountfd.place(fd, target)
        now = mount_at(root / "t")
        say({"noexec", "nodev"} <= now["options"] and "size=64k" in now["super"], f"{now}")
        say(stat.S_IMODE(os.stat(root / "t").st_mode) == 0o1770, "mode")
        try:
            mountfd.new_filesystem("tmpfs", "me", 0, "nonsense=1")
        except OSError as error:
            say(error.errno == errno.EINVAL and "nonsense" in str(error.strerror), f"{error}")
            return
        raise OSError(0, "nonsense was accepted")

    in_root(tmp_path, use)


def make_null(root) -> None:
    (root / "dev/null").touch()
    syscalls.mount("/dev/null", str(root / "dev/null"), None, MS_BIND, None)


def test_masks_cover_files_and_directories(tmp_path):
    def use(root_fd, root) -> None:
        make_null(root)
        (root / "file").write_text("fact")
        (root / "file2").write_text("fact")
        for name in ("dir", "dir2", "dir3"):
            (root / name).mkdir()
            (root / name / "fact").touch()
        mountfd.mask_in_root(root_fd, ["/file", "/dir", "/dir2", "/file2", "/dir3"])
        for name in ("file", "file2"):
            say((root / name).read_bytes() == b"", f"{name} is not covered")
        for name in ("dir", "dir2", "dir3"):
            say(not os.listdir(root / name), f"{name} is not covered")
            say("ro" in mount_at(root / name)["options"], "the cover can be written")
        before = mountinfo()
        for absent in ("/missing", "/missing/below", "/file/below"):
            mountfd.mask_in_root(root_fd, [absent])
            mountfd.readonly_in_root(root_fd, absent)
        say(mountinfo() == before, "masked what is not there")

    in_root(tmp_path, use)


@pytest.mark.parametrize("null", ["symlink", "file", "another device"])
def test_a_false_dev_null_masks_nothing(tmp_path, null):
    def use(root_fd, root) -> None:
        (root / "file").write_text("fact")
        if null == "symlink":
            (root / "dev/null").symlink_to("/secret")
            (root / "secret").touch()
        elif null == "file":
            (root / "dev/null").touch()
        else:
            (root / "dev/null").touch()
            syscalls.mount("/dev/zero", str(root / "dev/null"), None, MS_BIND, None)
        try:
            mountfd.mask_in_root(root_fd, ["/file"])
        except OSError as error:
            say(error.errno == errno.EINVAL and "/dev/null" in (error.strerror or ""), f"{error}")
            say((root / "file").read_text() == "fact", "something was mounted")
            return
        raise OSError(0, "bound a file of the image's choice")

    in_root(tmp_path, use)


def test_readonly_covers_what_is_below_when_asked(tmp_path):
    def use(root_fd, root) -> None:
        os.makedirs(root / "a/below")
        syscalls.mount("tmpfs", str(root / "a/below"), "tmpfs", 0, None)
        mountfd.readonly_in_root(root_fd, "/a")
        say("ro" in mount_at(root / "a")["options"], "not read-only")
        say("rw" in mount_at(root / "a/below")["options"], "more than asked")
        mountfd.readonly_in_root(root_fd, "/a", recursive=True)
        say("ro" in mount_at(root / "a/below")["options"], "not all the way down")

    in_root(tmp_path, use)


# --- tmpcopyup --------------------------------------------------------------------------------


def test_tmpfs_starts_with_a_copy(tmp_path):
    def use(root_fd, root) -> None:
        data = root / "data"
        (data / "sub/deep").mkdir(parents=True)
        (data / "sub/deep/big").write_bytes(big := os.urandom(3_000_000))
        (data / "tool").write_text("#!")
        (data / "tool").chmod(0o4755)
        (data / "out").symlink_to(tmp_path / "host/secret")
        (data / "loop").symlink_to(".")
        os.mkfifo(data / "fifo", 0o640)
        data.chmod(0o1711)
        mountfd.tmpfs_with_copy(root_fd, "/data", MS_RDONLY | MS_NODEV, "size=8m")
        now = mount_at(data)
        say(now["type"] == "tmpfs" and {"ro", "nodev"} <= now["options"], f"{now}")
        say((data / "sub/deep/big").read_bytes() == big, "content")
        say(stat.S_IMODE((data / "tool").stat().st_mode) == 0o4755, "setuid bit")
        say(os.readlink(data / "out") == str(tmp_path / "host/secret"), "a link was followed")
        say(os.readlink(data / "loop") == ".", "a link was followed")
        say(stat.S_ISFIFO(os.lstat(data / "fifo").st_mode), "fifo")
        say(stat.S_IMODE(data.stat().st_mode) == 0o1711, "mode of the top")

    in_root(tmp_path, use)


def test_a_copy_that_does_not_fit_leaves_nothing(tmp_path):
    def use(root_fd, root) -> None:
        (root / "data").mkdir()
        (root / "data/big").write_bytes(b"x" * 100_000)
        try:
            mountfd.tmpfs_with_copy(root_fd, "/data", 0, "size=8k,mode=700")
        except OSError as error:
            say(error.errno == errno.ENOSPC, f"{error}")
            say(not os.path.ismount(root / "data"), "half a copy is visible")
            return
        raise OSError(0, "fitted")

    in_root(tmp_path, use)


# --- /proc ------------------------------------------------------------------------------------


def test_open_proc_reads_and_writes_the_real_one():
    fd = proc.open_proc("self/status")
    with open(fd) as status:
        assert f"Pid:\t{os.getpid()}" in status.read()

    def child() -> None:
        proc.write_proc("self/comm", "renamed")
        with open("/proc/self/comm") as comm:
            say(comm.read() == "renamed\n", "not written")

    in_child(child)
    with pytest.raises(OSError, match=r"write\('/proc/self/oom_score_adj', 'x'\)"):
        proc.write_proc("self/oom_score_adj", "x")


@pytest.mark.parametrize("path", ["self/root/etc/passwd", "self/fd/0", "../etc/passwd", "self/cwd",
                                  "/etc/passwd", "self/exe"])  # fmt: skip
def test_open_proc_leaves_proc_by_no_link(path):
    with pytest.raises(OSError) as caught:  # noqa: PT011 (the errno is asserted below)
        proc.open_proc(path)
    assert caught.value.errno in (errno.ELOOP, errno.EXDEV)


@pytest.mark.parametrize(
    "trap", ["directory", "symlink", "tmpfs over a file", "bound over a file", "a part of proc"]
)
def test_open_proc_is_not_deceived(tmp_path, trap):
    def use(root_fd, root) -> None:
        target = str(root / "proc")
        os.mkdir(target)
        path = "self/comm"
        if trap == "directory":
            os.makedirs(f"{target}/self")
            (root / "proc/self/comm").touch()
        elif trap == "symlink":
            os.rmdir(target)
            os.symlink("/proc", target)
        else:
            syscalls.mount("/proc", target, None, MS_BIND | MS_REC, None)
        if trap == "tmpfs over a file":
            syscalls.mount("tmpfs", f"{target}/sys", "tmpfs", 0, None)
            os.mkdir(f"{target}/sys/kernel")
            (root / "proc/sys/kernel/ostype").touch()
            path = "sys/kernel/ostype"
        elif trap == "bound over a file":
            # procfs over procfs: the type is right, the file is another one
            syscalls.mount("/proc/version", f"{target}/uptime", None, MS_BIND, None)
            path = "uptime"
        elif trap == "a part of proc":
            syscalls.mount("/proc/sys", target, None, MS_BIND, None)
            path = "kernel/ostype"
        try:
            proc.open_proc(path, root=target)
        except OSError as error:
            say(error.errno in (errno.EXDEV, errno.ELOOP, errno.ENOTDIR), f"{error}")
            return
        raise OSError(0, "took a file of the image's choice for one of /proc")

    in_root(tmp_path, use)


def test_flags_to_attributes():
    assert mountfd.attributes(MS_RDONLY | MS_NODEV | MS_NOEXEC | MS_BIND) == (
        MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, 0
    )  # fmt: skip
    assert mountfd.attributes(MS_NOATIME) == (MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME)
