"""kernel/: each mechanism against an oracle: the constants of other programs, /proc, the kernel."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.doctor import enter, in_child
from minicontainer.kernel import capabilities, clib, mounts, namespaces, syscalls


def test_flags_are_shown_by_the_kernels_names():
    text = syscalls.unshare.text(syscalls.CLONE_NEWPID | syscalls.CLONE_NEWUSER | 1 << 4)
    assert text == "unshare(flags=CLONE_NEWUSER|CLONE_NEWPID|0x10)"
    assert syscalls.mount.text("none", "/", None, 0, None).endswith("mountflags=0, data=None)")


def test_failures_show_the_call():
    with pytest.raises(FileNotFoundError) as caught:
        syscalls.umount2("/no/such/place", syscalls.MNT_DETACH)
    assert caught.value.errno == errno.ENOENT
    assert caught.value.strerror == "umount2(target='/no/such/place', flags=MNT_DETACH)"


def test_the_trace_point_sees_results_and_failures(monkeypatch):
    seen: list[tuple] = []
    monkeypatch.setattr(syscalls, "trace", lambda *event: seen.append(event))
    old = syscalls.umask(0o022)
    with pytest.raises(OSError):  # noqa: PT011 (which one is the next test's business)
        syscalls.chdir("/no/such/place")
    syscalls.umask(old)
    assert [event[0] for event in seen][:2] == ["umask(mask=022)", "chdir(path='/no/such/place')"]
    assert seen[0][1] == old
    assert isinstance(seen[1][1], OSError)
    assert all(start <= end for _, _, start, end in seen)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (clib.INT, ctypes.c_int), (clib.LONG, ctypes.c_long), (clib.ULONG, ctypes.c_ulong),
        (clib.UINT32, ctypes.c_uint32), (clib.UINT64, ctypes.c_uint64),
    ],
)  # fmt: skip
def test_types_are_those_of_ctypes(ours, theirs):
    assert clib.sizeof(ours) == ctypes.sizeof(theirs)
    for value in (0, 1, -1, 1 << 31, 1 << 63):
        assert bytes((ours * 2)(value, 7)) == bytes((theirs * 2)(value, 7))


def test_strings_and_memory_are_those_of_ctypes():
    length, compare = (
        clib.function("strlen", clib.STRING),
        clib.function("memcmp", *[clib.POINTER] * 3),
    )
    assert length("é".encode()) == 2
    here, content = clib.buffer(b"ab\0c", 6), bytearray(b"ab\0c\0\0")
    assert compare(clib.addressof(here), clib.addressof(clib.view(content)), 6) == 0
    content[5] = 1
    assert compare(clib.addressof(here), clib.addressof(clib.view(content)), 6) != 0
    with pytest.raises(OSError, match="no_such_function"):
        clib.function("no_such_function")


@pytest.mark.rootless
@pytest.mark.parametrize("kind", namespaces.NAMESPACES)
def test_each_namespace_is_new_and_the_others_are_kept(kind):
    def child() -> None:
        before = namespaces.inodes()
        enter(*(["user"] if kind == "user" else ["user", kind]))
        pid = os.fork()  # pid and time hold for children
        if pid == 0:
            after = namespaces.inodes()
            changed = {name for name in before if before[name] != after[name]}
            os._exit(0 if changed == {"user", kind} else 1)
        if os.waitpid(pid, 0)[1]:
            raise OSError(0, f"not just {kind} changed")

    in_child(child)


@pytest.mark.parametrize("name", ["mount", "umount2", "unshare"])
def test_flag_values_are_the_c_headers(name, tmp_path):
    """The oracle: the C compiler, on the kernel's and the C library's own headers."""
    prefixes = {"mount": "MS_", "umount2": "MNT_", "unshare": "CLONE_"}
    constants = [n for n in vars(syscalls) if n.startswith(prefixes[name])]
    source = tmp_path / "flags.c"
    source.write_text(
        "#include <linux/sched.h>\n#include <linux/mount.h>\n#include <stdio.h>\n"
        "#ifndef MNT_DETACH\n#define MNT_DETACH 2\n#endif\n"
        "int main(void) {" + "".join(f'printf("%lu\\n", (unsigned long){c});' for c in constants)
        + "return 0; }"
    )  # fmt: skip
    try:
        subprocess.run(["cc", source, "-o", tmp_path / "flags"], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no C compiler: apt install gcc")
    done = subprocess.run([tmp_path / "flags"], check=True, capture_output=True, text=True)
    theirs = [int(line) for line in done.stdout.split()]
    assert dict(zip(constants, theirs, strict=True)) == {c: getattr(syscalls, c) for c in constants}


def test_capability_names_are_the_kernels():
    """The oracles: the kernel's own header, and what docker shows in a container."""
    header = Path("/usr/include/linux/capability.h")
    if not header.exists():
        pytest.skip(f"{header} is missing: apt install linux-libc-dev")
    words = [line.split() for line in header.read_text().splitlines()]
    numbers = {w[1]: int(w[2]) for w in words if w[:1] == ["#define"] and w[2:3] and w[2].isdigit()}
    for number, name in enumerate(capabilities.NAMES):
        assert numbers[name] == number
    assert capabilities.mask(capabilities.DOCKER_DEFAULT) == 0xA80425FB  # as docker run shows it
    assert capabilities.NAMES.index("CAP_SYS_ADMIN") == 21


