"""What the tests know about lesson 03."""

from __future__ import annotations

BUILDS = ("pivot_root", "minicontainer/kernel/mounts.py")
IGNORED_CELLS = 0

WRONG = {
    "03.1": [
        (
            "def private_tmp():\n    syscalls.mount('tmp', '/tmp', 'tmpfs', 0, None)\n",
            "still in the host's mount namespace",
        ),
        (
            "def private_tmp():\n"
            "    namespaces.unshare(['mount'])\n"
            "    syscalls.mount('tmp', '/tmp', 'tmpfs', 0, None)\n",
            "Change the propagation before you mount",
        ),
        (
            "def private_tmp():\n"
            "    namespaces.unshare(['mount'])\n"
            "    syscalls.mount('tmp', '/tmp', 'tmpfs', 0, None)\n"
            "    mounts.set_propagation('/', MS_REC | MS_PRIVATE)\n",
            "Change the propagation before you mount",
        ),
        (
            "def private_tmp():\n"
            "    namespaces.unshare(['mount'])\n"
            "    mounts.set_propagation('/', MS_REC | MS_PRIVATE)\n"
            "    for name in os.listdir('/tmp'):\n"
            "        os.remove(f'/tmp/{name}')\n",
            "/tmp in it is still the host's file system",
        ),
    ],
    "03.2": [
        (
            "def propagation(point):\n"
            "    for row in table():\n"
            "        if row[4] == point:\n"
            "            line = ' '.join(row)\n"
            "    if 'shared:' in line:\n"
            "        return 'shared'\n"
            "    return 'slave' if 'master:' in line else 'private'\n",
            "is a slave",
        ),
        (
            "def propagation(point):\n"
            "    for row in table():\n"
            "        if row[4] == point:\n"
            "            line = ' '.join(row)\n"
            "    if 'master:' in line:\n"
            "        return 'slave'\n"
            "    return 'shared' if 'shared:' in line else 'private'\n",
            "only the fields before the - count",
        ),
        (
            "def propagation(point):\n"
            "    for row in table():\n"
            "        if row[4].startswith(point):\n"
            "            if row[6].startswith('shared:'):\n"
            "                return 'shared'\n"
            "            return 'slave' if row[6].startswith('master:') else 'private'\n",
            "compare the whole mount point",
        ),
        (
            "def propagation(point):\n"
            "    (row,) = (row for row in table() if row[4] == point)\n"
            "    return row[6]\n",
            "is wanted",
        ),
    ],
    "03.3": [
        (
            "def read_only_root(root):\n    prepare(root)\n    pivot_root(root)\n",
            "A file can still be made",
        ),
        (
            "def read_only_root(root):\n"
            "    namespaces.unshare(['mount'])\n"
            "    mounts.set_propagation('/', MS_REC | MS_PRIVATE)\n"
            "    syscalls.mount(root, root, None, MS_BIND | MS_RDONLY, None)\n"
            "    pivot_root(root)\n",
            "mount(2) ignores all flags beside MS_BIND",
        ),
        (
            "def read_only_root(root):\n"
            "    prepare(root)\n"
            "    pivot_root(root)\n"
            "    syscalls.mount(None, '/', None, MS_REMOUNT | MS_RDONLY, None)\n",
            "Now the host cannot write there either",
        ),
        (
            "def read_only_root(root):\n"
            "    prepare(root)\n"
            "    syscalls.mount(None, root, None, MS_REMOUNT | MS_BIND | MS_RDONLY, None)\n"
            "    change_root(root)\n",
            "the escape of lesson 02 reaches it",
        ),
    ],
}
