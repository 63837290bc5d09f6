"""seccomp: compiler against libseccomp, filters in the kernel, the cache against mischief."""

from __future__ import annotations

import ctypes
import errno
import functools
import json
import os
import platform
import signal
import struct
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from minicontainer.kernel import bpf, capabilities, seccomp, seccomp_compiler, syscalls
from minicontainer.kernel.seccomp_default import AF_VSOCK, default_profile
from minicontainer.kernel.seccomp_profile import ACTIONS, ARCHITECTURES, DOORS, parse, unknown
from tests import syscall_table

ALLOW, KILL_PROCESS = ACTIONS["SCMP_ACT_ALLOW"], ACTIONS["SCMP_ACT_KILL_PROCESS"]
ENOSYS, EPERM = 0x50000 | errno.ENOSYS, 0x50000 | errno.EPERM
AUDIT = {column: arch for family in ARCHITECTURES.values() for _, arch, column in family}
MACHINE = platform.machine()
x86_64 = pytest.mark.skipif(MACHINE != "x86_64", reason="this test is about x86-64")


def run(program: bytes, column: str, number: int, args=()) -> int:
    """What the kernel would decide: an interpreter for classic BPF (net/core/filter.c)."""
    words = [*args, *[0] * (6 - len(args))]
    data = struct.pack("=IIQ6Q", number, AUDIT.get(column, 0xDEAD), 0, *words)
    code, here, a = bpf.instructions(program), 0, 0
    while True:
        op, yes, no, k = code[here]
        here += 1
        if op == bpf.LOAD:
            (a,) = struct.unpack_from("=I", data, k)
        elif op == bpf.AND:
            a &= k
        elif op == bpf.JUMP:
            here += k
        elif op == bpf.RETURN:
            return k
        elif op in (0x55, 0x45):  # BPF_JSET is libseccomp's, never ours
            here += yes if a & k else no
        else:
            tests = {bpf.EQUAL: a == k, bpf.GREATER: a > k, bpf.AT_LEAST: a >= k}
            here += yes if tests[op] else no


@functools.cache
def numbers(column: str) -> dict[str, int]:
    return seccomp_compiler.numbers(column)


def rule(names, action="SCMP_ACT_ALLOW", *args, **more) -> dict:
    tests = [
        {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": (*two, 0)[0]}
        for index, op, value, *two in args
    ]
    return {"names": names.split(), "action": action, "args": tests, **more}


def profile(default: str, *rules: dict, **more) -> dict:
    listed = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    return {"defaultAction": default, "architectures": listed, "syscalls": list(rules), **more}


# --- the table of calls -----------------------------------------------------------------------


@pytest.mark.parametrize("column", ["x86_64", "i386"] if MACHINE == "x86_64" else ["aarch64"])
def test_table_is_this_hosts_headers(column):
    include = f"/usr/include/{MACHINE}-linux-gnu"
    include = include if os.path.isdir(include) else "/usr/include"
    try:
        theirs = syscall_table.read_headers(include, column)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no C compiler or no kernel headers: apt install gcc linux-libc-dev")
    ours = numbers(column)
    known = {name: number for name, number in theirs.items() if name in ours}
    assert len(known) > 300
    assert known == {name: ours[name] for name in known}


@pytest.mark.parametrize("column", AUDIT)
def test_table_is_libseccomps(column):
    resolve = libseccomp().seccomp_syscall_resolve_name_arch
    for name, number in numbers(column).items():
        theirs = resolve(ctypes.c_uint32(AUDIT[column]), name.encode())
        assert theirs == number or theirs < 0, name  # below 0: too new for it, or a second name


# --- the compiler against libseccomp ----------------------------------------------------------


class _ArgCmp(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


def libseccomp():
    try:
        return ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("libseccomp is not installed: apt install libseccomp2")


def theirs(oci: dict, column: str) -> bytes:
    """The same profile compiled by libseccomp for one kind of calls, called as runc calls it.

    Names without a number are left out: with them libseccomp 2.5.4 can forget to load the call's
    number, and then compares the architecture's instead.
    """
    library = libseccomp()
    library.seccomp_init.restype = ctypes.c_void_p
    default, rules = parse(oci)
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(default)))
    native = library.seccomp_arch_native()
    if native != ctypes.c_int32(AUDIT[column]).value:
        library.seccomp_arch_add(context, ctypes.c_uint32(AUDIT[column]))
        library.seccomp_arch_remove(context, ctypes.c_uint32(native))
    order = ["!=", "<", "<=", "==", ">=", ">", "&"]
    for entry in rules:
        array = (_ArgCmp * 6)(
            *[_ArgCmp(i, order.index(op) + 1, a, b) for i, op, a, b in entry.conditions]
        )
        for name in set(numbers(column)) & set(entry.names) if entry.result != default else ():
            number = library.seccomp_syscall_resolve_name(name.encode())
            done = library.seccomp_rule_add_array(
                context, ctypes.c_uint32(entry.result), number, len(entry.conditions), array
            )
            assert done in (0, -errno.EEXIST), (name, done)
    with tempfile.TemporaryFile() as file:
        assert library.seccomp_export_bpf(context, file.fileno()) == 0
        library.seccomp_release(context)
        file.seek(0)
        return file.read()


