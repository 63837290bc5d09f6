"""What the tests know about lesson 01."""

from __future__ import annotations

BUILDS = ("in_child", "minicontainer/doctor.py")
IGNORED_CELLS = 1

_FORK_AND_WAIT = (
    "    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])\n"
    "    return code if code >= 0 else 128 - code\n"
)

WRONG = {
    "01.1": [
        (
            "def shell_status(argv):\n"
            "    pid = os.fork()\n"
            "    if pid == 0:\n"
            "        os.execv(argv[0], argv)\n" + _FORK_AND_WAIT,
            "two processes come out of shell_status",
        ),
        (
            "def shell_status(argv):\n"
            "    pid = os.fork()\n"
            "    if pid == 0:\n"
            "        try:\n"
            "            os.execv(argv[0], argv)\n"
            "        finally:\n"
            "            os._exit(127)\n" + _FORK_AND_WAIT,
            "For a file without execute permission a shell says 126; shell_status returned 127",
        ),
        (
            "def shell_status(argv):\n"
            "    pid = os.fork()\n"
            "    if pid == 0:\n"
            "        os.execv(argv[0], argv)\n"
            "    return os.waitpid(pid, 0)[1]\n",
            "a shell says 3; shell_status returned 768",
        ),
        (
            "def shell_status(argv):\n"
            "    return os.waitpid(os.posix_spawn(argv[0], argv, os.environ), 0)[1] >> 8\n",
            "shell_status raised ENOENT. A shell turns that into a number",
        ),
        (
            "def shell_status(argv):\n"
            "    os.posix_spawn(argv[0], argv, os.environ)\n"
            "    return 0\n",
            "shell_status did not wait: a child is left",
        ),
    ],
    "01.2": [
        (
            "def zombies():\n"
            "    found = []\n"
            "    for name in os.listdir('/proc'):\n"
            "        if name.isdecimal():\n"
            "            with open(f'/proc/{name}/stat') as file:\n"
            "                if ' Z ' in file.read():\n"
            "                    found.append(int(name))\n"
            "    return found\n",
            "Your list has a process that lives; 'c) Z (d' is only its name",
        ),
        (
            "def zombies():\n"
            "    found = []\n"
            "    for name in os.listdir('/proc'):\n"
            "        if name.isdecimal():\n"
            "            with open(f'/proc/{name}/stat') as file:\n"
            "                if file.read().partition(') ')[2].startswith('Z 1 '):\n"
            "                    found.append(int(name))\n"
            "    return found\n",
            "Your list lacks a zombie whose name is 'a) S (b'",
        ),
        (
            "def zombies():\n"
            "    names = [name for name in os.listdir('/proc') if name.isdecimal()]\n"
            "    return [name for name in names if state(name) == 'Z']\n",
            "as text",
        ),
    ],
    "01.3": [
        (
            "def launch(argv):\n"
            "    pid = os.fork()\n"
            "    if pid == 0:\n"
            "        try:\n"
            "            os.execv(argv[0], argv)\n"
            "        finally:\n"
            "            os._exit(127)\n"
            "    return pid\n",
            "the error is known to the child alone",
        ),
        (
            "def launch(argv):\n"
            "    pids = []\n"
            "    in_child(lambda: pids.append(os.execv(argv[0], argv)))\n"
            "    return pids[0]\n",
            "launch does not return while the program runs",
        ),
        (
            "def launch(argv):\n"
            "    read_fd, write_fd = os.pipe()\n"
            "    pid = os.fork()\n"
            "    if pid == 0:\n"
            "        try:\n"
            "            os.execv(argv[0], argv)\n"
            "        except OSError as error:\n"
            "            os.write(write_fd, str(error.errno).encode())\n"
            "        finally:\n"
            "            os._exit(127)\n"
            "    os.close(write_fd)\n"
            "    with open(read_fd) as pipe:\n"
            "        number = pipe.read()\n"
            "    if number:\n"
            "        raise OSError(int(number), argv[0])\n"
            "    return pid\n",
            "After a failed start a child is left; it has",
        ),
    ],
}
