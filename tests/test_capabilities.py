"""Capabilities: the five sets as the kernel shows them in /proc/PID/status."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.doctor import enter, in_child
from minicontainer.kernel import capabilities, syscalls
from minicontainer.kernel.capabilities import NAMES, SETS, mask

ALL = (1 << len(NAMES)) - 1
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="run as root")


def expect(**sets: int) -> None:
    now = capabilities.current()
    for name, value in sets.items():
        if now[name] != value:
            raise OSError(0, f"{name} is {now[name]:#x}, not {value:#x}")


def say(condition: object, what: str) -> None:
    if not condition:
        raise OSError(0, what)


def test_last_and_bounding_are_the_kernels():
    now = capabilities.current()
    assert capabilities.bounding() == now["CapBnd"]
    # capabilities(7): a full set of init's has just these bits
    assert now["CapBnd"] >> (capabilities.last() + 1) == 0
    with pytest.raises(OSError) as caught:  # noqa: PT011 (the errno is asserted below)
        syscalls.prctl(syscalls.PR_CAPBSET_READ, capabilities.last() + 1)
    assert caught.value.errno == errno.EINVAL


@given(st.dictionaries(st.sampled_from(SETS), st.lists(st.sampled_from(NAMES))))
def test_parse_takes_the_spec_s_names(sets):
    masks, warnings = capabilities.parse(sets)
    assert not warnings
    assert masks == {kind: mask(sets.get(kind, ())) for kind in SETS}


@pytest.mark.parametrize("name", ["CAP_MAGIC", "chown", "cap_chown", "", 7, None])
def test_unknown_names_name_the_field(name):
    sets = {"effective": ["CAP_KILL", name]}
    with pytest.raises(ValueError, match=r"process\.capabilities\.effective\[1\]: unknown"):
        capabilities.parse(sets)
    masks, warnings = capabilities.parse(sets, strict=False)
    assert masks["effective"] == mask(["CAP_KILL"])
    assert warnings == [f"process.capabilities.effective[1]: unknown capability {name!r}"]


@pytest.mark.rootless
def test_all_five_sets_in_the_kernel():
    kill, chown = mask(["CAP_KILL"]), mask(["CAP_CHOWN"])

    def child() -> None:
        enter("user")
        say(not capabilities.drop_bounding(kill | chown), "a warning about the bounding set")
        warnings = capabilities.set_all(kill, kill | chown, kill, kill)
        say(not warnings, f"unexpected: {warnings}")
        expect(CapBnd=kill | chown, CapEff=kill, CapPrm=kill | chown, CapInh=kill, CapAmb=kill)

    in_child(child)


@pytest.mark.rootless
def test_what_cannot_be_granted_is_a_warning_and_not_done():
    kill, chown = mask(["CAP_KILL"]), mask(["CAP_CHOWN"])

    def child() -> None:
        enter("user")
        capabilities.drop_bounding(kill)
        capabilities.set_all(kill, kill, 0)
        # Now like a host that has little to give. Effective, too, is more than permitted.
        warnings = [*capabilities.set_all(ALL, kill | chown, kill | chown, kill | chown)]
        say(len(warnings) == 4, f"{warnings}")
        say("permitted: cannot be granted here: CAP_CHOWN" in warnings[1], warnings[1])
        say("CAP_KILL" not in " ".join(warnings), f"{warnings}")
        expect(CapEff=kill, CapPrm=kill, CapInh=kill, CapAmb=kill)

    in_child(child)


@pytest.mark.rootless
def test_bounding_set_that_the_host_lacks_is_a_warning():
    kill = mask(["CAP_KILL"])

    def child() -> None:
        enter("user")
        capabilities.drop_bounding(kill | mask(["CAP_SETPCAP"]))
        warnings = capabilities.drop_bounding(kill | mask(["CAP_SYS_TIME"]) | 1 << 63)
        say(warnings == ["process.capabilities.bounding: cannot be granted here: CAP_SYS_TIME"],
            f"{warnings}")  # fmt: skip
        expect(CapBnd=kill)

    in_child(child)


@needs_root
def test_capabilities_of_an_ordinary_user_survive_setuid_and_exec():
    """The ambient set is what lets a program without file capabilities have any."""
    net = mask(["CAP_NET_BIND_SERVICE"])

    def child() -> None:
        capabilities.keep_through_setuid(True)
        syscalls.setresuid(54321, 54321, 54321)
        capabilities.keep_through_setuid(False)
        say(not capabilities.set_all(net, net, net, net), "warnings")
        pid = os.fork()
        if pid == 0:
            words = f"CapEff:.*{net:016x}$"
            os.execv("/bin/grep", ["grep", "-q", words, "/proc/self/status"])
        say(os.waitpid(pid, 0)[1] == 0, "exec lost the capability")

    in_child(child)


@pytest.mark.rootless
def test_what_left_the_bounding_set_does_not_come_back():
    def child() -> None:
        enter("user")
        capabilities.drop_bounding(mask(["CAP_KILL"]))
        pid = os.fork()
        if pid == 0:
            os.execv("/bin/grep", ["grep", "-q", f"CapEff:.*{mask(['CAP_KILL']):016x}$",
                                   "/proc/self/status"])  # fmt: skip
        say(os.waitpid(pid, 0)[1] == 0, "root's exec got more than the bounding set")

    in_child(child)
