"""What the tests know about lesson 02."""

from __future__ import annotations

BUILDS = ("change_root", "minicontainer/kernel/mounts.py")
IGNORED_CELLS = 1

WRONG = {
    "02.1": [
        (
            "def move_in(program, root):\n"
            "    os.makedirs(os.path.dirname(root + program), exist_ok=True)\n"
            "    shutil.copy(program, root + program)\n",
            "The loader is missing: the kernel looks for /",
        ),
        (
            "def move_in(program, root):\n"
            "    for path in [program, elf.interpreter(program)]:\n"
            "        os.makedirs(os.path.dirname(root + path), exist_ok=True)\n"
            "        shutil.copy(path, root + path)\n",
            "its loader gives up",
        ),
        (
            "def move_in(program, root):\n    shutil.copy(program, root)\n",
            "The program is not in the tree: there is no /srv/exercise/opt/dynamic/ls",
        ),
    ],
    "02.2": [
        (
            "def jailed():\n"
            "    pids = [int(name) for name in os.listdir('/proc') if name.isdecimal()]\n"
            "    return [pid for pid in pids if os.readlink(f'/proc/{pid}/cwd') != '/']\n",
            "Where a process stands says nothing about its root",
        ),
        (
            "def jailed():\n"
            "    return [os.getpid()] if os.readlink('/proc/self/root') != '/' else []\n",
            "Your list lacks a process whose root, in /proc, is /srv/exercise",
        ),
        (
            "def jailed():\n"
            "    names = [name for name in os.listdir('/proc') if name.isdecimal()]\n"
            "    return [n for n in names if os.readlink(f'/proc/{n}/root') != '/']\n",
            "as text",
        ),
    ],
    "02.3": [
        ("def sealed_root(path):\n    change_root(path)\n", "CAP_SYS_CHROOT is left"),
        (
            "def sealed_root(path):\n"
            "    change_root(path)\n"
            "    keep = ~capabilities.mask(['CAP_SYS_CHROOT'])\n"
            "    capabilities.set_all(keep, keep, 0)\n",
            "a program that it starts with exec is not",
        ),
        (
            "def sealed_root(path):\n"
            "    keep = ~capabilities.mask(['CAP_SYS_CHROOT'])\n"
            "    capabilities.drop_bounding(keep)\n"
            "    capabilities.set_all(keep, keep, 0)\n"
            "    change_root(path)\n",
            "The order matters",
        ),
    ],
}