EDGES = (0, 1, 2, 39, 40, 41, 0x7E020000, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**32 + 40,
         2**63, 2**64 - 2, 2**64 - 1)  # fmt: skip
NAMES = (
    "read", "write", "open", "openat", "clone", "clone3", "personality", "socket", "bind",
    "accept4", "recv", "semop", "shmat", "msgget", "waitpid", "socketcall", "ptrace", "fchmodat",
    "mmap", "mmap2", "newfstatat", "cacheflush", "no_such_call",
)  # fmt: skip
NAMES_WITH_NUMBER = sorted({*NAMES} - {"recv", "semop"})  # on i386 they are only doors
values = st.sampled_from(EDGES) | st.integers(0, 2**64 - 1)
conditions = st.tuples(
    st.integers(0, 5),
    st.sampled_from(["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]),
    values,
    values,
)


@st.composite
def profiles(draw, alternatives: bool):
    """Random profiles; without alternatives each call has one rule, and that rule one action."""
    default = draw(st.sampled_from(["ERRNO", "ALLOW", "KILL_PROCESS", "TRAP", "LOG"]))
    rules: dict[str, list[dict]] = {}
    for _ in range(draw(st.integers(1, 6))):
        name = draw(st.sampled_from(NAMES if alternatives else NAMES_WITH_NUMBER))
        unique = None if alternatives else (lambda test: test[0])
        tests = draw(st.lists(conditions, max_size=3, unique_by=unique))
        action = draw(st.sampled_from(["KILL", "ERRNO", "TRACE", "ALLOW"]))
        more = {"errnoRet": 77} if action in ("ERRNO", "TRACE") else {}
        door = name if alternatives else DOORS.get(name, [name])[0]
        rules.setdefault(door, []).append(rule(name, f"SCMP_ACT_{action}", *tests, **more))
    chosen = [one for same in rules.values() for one in (same if alternatives else same[:1])]
    return profile(f"SCMP_ACT_{default}", *chosen)


def inputs(data, oci: dict, column: str) -> tuple[int, tuple]:
    """A system call near to what the profile speaks of."""
    rules, table = parse(oci)[1], numbers(column)
    names = {name for entry in rules for name in entry.names} | {"socketcall", "ipc"}
    near = {table[n] + d for n in names & set(table) for d in (-1, 0, 1)} - {-1} | {0, 450}
    limit = 2**64 if AUDIT[column] & 0x80000000 else 2**32
    said = [value for entry in rules for _, _, *pair in entry.conditions for value in pair]
    edges = {(v + d) % limit for v in (*EDGES, *said) for d in (-1, 0, 1) if v < limit}
    words = st.sampled_from(sorted(edges))
    return data.draw(st.tuples(st.sampled_from(sorted(near)), st.tuples(*[words] * 6)))


def newest(oci: dict, column: str) -> int:
    default, rules = parse(oci)
    table = numbers(column)
    called = {name for entry in rules if entry.result != default for name in entry.names}
    doors = {DOORS[name][0] for name in called & set(DOORS)} if column == "i386" else set()
    return max([table[n] for n in called | doors if table.get(n, 0xF0000) < 0xF0000] + [-1])


def meaning(oci: dict, column: str, number: int, args) -> int:
    """What a profile says about a call, without any BPF: a model to hold the compiler against."""
    default, rules = parse(oci)
    names = {name for name, n in numbers(column).items() if n == number}
    limit = 2**64 if AUDIT[column] & 0x80000000 else 2**32
    hold = {
        "!=": int.__ne__, "<": int.__lt__, "<=": int.__le__, "==": int.__eq__, ">=": int.__ge__,
        ">": int.__gt__,
    }  # fmt: skip

    def holds(index, operator, value, second) -> bool:
        value, second = value % limit, second % limit
        if operator == "&":
            return args[index] & value == second & value
        return hold[operator](args[index], value)

    found: list[tuple[list, int]] = []
    for entry in rules:
        for name in entry.names if entry.result != default else ():
            if name in names:
                found.append((entry.conditions, entry.result))
            if column == "i386" and name in DOORS and DOORS[name][0] in names:
                rest = [test for test in entry.conditions if test[0]]
                found.append(([(0, "==", DOORS[name][1], 0), *rest], entry.result))
    for tests, result in sorted(found, key=lambda one: bool(one[0])):  # stable
        if all(holds(*test) for test in tests):
            return result
    if not found and default & 0xFFFF0000 == 0x50000 and 0 <= newest(oci, column) < number:
        return ENOSYS
    return default


@pytest.mark.parametrize("machine", ARCHITECTURES)
@settings(deadline=None, phases=[Phase.explicit, Phase.generate])  # shrinking takes minutes
@given(oci=profiles(alternatives=True), data=st.data())
def test_decisions_are_what_the_profile_says(machine, oci, data):
    program = seccomp_compiler.compile(oci, machine)
    for _, _, column in ARCHITECTURES[machine]:
        for _ in range(8):
            number, args = inputs(data, oci, column)
            assert run(program, column, number, args) == meaning(oci, column, number, args)


@pytest.mark.parametrize("machine", ARCHITECTURES)
@settings(deadline=None, phases=[Phase.explicit, Phase.generate])  # shrinking takes minutes
@given(oci=profiles(alternatives=False), data=st.data())
def test_decisions_are_libseccomps(machine, oci, data):
    """One rule for each call: where rules share an argument, 2.5.4 loses track of which half of
    it is loaded (`<= 0` or `< 2**32` on the same one lets 5 pass)."""
    program = seccomp_compiler.compile(oci, machine)
    for _, _, column in ARCHITECTURES[machine]:
        oracle = theirs(oci, column)
        for _ in range(8):
            number, args = inputs(data, oci, column)
            expected = run(oracle, column, number, args)
            if expected == EPERM and meaning(oci, column, number, args) == ENOSYS:
                expected = ENOSYS  # libseccomp has none for newer calls
            assert run(program, column, number, args) == expected, (column, number, args)


def test_conditions_hold_together_and_rules_are_alternatives():
    oci = profile(
        "SCMP_ACT_ERRNO",
        rule("read", "SCMP_ACT_ALLOW", (0, "EQ", 1), (1, "GT", 2**32)),
        rule("read", "SCMP_ACT_ALLOW", (2, "MASKED_EQ", 0xF0, 0x10)),
        rule("write", "SCMP_ACT_ALLOW", (0, "EQ", 1), (0, "EQ", 2)),  # one argument: alternatives
        rule("getpid"),
    )
    program = seccomp_compiler.compile(oci, "x86_64")
    decide = {
        (0, (1, 2**32 + 1)): ALLOW,
        (0, (1, 2**32)): EPERM,
        (0, (0, 2**32 + 1)): EPERM,
        (0, (9, 0, 0x1F)): ALLOW,
        (1, (2,)): ALLOW,
        (1, (3,)): EPERM,
        (39, ()): ALLOW,
        (38, ()): EPERM,
        (40, ()): ENOSYS,  # newer than all that the profile names
    }
    assert {key: run(program, "x86_64", *key) for key in decide} == decide


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 0)])
def test_a_rule_without_conditions_replaces_those_with_some(first, second):
    both = [rule("read", "SCMP_ACT_KILL", (0, "EQ", 1)), rule("read")]
    oci = profile("SCMP_ACT_ERRNO", both[first], both[second])
    assert run(seccomp_compiler.compile(oci, "x86_64"), "x86_64", 0, (1,)) == ALLOW
    assert run(theirs(oci, "x86_64"), "x86_64", 0, (1,)) == ALLOW


