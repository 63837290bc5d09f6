"""What the tests know about lesson 00."""

from __future__ import annotations

BUILDS = ("enter", "minicontainer/doctor.py")
IGNORED_CELLS = 2

WRONG = {
    "00.1": [
        (
            "def mark():\n    Path('/srv/mark/name').write_text(os.uname().nodename)\n",
            "mark failed: ENOENT",
        ),
        (
            "def mark():\n"
            "    os.makedirs('/srv/mark')\n"
            "    Path('/srv/mark/name').write_text('workbench')\n",
            "The file says 'workbench'; this host is called 'bench-",
        ),
        (
            "def mark():\n"
            "    os.makedirs('/srv/mark')\n"
            "    Path('/srv/mark/hostname').write_text(os.uname().nodename)\n",
            "The file is not there",
        ),
    ],
    "00.2": [
        (
            "def allowed(kind):\n"
            "    try:\n"
            "        enter(kind)\n"
            "    except OSError:\n"
            "        return False\n"
            "    return True\n",
            "The process that asked is in a new uts namespace now",
        ),
        (
            "def allowed(kind):\n    return kind in namespaces.available()\n",
            "That the kernel knows this kind is not enough",
        ),
        (
            "def allowed(kind):\n    in_child(lambda: enter(kind))\n    return True\n",
            "allowed failed: ENOSPC",
        ),
        (
            "def allowed(kind):\n    in_child(lambda: enter(kind))\n",
            "allowed('uts') returned None, not True or False",
        ),
    ],
    "00.3": [
        (
            "def cgroup_layout(path):\n"
            "    text = Path(path).read_text()\n"
            "    if 'cgroup2' in text:\n"
            "        return 'hybrid' if 'cgroup' in text else 'v2'\n"
            "    return 'v1' if 'cgroup' in text else 'none'\n",
            "the answer is 'v2', and yours was 'hybrid'",
        ),
        (
            "def cgroup_layout(path):\n"
            "    text = Path(path).read_text()\n"
            "    if ' - cgroup2 ' in text:\n"
            "        return 'hybrid' if ' - tmpfs ' in text else 'v2'\n"
            "    return 'v1' if '/sys/fs/cgroup' in text else 'none'\n",
            "the answer is 'none', and yours was 'v1'",
        ),
        (
            "def cgroup_layout(path):\n"
            "    return 'v2' if ' - cgroup2 ' in Path(path).read_text() else 'v1'\n",
            "the answer is 'hybrid', and yours was 'v2'",
        ),
    ],
}
