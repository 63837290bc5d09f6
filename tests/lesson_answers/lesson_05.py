"""What the tests know about lesson 05."""

from __future__ import annotations

BUILDS = ("write_single_id_map", "minicontainer/kernel/userns.py")
IGNORED_CELLS = 1  # which ids this user has on this machine

_LINES = (
    "def outside(uid, path):\n"
    "    with open(path) as file:\n"
    "        for line in file:\n"
    "            first, there, count = [int(word) for word in line.split()]\n"
)

WRONG = {
    "05.1": [
        (
            _LINES + "            if first <= uid <= first + count:\n"
            "                return there + uid - first\n",
            "outside(65537, …) is None (the second line has 65536 ids",
        ),
        (
            "def outside(uid, path):\n"
            "    first, there, count = open(path).read().split()[:3]\n"
            "    if int(first) <= uid < int(first) + int(count):\n"
            "        return int(there) + uid - int(first)\n",
            "outside(33, …) is 100032",
        ),
        (
            _LINES + "            if there <= uid < there + count:\n"
            "                return first + uid - there\n",
            "so user 5 is 0 outside, not None",
        ),
        (
            _LINES + "            if first <= uid < first + count:\n"
            "                return there + uid\n",
            "so user 5 is 0 outside, not 5",
        ),
        (
            "def outside(uid, path):\n"
            "    for line in open(path):\n"
            "        if line.split()[0] == str(uid):\n"
            "            return line.split()[1]\n",
            "so user 5 is 0 outside, not '0'",
        ),
    ],
    "05.2": [
        (
            "def call_me(uid, gid):\n"
            "    namespaces.unshare(['user'])\n"
            "    write_single_id_map(uid, os.getuid(), gid, os.getgid())\n",
            "right after unshare, getuid() and getgid() cannot tell any more",
        ),
        (
            "def call_me(uid, gid):\n"
            "    me, mine = os.getuid(), os.getgid()\n"
            "    namespaces.unshare(['user'])\n"
            "    write_single_id_map(me, uid, mine, gid)\n",
            "The second number of a map is who you are outside",
        ),
        (
            "def call_me(uid, gid):\n"
            "    me = os.getuid()\n"
            "    namespaces.unshare(['user'])\n"
            "    syscalls.write_file('/proc/self/uid_map', f'{uid} {me} 1')\n",
            "gid_map is empty",
        ),
        (
            "def call_me(uid, gid):\n    os.setresuid(uid, uid, uid)\n",
            "still in the user namespace",
        ),
        (
            "def call_me(uid, gid):\n"
            "    namespaces.unshare(['user'])\n"
            "    write_single_id_map(uid, 1000, uid, 1000)\n",
            "call_me(33, 34) makes the process gid 33",
        ),
    ],
    "05.3": [
        (
            "def as_root(kinds, work):\n"
            "    uid, gid = os.getuid(), os.getgid()\n"
            "    namespaces.unshare(['user', *kinds])\n"
            "    write_single_id_map(0, uid, 0, gid)\n"
            "    pid = os.fork()\n"
            "    if pid == 0:\n"
            "        work()\n"
            "    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n",
            "The caller itself is in a new user and uts namespace",
        ),
        (
            "def as_root(kinds, work):\n"
            "    pid = os.fork()\n"
            "    if pid == 0:\n"
            "        uid, gid = os.getuid(), os.getgid()\n"
            "        namespaces.unshare(['user', *kinds])\n"
            "        write_single_id_map(0, uid, 0, gid)\n"
            "        work()\n"
            "    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n",
            "it takes one fork more, after unshare",
        ),
        (
            "def as_root(kinds, work):\n"
            "    pid = os.fork()\n"
            "    if pid == 0:\n"
            "        namespaces.unshare(['user', *kinds])\n"
            "        work()\n"
            "    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n",
            "its process has no name yet",
        ),
        (
            "def as_root(kinds, work):\n"
            "    uid, gid = os.getuid(), os.getgid()\n"
            "    namespaces.unshare(['user', *kinds])\n"
            "    write_single_id_map(0, uid, 0, gid)\n"
            "    work()\n",
            "which never comes back: fork",
        ),
        (
            "def as_root(kinds, work):\n"
            "    pid = os.fork()\n"
            "    if pid == 0:\n"
            "        uid, gid = os.getuid(), os.getgid()\n"
            "        namespaces.unshare(['user'])\n"
            "        write_single_id_map(0, uid, 0, gid)\n"
            "        work()\n"
            "    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n",
            "its UTS namespace is not its own",
        ),
    ],
}