def test_other_machines_calls_are_fatal_and_x32_is_not_there():
    program = seccomp_compiler.compile(profile("SCMP_ACT_ALLOW", architectures=[]), "x86_64")
    assert run(program, "x86_64", 1) == ALLOW
    assert run(program, "i386", 1) == KILL_PROCESS
    assert run(program, "nothing", 1) == KILL_PROCESS
    assert run(program, "x86_64", 0x40000001) == ENOSYS
    assert run(program, "x86_64", 0xFFFFFFFF) == ENOSYS


def test_far_jumps():
    """Each call has a condition of its own, so branches of 8 bits cannot reach all of them."""
    names = sorted(numbers("x86_64"))[:300]
    entries = [rule(n, "SCMP_ACT_ALLOW", (5, "GE", i << 33)) for i, n in enumerate(names)]
    program = seccomp_compiler.compile(profile("SCMP_ACT_ERRNO", *entries), "x86_64")
    assert any(op == bpf.JUMP and k > 255 for op, _, _, k in bpf.instructions(program))
    for i, name in enumerate(names):
        number = numbers("x86_64")[name]
        assert run(program, "x86_64", number, (0, 0, 0, 0, 0, i << 33)) == ALLOW
        if i:
            assert run(program, "x86_64", number, (0, 0, 0, 0, 0, (i << 33) - 1)) == EPERM


