"""Runs a daemon and reaps what it orphans: `python -I -S reaper.py libvirtd …`.

libvirt's machines become orphans on purpose, and stopping one waits until PID 1 has reaped it. In
many containers PID 1 does so late or never: then this process does it (PR_SET_CHILD_SUBREAPER).
"""

import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from minicontainer.kernel import syscalls


def main(command: list[str]) -> int:
    """Ends with the daemon, with its exit code; passes SIGTERM on to it."""
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    daemon = os.posix_spawnp(command[0], command, os.environ)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(daemon, signal.SIGTERM))
    while True:
        pid, status = os.wait()
        if pid == daemon:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