def test_locked_options_and_words():
    assert mounts.parse_options(["ro", "nosuid", "rbind", "rslave", "size=1k", "mode=755"]) == (
        syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_BIND | syscalls.MS_REC,
        syscalls.MS_SLAVE | syscalls.MS_REC,
        "size=1k,mode=755",
    )


@given(st.lists(st.sampled_from(sorted(mounts.FLAG_OPTIONS))))
def test_the_last_word_of_a_pair_wins(words):
    flags, _, data = mounts.parse_options(words)
    assert data is None
    for on, off in (("ro", "rw"), ("nosuid", "suid"), ("nodev", "dev"), ("noexec", "exec")):
        said = [word for word in words if word in (on, off)]
        assert bool(flags & mounts.FLAG_OPTIONS[on][0]) == bool(said and said[-1] == on)


@pytest.mark.parametrize(
    ("path", "inside"),
    [("/up", "etc"), ("/absolute", "etc"), ("/a/../../../etc", "etc"), ("/chain/x", None)],
)
def test_no_path_leads_out_of_a_root(tmp_path, path, inside):
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "a").mkdir()
    (root / "up").symlink_to("../../../etc")
    (root / "absolute").symlink_to("/etc")
    (root / "chain").symlink_to("/no/where")
    root_fd = os.open(root, os.O_PATH)
    try:
        if inside:
            fd = mounts.open_in_root(root_fd, path)
            assert os.readlink(f"/proc/self/fd/{fd}") == str(root / inside)
            os.close(fd)
        else:
            with pytest.raises(FileNotFoundError):
                mounts.open_in_root(root_fd, path)
    finally:
        os.close(root_fd)


def test_mount_points_are_made_inside(tmp_path):
    (tmp_path / "link").symlink_to("/made/by/link")
    root_fd = os.open(tmp_path, os.O_PATH)
    try:
        os.close(mounts.make_in_root(root_fd, "/a/b/c", directory=True))
        os.close(mounts.make_in_root(root_fd, "/a/file", directory=False))
        with pytest.raises(FileNotFoundError):
            mounts.make_in_root(root_fd, "/link", directory=True)
    finally:
        os.close(root_fd)
    assert (tmp_path / "a/b/c").is_dir()
    assert (tmp_path / "a/file").is_file()
    assert not Path("/made").exists()


@pytest.mark.rootless
def test_change_root_starts_lookups_there(tmp_path):
    (tmp_path / "here").touch()

    def child() -> None:
        enter("user")
        mounts.change_root(str(tmp_path))
        if os.listdir("/") != ["here"] or os.getcwd() != "/":
            raise OSError(0, "not in the new root")

    in_child(child)


@pytest.mark.rootless
def test_pivot_root_leaves_no_other_mount(tmp_path):
    def child() -> None:
        enter("user", "mount")
        mounts.set_propagation("/", syscalls.MS_PRIVATE | syscalls.MS_REC)
        syscalls.mount("tmpfs", str(tmp_path), "tmpfs", 0, None)
        os.mkdir(tmp_path / "proc")
        syscalls.mount("/proc", f"{tmp_path}/proc", None, syscalls.MS_BIND | syscalls.MS_REC, None)
        mounts.pivot_root(str(tmp_path))
        with open("/proc/self/mountinfo") as mountinfo:
            targets = [line.split()[4] for line in mountinfo]
        if targets[:2] != ["/", "/proc"] or not all(t.startswith("/proc") for t in targets[1:]):
            raise OSError(0, f"still mounted: {targets}")

    in_child(child)