def test_too_long_a_program_is_refused():
    entries = [rule("read", "SCMP_ACT_ALLOW", (i % 6, "GT", i << 33)) for i in range(1500)]
    with pytest.raises(ValueError, match="at most 4096"):
        seccomp_compiler.compile(profile("SCMP_ACT_ERRNO", *entries), "x86_64")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"defaultAction": "SCMP_ACT_MAYBE"}, r"linux\.seccomp\.defaultAction"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "SCMP_ACT_NOTIFY is not supported"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}, "defaultErrnoRet"),
        ({"defaultErrnoRet": -1}, "defaultErrnoRet"),
        ({"architectures": ["x86"]}, r"architectures\[0\]"),
        ({"flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}, r"flags\[0\]"),
        ({"syscalls": [rule("", "SCMP_ACT_ALLOW")]}, r"syscalls\[0\]\.names"),
        ({"syscalls": [rule("read", "SCMP_ACT_NOTIFY")]}, r"syscalls\[0\]\.action"),
        ({"syscalls": [rule("read", "SCMP_ACT_ALLOW", errnoRet=1)]}, r"syscalls\[0\]\.errnoRet"),
        ({"syscalls": [rule("read", "SCMP_ACT_KILL", (6, "EQ", 1))]}, r"args\[0\]\.index"),
        ({"syscalls": [rule("read", "SCMP_ACT_KILL", (0, "IS", 1))]}, r"args\[0\]\.op"),
        ({"syscalls": [rule("read", "SCMP_ACT_KILL", (0, "EQ", -1))]}, r"args\[0\]\.value"),
        ({"syscalls": [rule("read", "SCMP_ACT_KILL", (0, "EQ", 1, "x"))]}, r"args\[0\]\.valueTwo"),
    ],
)
def test_errors_name_the_field(change, field):
    with pytest.raises(ValueError, match=field):
        seccomp.compile(profile("SCMP_ACT_ERRNO") | change)


def test_unknown_names_are_skipped_and_told():
    oci = profile("SCMP_ACT_ERRNO", rule("read no_such_call recv"))
    assert unknown(parse(oci)[1]) == ["no_such_call"]
    assert "skipped, unknown to this runtime: no_such_call" in seccomp.describe(oci)
    assert run(seccomp_compiler.compile(oci, "x86_64"), "x86_64", 0) == ALLOW


def test_disassembly_reads_as_the_program_runs():
    program = seccomp_compiler.compile(profile("SCMP_ACT_ERRNO", rule("read", "SCMP_ACT_LOG",
                                  (0, "MASKED_EQ", 1, 1)), architectures=[]), "x86_64")  # fmt: skip
    assert bpf.disassemble(program) == [
        "   0: A = arch",
        "   1: if A == 0xc000003e goto 2 else 10",
        "   2: A = nr",
        "   3: if A >= 0x1 goto 8 else 4",
        "   4: A = args[0].low",
        "   5: A &= 0x1",
        "   6: if A == 0x1 goto 7 else 9",
        "   7: return 0x7ffc0000",
        "   8: return 0x50026",
        "   9: return 0x50001",
        "  10: return 0x80000000",
    ]


