"""What the tests know about lesson 04."""

from __future__ import annotations

BUILDS = ("flags unshare", "minicontainer/kernel/namespaces.py")
IGNORED_CELLS = 0

WRONG = {
    "04.1": [
        (
            "def shared(a, b):\n    return set(namespaces.inodes(a)) & set(namespaces.inodes(b))\n",
            "Every process has all kinds: compare their numbers",
        ),
        (
            "def shared(a, b):\n"
            "    return namespaces.inodes(a).items() & namespaces.inodes(b).items()\n",
            "without the numbers",
        ),
        (
            "def shared(a, b):\n"
            "    ours, theirs = namespaces.inodes(a), namespaces.inodes(b)\n"
            "    return [kind for kind in ours if ours[kind] != theirs[kind]]\n",
            "in which the two differ",
        ),
    ],
    "04.2": [
        (
            "def init(program):\n"
            "    main = os.fork()\n"
            "    if main == 0:\n"
            "        program()\n"
            "    return os.waitstatus_to_exitcode(os.waitpid(main, 0)[1])\n",
            "there were zombies in /proc",
        ),
        (
            "def init(program):\n"
            "    if os.fork() == 0:\n"
            "        program()\n"
            "    return os.waitstatus_to_exitcode(os.wait()[1])\n",
            "the status of an orphan",
        ),
        (
            "def init(program):\n"
            "    main = os.fork()\n"
            "    if main == 0:\n"
            "        program()\n"
            "    while True:\n"
            "        pid, status = os.wait()\n"
            "        if pid == main:\n"
            "            return status\n",
            "as the kernel packs it",
        ),
        (
            "def init(program):\n"
            "    signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
            "    main = os.fork()\n"
            "    if main == 0:\n"
            "        program()\n"
            "    return os.waitstatus_to_exitcode(os.waitpid(main, 0)[1])\n",
            "init failed: ChildProcessError",
        ),
        ("def init(program):\n    program()\n", "fork first"),
        (
            "def init(program):\n    if os.fork() == 0:\n        program(1)\n    os.wait()\n",
            "init failed: TypeError",
        ),
    ],
    "04.3": [
        (
            "def enter(pid, work):\n"
            "    child = os.fork()\n"
            "    if child == 0:\n"
            "        for kind in ('uts', 'ipc', 'pid', 'mnt'):\n"
            "            syscalls.setns(os.open(f'/proc/{pid}/ns/{kind}', os.O_RDONLY), 0)\n"
            "        work()\n"
            "    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n",
            "holds for the children that are forked after it",
        ),
        (
            "def enter(pid, work):\n"
            "    for kind in ('mnt', 'uts', 'ipc', 'pid'):\n"
            "        syscalls.setns(os.open(f'/proc/{pid}/ns/{kind}', os.O_RDONLY), 0)\n"
            "    return end_of(begin(work))\n",
            "enter failed: ENOENT",
        ),
        (
            "def enter(pid, work):\n"
            "    for kind in ('uts', 'ipc', 'pid', 'mnt'):\n"
            "        syscalls.setns(os.open(f'/proc/{pid}/ns/{kind}', os.O_RDONLY), 0)\n"
            "    work()\n",
            "which never comes back: fork",
        ),
        (
            "def enter(pid, work):\n"
            "    syscalls.setns(os.open(f'/proc/{pid}/ns/pid', os.O_RDONLY), 0)\n"
            "    return end_of(begin(work))\n",
            "uts, ipc, mount",
        ),
    ],
}
