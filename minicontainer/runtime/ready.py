"""An init that is there before it is asked for, in the namespaces that most containers get.

To clone a process of Python into new namespaces is the longest step of a start, and each page of
memory that it or its parent writes to afterwards has to be copied first. The helper has its workers
do both while nobody waits: a worker has such an init beside it, both have built a plan to no end,
and the request brings the one that is carried out. Everything that a request decides, id maps,
mounts, privilege, comes after it as in any other start. So does the mount namespace: it is a copy,
and what the host mounts meanwhile would be missing in one that was made before.
"""

from __future__ import annotations

import json
import os
import socket
from itertools import takewhile
from time import monotonic_ns

from ..kernel import namespaces, syscalls
from . import foreground, launch, plan, spec
from .errors import RUNTIME_FAILED
from .steps import Loopback, NewKeyring, NewSession, Step, Undumpable
from .steps_host import Clone, Unshare

MAX_REQUEST = 1 << 20


def rehearse() -> list[Step]:
    """The plan of a plain container, for nobody: the memory that this writes to is ours then."""
    request = json.dumps({"spec": spec.default("/", ["/"])})
    return plan.build(json.loads(request)["spec"])


class Ready:
    """An init that waits, and what `foreground.attend` begins with."""

    def __init__(self, not_for_it: tuple[int, ...]) -> None:
        """not_for_it: descriptors that the caller alone keeps. Raises OSError, ContainerError."""
        clone, *others = _first(rehearse())
        self.born = clone.kinds, [step.name for step in others]
        self.context = foreground.context()
        self.context.give_plan = self._give
        self.asked = False
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pipes, options = launch.Pipes(), plan.Options(attended=True)
        child = Clone([kind for kind in clone.kinds if kind != "mount"], None).fork()
        if child == 0:
            try:
                for fd in (*not_for_it, self.ours.detach()):
                    os.close(fd)
                pipes.theirs(self.context)
                _wait(theirs, self.context, options, clone.kinds, others)
            finally:
                os._exit(RUNTIME_FAILED)
        theirs.close()
        self.child: launch.Child | None = pipes.ours(child)  # until it is given away

    def begin(self, request: bytes, stdio: list[int]) -> None:
        """Let it build the plan, while we do; it does nothing of it without our word."""
        try:
            socket.send_fds(self.ours, [request], stdio)
            self.asked = True
        except OSError:
            pass  # it is dead

    def _give(self, steps: list[Step]) -> launch.Child | None:
        """None when it was born into other namespaces than this plan's, or cannot be asked."""
        first, *others = _first(steps) or [None]
        if not self.asked or not first or first.group:
            return None
        if (first.kinds, [step.name for step in others]) != self.born:
            return None
        if self.context.traced:
            for number in range(1, 2 + len(others)):
                now = monotonic_ns()
                self.context.tell("call", number, "(done before the request)", "", now, now)
                if number > 1:  # for the clone `launch` does it
                    self.context.tell("step", number, now, now)
        given, self.child = self.child, None
        return given

    def dismiss(self) -> None:
        """Have it end, when it was not needed."""
        self.ours.close()
        if self.child:
            pid, *pipes = self.child
            for fd in pipes:
                os.close(fd)
            os.waitpid(pid, 0)
            self.child = None


def _first(steps: list[Step]) -> list:
    """Clone, and after it what is the same in each plan; nothing when something comes before it."""
    if not isinstance(steps[0], Clone):
        return []
    early = (NewSession, Undumpable, NewKeyring, Unshare, Loopback)
    return [steps[0], *takewhile(lambda step: isinstance(step, early), steps[1:])]


def _wait(
    theirs: socket.socket, context: launch.Launch, options: plan.Options, kinds: list[str],
    early: list[Step],
) -> None:  # fmt: skip
    """Init, until its plan comes, or the end of who could send it."""
    for step in early:
        step.apply(context)
    rehearse()
    request, fds, _, _ = socket.recv_fds(theirs, MAX_REQUEST, 3)
    if not request:
        return
    theirs.close()
    context.stdio = fds
    content = json.loads(request)
    context.traced |= content["trace"]
    if context.traced:
        syscalls.trace = context.on_call
    if "mount" in kinds:
        namespaces.unshare(["mount"])
    steps = plan.build(content["spec"], options=options)
    launch.inside(steps, context, ("init",), done=1 + len(early))