# --- the default profile ----------------------------------------------------------------------


@pytest.mark.parametrize("held", [capabilities.DOCKER_DEFAULT, capabilities.NAMES, ()])
@pytest.mark.parametrize("column", AUDIT)
def test_default_profile_is_compact_and_deep_as_a_tree(column, held):
    machine = "x86_64" if column in ("x86_64", "i386") else "aarch64"
    program = seccomp_compiler.compile(default_profile(held), machine)
    assert len(program) // 8 < 400
    assert run(program, column, numbers(column)["read"]) == ALLOW
    assert run(program, column, numbers(column)["keyctl"]) == EPERM
    assert run(program, column, 2000) == ENOSYS
    allowed = "CAP_SYS_ADMIN" in held
    clone = numbers(column)["clone"]
    assert run(program, column, clone, (signal.SIGCHLD,)) == ALLOW
    for flag in (n for n in vars(syscalls) if n.startswith("CLONE_NEW") and n != "CLONE_NEWTIME"):
        made = run(program, column, clone, (getattr(syscalls, flag) | signal.SIGCHLD,))
        assert made == (ALLOW if allowed else EPERM)
    assert run(program, column, numbers(column)["clone3"]) == (ALLOW if allowed else ENOSYS)
    assert run(program, column, numbers(column)["mount"]) == (ALLOW if allowed else EPERM)


@given(family=st.integers(0, 2**64 - 1) | st.sampled_from([AF_VSOCK, AF_VSOCK + 2**32]))
def test_no_integer_is_af_vsock_to_the_kernel_but_not_to_the_filter(family):
    decided = run(DEFAULT, "x86_64", 41, (family,))
    if family & 0xFFFFFFFF == AF_VSOCK:
        assert decided == EPERM
    elif family & 0xFFFFFFFF < AF_VSOCK + 24:
        assert decided == ALLOW


DEFAULT = seccomp_compiler.compile(default_profile(capabilities.DOCKER_DEFAULT), "x86_64")


def moby(source: dict, held, machine: str) -> dict:
    """A profile in docker's own format (includes, excludes) for these capabilities."""
    words = {"x86_64": {"amd64", "x32", "x86"}, "aarch64": {"arm64", "arm"}}[machine]
    rules = []
    for entry in source["syscalls"]:
        inc, exc = entry.get("includes") or {}, entry.get("excludes") or {}
        if (
            (inc.get("caps") and not set(inc["caps"]) <= set(held))
            or (inc.get("arches") and not set(inc["arches"]) & words)
            or set(exc.get("caps") or ()) & set(held)
            or set(exc.get("arches") or ()) & words
        ):
            continue
        kept = {k: entry[k] for k in ("names", "action", "args", "errnoRet") if k in entry}
        kept["names"] = kept.get("names") or [entry["name"]]
        if kept["action"] != "SCMP_ACT_ERRNO":
            kept.pop("errnoRet", None)
        rules.append(kept)
    return profile("SCMP_ACT_ERRNO", *rules)


PODMAN = Path("/usr/share/containers/seccomp.json")
# Podman leaves these to the kernel's own checks of capabilities; docker and we do not.
LEFT_TO_CAPABILITIES = {
    "clone", "clone3", "fsconfig", "fsmount", "fsopen", "fspick", "get_mempolicy", "keyctl",
    "lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr", "mbind", "mount", "mount_setattr",
    "move_mount", "open_tree", "open_tree_attr", "pidfd_getfd", "pivot_root", "reboot",
    "set_mempolicy", "set_mempolicy_home_node", "setns", "syslog", "umount", "umount2", "unshare",
}  # fmt: skip
# Of 32-bit C libraries from before 1998, or from before Linux 2.6.
OLD = {"query_module", "readdir", "sigaction", "signal", "sigpending", "sigsuspend"}


