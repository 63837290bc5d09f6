"""An init that is there before it is asked for, in the namespaces that most containers get.

To clone a process of Python into new namespaces is the longest step of a start, and each page of
memory that it or its parent writes to afterwards has to be copied first. The helper has its workers
do both while nobody waits: a worker has such an init beside it, which has built a plan to no end.
From the request init makes the plan that it carries out, and its worker only listens. Everything
that a request decides, id maps, mounts, privilege, comes after it as in any other start. So does
the mount namespace: it is a copy, and what the host mounts meanwhile would be missing in one that
was made before.
"""

from __future__ import annotations

import _signal as signal
import _socket
import os
from itertools import takewhile
from time import monotonic_ns

from ..kernel import namespaces, rights, syscalls
from . import foreground, jsonfile, launch, plan, spec
from .errors import RUNTIME_FAILED
from .steps import Loopback, NewKeyring, NewSession, Step, Undumpable
from .steps_host import Clone, Unshare
from .steps_process import BoundingSet

MAX_REQUEST = 1 << 20


def rehearse() -> list[Step]:
    """The plan of a plain container, for nobody: the memory that this writes to is ours then."""
    syscalls.capget()  # its types are made at its first call
    request = jsonfile.dumps({"spec": spec.default("/", ["/"])})
    return plan.build(jsonfile.loads(request)["spec"])


class Ready:
    """An init that waits, and what `foreground.attend` begins with."""

    def __init__(self, not_for_it: tuple[int, ...]) -> None:
        """not_for_it: descriptors that the caller alone keeps. Raises OSError, ContainerError."""
        clone, *early = _first(rehearse())
        self.context = foreground.context()
        self.ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        pipes, options = launch.Pipes(), plan.Options(attended=True)
        child = Clone([kind for kind in clone.kinds if kind != "mount"], None).fork()
        if child == 0:
            try:
                for fd in (*not_for_it, self.ours.detach()):
                    os.close(fd)
                pipes.theirs(self.context)
                _wait(theirs, self.context, options, clone, early)
            except Exception:  # whatever it is, a start without us meets it, too, and says it
                self.context.tell("refused")
            finally:
                os._exit(RUNTIME_FAILED)
        for fd in (theirs.detach(), *self.context.opened):
            os.close(fd)
        self.child: launch.Child | None = pipes.ours(child)  # until it is adopted
        launch.answer(self.child[2], str(child))

    def attend(self, request: bytes, stdio: list[int]) -> foreground.Attended | None:
        """As `foreground.attend`. None when init is dead, or the plan needs other namespaces than
        those it was born into.
        """
        assert self.child
        try:
            rights.send(self.ours, request, stdio)
        except OSError:
            return None
        child, self.child = self.child, None

        def build() -> list[Step]:
            return plan.build(jsonfile.loads(request.decode())["spec"])

        # From here to its exec we only sleep: the kernel runs init where we ran
        if not launch.adopt(child, build, self.context):
            return None
        return foreground.attended(self.context, build, foreground.catch_signals())

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
    early = (NewSession, Undumpable, NewKeyring, BoundingSet, Unshare, Loopback)
    return [steps[0], *takewhile(lambda step: isinstance(step, early), steps[1:])]


def _wait(
    theirs: _socket.socket, context: launch.Launch, options: plan.Options, born: Clone,
    early: list[Step],
) -> None:  # fmt: skip
    """Init, until its plan comes, or the end of who could send it."""
    context.state["pid"] = int(context.answer())
    for step in early:
        step.apply(context)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored by the helper, not by the caller
    launch.reset_signals(context.ignored)
    rehearse()
    request, fds = rights.receive(theirs, MAX_REQUEST, 3)
    if not request:
        return
    theirs.close()
    context.stdio = fds
    steps = _for_us(request, context, options, born, early)
    if not steps:
        context.tell("refused")
        return
    if context.traced:
        syscalls.trace = context.on_call
        for number in range(1, 2 + len(early)):
            now = monotonic_ns()
            context.tell("call", number, "(done before the request)", "", now, now)
            context.tell("step", number, now, now)
    if "mount" in born.kinds:
        namespaces.unshare(["mount"])
    if any(step.where == "outside" for step in steps):
        context.ask("outside", context.traced)
    launch.inside(steps, context, ("init",), done=1 + len(early))


def _for_us(
    request: bytes, context: launch.Launch, options: plan.Options, born: Clone, early: list[Step]
) -> list[Step]:
    """The plan, or an empty one: it is an image's, or one that begins in another way."""
    content = jsonfile.loads(request.decode())
    if "spec" not in content:
        return []
    context.traced |= content["trace"]
    steps = plan.build(content["spec"], options=options)
    clone, *others = _first(steps) or [None]
    same = [(type(step), vars(step)) for step in others]
    if clone and clone.kinds == born.kinds and same == [(type(s), vars(s)) for s in early]:
        return steps
    return []
