"""What the tests know about lesson 06."""

from __future__ import annotations

BUILDS = ("number keyed", "minicontainer/kernel/cgroups/files.py")
IGNORED_CELLS = 3  # which controllers this user has on this machine; two curves

WRONG = {
    "06.1": [
        (
            "def files_of(version, memory, cpus, processes):\n"
            "    return {'memory.max': str(memory), 'pids.max': str(processes),\n"
            "            'cpu.max': f'{int(cpus * 100000)} 100000'}\n",
            "files_of(1, 67108864, 0.5, 20) has no file cpu.cfs_period_us",
        ),
        (
            "def files_of(version, memory, cpus, processes):\n"
            "    if version == 1:\n"
            "        return {'memory.limit_in_bytes': str(memory), 'pids.max': str(processes),\n"
            "                'cpu.cfs_quota_us': str(int(cpus * 100000)),\n"
            "                'cpu.cfs_period_us': '100000'}\n"
            "    return {'memory.max': str(memory), 'pids.max': str(processes),\n"
            "            'cpu.max': f'100000 {int(cpus * 100000)}'}\n",
            "cpu.max gets '100000 50000', and should get '50000 100000'",
        ),
        (
            "def files_of(version, memory, cpus, processes):\n"
            "    return {'memory.limit_in_bytes': memory, 'pids.max': processes,\n"
            "            'cpu.cfs_quota_us': cpus * 100000, 'cpu.cfs_period_us': 100000}\n",
            "which is no text",
        ),
    ],
    "06.2": [
        (
            "def confine(name, limit):\n    make(name, {'pids': {'limit': limit}})\n",
            "Making a group does not move anybody",
        ),
        (
            "def confine(name, limit):\n    make(name, {}).enter()\n",
            "processes could be started",
        ),
        (
            "def confine(name, limit):\n"
            "    inside(make(name, {'pids': {'limit': limit}}), groups.doze)\n",
            "in the group that it was in before",
        ),
        (
            "def confine(name, limit):\n    make(name, {'pids': {'limit': limit + 1}}).enter()\n",
            "there could be 5 processes, not 4",
        ),
    ],
    "06.3": [
        (
            "def verdict(status, before, after):\n"
            "    if status >= 0:\n"
            "        return 'exited'\n"
            "    return 'out of memory' if status == -9 else 'killed'\n",
            "SIGKILL, and the counter is as before",
        ),
        (
            "def verdict(status, before, after):\n"
            "    if status >= 0:\n"
            "        return 'exited'\n"
            "    return 'out of memory' if after['oom_kills'] else 'killed'\n",
            "the counter tells of an earlier process",
        ),
        (
            "def verdict(status, before, after):\n"
            "    if after['oom_kills'] > before['oom_kills']:\n"
            "        return 'out of memory'\n"
            "    return 'killed' if status < 0 else 'exited'\n",
            "another one of the group lacked memory",
        ),
        (
            "def verdict(status, before, after):\n"
            "    return 'exited' if status == 0 else 'killed'\n",
            "'out of memory' (this is a process that took too much), not 'killed'",
        ),
    ],
}