@pytest.mark.skipif(not PODMAN.exists(), reason=f"{PODMAN} is missing: apt install podman")
@pytest.mark.parametrize("held", [capabilities.DOCKER_DEFAULT, capabilities.NAMES])
@pytest.mark.parametrize("column", AUDIT)
def test_default_profile_is_near_podmans(column, held):
    machine = "x86_64" if column in ("x86_64", "i386") else "aarch64"
    podman = seccomp_compiler.compile(moby(json.loads(PODMAN.read_text()), held, machine), machine)
    ours = seccomp_compiler.compile(default_profile(held), machine)
    arguments = [(value,) for value in (0, 8, 17, 41, 0x20000, 0x10000000, 0xFFFFFFFF)]

    def allowed(program: bytes) -> set[tuple]:
        return {
            (name, args)
            for name, number in numbers(column).items() if number < 425  # its list may be older
            for args in arguments if run(program, column, number, args) == ALLOW
        }  # fmt: skip

    assert {name for name, _ in allowed(podman) - allowed(ours)} <= LEFT_TO_CAPABILITIES | OLD
    assert {name for name, _ in allowed(ours) - allowed(podman)} <= {
        "io_pgetevents", "io_pgetevents_time64", "uretprobe", "vmsplice", "clone", "socket",
    }  # fmt: skip


# --- in the kernel ----------------------------------------------------------------------------


def under(program: bytes, *calls, flags: int = 0, new_privs: bool = False) -> list:
    """Make system calls (number, arguments…) in a child under the filter -> errno or 0 of each.

    The last entry is the signal that the child died of, if it did.
    """
    call = ctypes.CDLL(None, use_errno=True).syscall
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if not new_privs:
                syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
            seccomp.load(program, flags)
            for number, *args in calls:
                failed = call(ctypes.c_long(number), *[ctypes.c_ulong(a) for a in args]) == -1
                os.write(write_fd, struct.pack("i", ctypes.get_errno() if failed else 0))
        except OSError as error:
            os.write(write_fd, struct.pack("i", -(error.errno or 0)))
        finally:
            os._exit(0)
    os.close(write_fd)
    with open(read_fd, "rb") as pipe:
        results = [n for (n,) in struct.iter_unpack("i", pipe.read())]
    status = os.waitpid(pid, 0)[1]
    return [*results, signal.Signals(os.WTERMSIG(status))] if os.WIFSIGNALED(status) else results


def nr(name: str) -> int:
    return numbers(MACHINE)[name]


def test_default_profile_in_the_kernel():
    program = seccomp.compile(default_profile(capabilities.DOCKER_DEFAULT))
    clone_namespace = syscalls.CLONE_NEWUSER | signal.SIGCHLD
    assert under(
        program,
        (nr("getppid"),),
        (nr("unshare"), syscalls.CLONE_NEWUSER),
        (nr("clone"), clone_namespace, 0, 0, 0, 0),
        (nr("clone3"), 0, 0),
        (nr("mount"), 0, 0, 0, 0, 0),
        (nr("keyctl"), 0, 0),
        (nr("bpf"), 0, 0, 0),
        (nr("personality"), 0xFFFFFFFF),
        (nr("personality"), 0x0040000),  # ADDR_NO_RANDOMIZE
        (nr("socket"), 1, 1, 0),
        (nr("socket"), AF_VSOCK, 1, 0),
        (nr("socket"), AF_VSOCK + 2**32, 1, 0),
        (2000,),
    ) == [0, 1, 1, 38, 1, 1, 1, 0, 1, 0, 1, 1, 38]


def test_a_64_bit_comparison_does_not_hold_an_int():
    """Why our rule for AF_VSOCK is not docker's: the kernel drops the high half, NE does not."""
    ne = profile("SCMP_ACT_ERRNO", rule("socket", "SCMP_ACT_ALLOW", (0, "NE", 1)),
                 rule("write exit_group rt_sigreturn"))  # fmt: skip
    found = under(seccomp.compile(ne), (nr("socket"), 1, 1, 0), (nr("socket"), 1 + 2**32, 1, 0))
    assert found == [errno.EPERM, 0]


@pytest.mark.parametrize(
    ("action", "outcome"),
    [
        ("SCMP_ACT_KILL_PROCESS", [signal.SIGSYS]),
        ("SCMP_ACT_KILL", [signal.SIGSYS]),
        ("SCMP_ACT_KILL_THREAD", [signal.SIGSYS]),
        ("SCMP_ACT_TRAP", [signal.SIGSYS]),
        ("SCMP_ACT_LOG", [0, 0]),
        ("SCMP_ACT_ALLOW", [0, 0]),
        ("SCMP_ACT_ERRNO", [errno.EPERM, 0]),
        ("SCMP_ACT_TRACE", [errno.ENOSYS, 0]),  # seccomp(2): no tracer is there
    ],
)
def test_each_action_in_the_kernel(action, outcome):
    default = "SCMP_ACT_ALLOW" if action != "SCMP_ACT_ALLOW" else "SCMP_ACT_LOG"
    program = seccomp.compile(profile(default, rule("getppid", action)))
    assert under(program, (nr("getppid"),), (nr("gettid"),)) == outcome


def test_trap_delivers_a_signal_that_can_be_handled():
    program = seccomp.compile(profile("SCMP_ACT_ALLOW", rule("getppid", "SCMP_ACT_TRAP")))
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGSYS, lambda *_: os._exit(42))
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
            seccomp.load(program)
            os.getppid()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42


@x86_64
def test_x32_calls_are_refused():
    program = seccomp.compile(profile("SCMP_ACT_ALLOW"))
    assert under(program, (0x40000000 | nr("getppid"),)) == [errno.ENOSYS]


INT_0X80 = r"""
#include <stdio.h>
int main(void) {
    long result;
    __asm__ volatile ("int $0x80" : "=a"(result) : "a"(64L) : "memory"); /* i386: getppid */
    printf("%ld\n", result);
    return 0;
}
"""


@x86_64
@pytest.mark.parametrize(
    ("listed", "action", "expected"),
    [(True, "SCMP_ACT_ALLOW", ">0"), (True, "SCMP_ACT_ERRNO", "-77"), (False, None, "SIGSYS")],
)
def test_32_bit_calls_of_a_64_bit_program(tmp_path, listed, action, expected):
    """x86-64's number 64 is semget; a filter that ignored the architecture would judge that."""
    try:
        subprocess.run(["cc", "-x", "c", "-", "-o", tmp_path / "int80"], input=INT_0X80, text=True,
                       check=True)  # fmt: skip
    except FileNotFoundError:
        pytest.skip("no C compiler: apt install gcc")
    if subprocess.run([tmp_path / "int80"], capture_output=True).returncode:
        pytest.skip("this kernel has no 32-bit calls (CONFIG_IA32_EMULATION)")
    more = {"errnoRet": 77} if action == "SCMP_ACT_ERRNO" else {}
    oci = profile("SCMP_ACT_ALLOW", rule("getppid", action or "SCMP_ACT_ALLOW", **more))
    if not listed:
        oci["architectures"] = ["SCMP_ARCH_X86_64"]
    program = seccomp.compile(oci)

    def enter() -> None:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        seccomp.load(program)

    done = subprocess.run([tmp_path / "int80"], capture_output=True, text=True, preexec_fn=enter)
    if expected == "SIGSYS":
        assert done.returncode == -signal.SIGSYS
    elif expected == ">0":
        assert int(done.stdout) > 0
    else:
        assert done.stdout.strip() == expected


@pytest.mark.parametrize("flag", seccomp.FLAGS)
def test_flags_are_taken_by_the_kernel(flag):
    oci = profile("SCMP_ACT_ALLOW", flags=[flag])
    assert under(seccomp.compile(oci), (nr("getppid"),), flags=seccomp.flags(oci)) == [0]


@pytest.mark.root
def test_filter_needs_no_new_privs_or_root():
    if os.geteuid() != 0:
        pytest.skip("as an ordinary user the next test says it")
    assert under(seccomp.compile(profile("SCMP_ACT_ALLOW")), new_privs=True) == []


def test_without_no_new_privs_the_message_says_so():
    pid = os.fork()
    if pid == 0:
        try:
            if os.geteuid() == 0:
                os.setresuid(54321, 54321, 54321)
            seccomp.load(seccomp.compile(profile("SCMP_ACT_ALLOW")))
        except OSError as error:
            said = "neither no_new_privs nor CAP_SYS_ADMIN" in (error.strerror or "")
            os._exit(42 if said and error.errno == errno.EACCES else 1)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42


def test_kernel_takes_the_longest_program_that_we_make():
    entries = [rule("getppid", "SCMP_ACT_KILL", (i % 6, "EQ", (i + 1) << 33)) for i in range(1000)]
    program = seccomp.compile(profile("SCMP_ACT_ALLOW", *entries, architectures=[]))
    assert len(program) // 8 > 3000
    assert under(program, (nr("getppid"),)) == [0]


# --- the cache --------------------------------------------------------------------------------


@pytest.fixture
def oci() -> dict:
    return profile("SCMP_ACT_ERRNO", rule("read write"))


def test_cache_answers_without_compiler_and_json(tmp_path, oci):
    program = seccomp.cached(oci, f"{tmp_path}/cache")
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from minicontainer.kernel import seccomp
program = seccomp.cached({oci!r}, {f"{tmp_path}/cache"!r})
print(program.hex(), *sys.modules)
"""
    done = subprocess.run(
        [os.sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True
    )
    found, *modules = done.stdout.split()
    assert found == program.hex() == seccomp.compile(oci).hex()
    assert not {"json", "hashlib", "re"} & set(modules)
    assert not [name for name in modules if "compiler" in name or "table" in name]
    assert len(os.listdir(tmp_path / "cache")) == 1


def test_key_is_the_meaning_not_the_order(tmp_path, oci):
    seccomp.cached(oci, str(tmp_path))
    seccomp.cached(dict(reversed(oci.items())), str(tmp_path))
    assert len(os.listdir(tmp_path)) == 1
    seccomp.cached(oci | {"defaultErrnoRet": 38}, str(tmp_path))
    assert len(os.listdir(tmp_path)) == 2


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
))  # fmt: skip
def test_canonical_text_is_read_back_as_the_value(value):
    # so two different profiles never share a key
    assert eval(seccomp._canonical(value).decode()) == value


def damage(kind: str, path: Path) -> None:
    evil = seccomp.compile(profile("SCMP_ACT_ALLOW"))
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-8])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "changed":
        path.write_bytes(path.read_bytes()[: -len(evil)] + evil)
    elif kind == "writable by others":
        path.chmod(0o666)
    elif kind == "directory writable by others":
        path.parent.chmod(0o777)
    elif kind == "symlink":
        path.rename(path.parent / "elsewhere")
        path.symlink_to("elsewhere")
    elif kind == "fifo":
        path.unlink()
        os.mkfifo(path)
    elif kind == "foreign":
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        os.chown(path, 54321, 54321)


@pytest.mark.parametrize(
    "kind",
    ["truncated", "empty", "changed", "writable by others", "directory writable by others",
     "symlink", "fifo", "foreign"],
)  # fmt: skip
def test_spoiled_cache_is_not_believed(tmp_path, oci, kind, monkeypatch):
    program = seccomp.cached(oci, f"{tmp_path}/cache")
    (path,) = (tmp_path / "cache").iterdir()
    damage(kind, path)
    compiled = []
    monkeypatch.setattr(seccomp, "compile", lambda p: compiled.append(p) or program)
    assert seccomp.cached(oci, f"{tmp_path}/cache") == program
    assert compiled == [oci]


@pytest.mark.parametrize("directory", ["/proc/nowhere", "/dev/null/x"])
def test_no_cache_is_no_error(directory, oci):
    assert seccomp.cached(oci, directory) == seccomp.compile(oci)


def test_another_compiler_is_another_key(tmp_path, oci, monkeypatch):
    seccomp.cached(oci, str(tmp_path))
    monkeypatch.setattr(seccomp, "_compiler_version", lambda: b"newer")
    seccomp.cached(oci, str(tmp_path))
    assert len(os.listdir(tmp_path)) == 2


def test_cost(tmp_path):
    """Not a benchmark: a guard against a compiler or a cache ten times slower than it is."""
    oci = default_profile(capabilities.DOCKER_DEFAULT)
    seccomp.cached(oci, str(tmp_path))
    costs = []
    for _ in range(5):
        start = time.perf_counter()
        seccomp.cached(oci, str(tmp_path))
        costs.append(time.perf_counter() - start)
    assert min(costs) < 0.005
