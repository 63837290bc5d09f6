"""Makes the guest's image and runs QEMU until the guest powers off: `python -m tests.v2_rig.guest
DIRECTORY`, a process beside the suite. In the directory it leaves `console` and `results`.

It, and QEMU with it, ends when the process that started it does, however that ends.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from minicontainer import paths
from minicontainer.kernel import syscalls

QEMU = f"qemu-system-{os.uname().machine}"
MEMORY_MB = 2048
DISK_BYTES = 4 << 30  # as far as the guest writes to it
# A real KVM has started the guest in a third of it; one that has not is slower than emulation, as
# nested ones may be.
KVM_S = 12
STARTED = b"v2 rig: the guest has started"
# benchmarks and vm-images/README.md say what these words give.
TRIMS = "quiet cryptomgr.notests noreplace-smp no_timer_check"


def missing() -> str:
    """What this host lacks for a guest, with the fix; "" when nothing."""
    images = Path(paths.cache_dir(), "vm-images")
    for path in (images / "kernel/vmlinuz", images / "kernel/modules.cpio"):
        if not path.exists():
            return f"{path} is missing: ./workshop setup"
    if os.environ.get("MINICONTAINER_KERNEL"):
        return "a kernel of your own brings no modules: unset MINICONTAINER_KERNEL"
    for name in (QEMU, "busybox"):
        if not shutil.which(name):
            return f"{name} is not installed: sudo ./workshop setup"
    return ""


def command(directory: Path, accelerator: str) -> list[str]:
    images = Path(paths.cache_dir(), "vm-images")
    arm = os.uname().machine == "aarch64"
    cpu = "host" if accelerator == "kvm" else "max"
    return [
        QEMU, "-accel", accelerator, "-cpu", cpu, "-smp", "1", "-m", str(MEMORY_MB),
        *(["-machine", "virt"] if arm else []),
        "-display", "none", "-no-reboot", "-nic", "none", "-serial", f"file:{directory}/console",
        "-device", "virtio-serial", "-chardev", f"file,id=results,path={directory}/results",
        "-device", "virtserialport,chardev=results,nr=1",
        "-drive", f"file={directory}/disk,format=raw,if=virtio,cache=unsafe",
        "-kernel", f"{images}/kernel/vmlinuz", "-initrd", f"{directory}/initramfs",
        "-append", f"console={'ttyAMA0' if arm else 'ttyS0'} panic=-1 {TRIMS}",
    ]  # fmt: skip


def main(directory: Path) -> int:
    from tests.v2_rig import image  # not for the suite itself, nor in the guest

    end_with_parent()
    os.nice(5)  # beside the suite, not in its way
    image.build(directory / "initramfs", Path(paths.cache_dir(), "vm-images/kernel/modules.cpio"))
    return boot(directory)


def boot(directory: Path) -> int:
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        status = run(directory, "kvm", KVM_S)
        if status is not None:
            return status
    return run(directory, "tcg", 0) or 0


def run(directory: Path, accelerator: str, limit_s: float) -> int | None:
    """QEMU's exit status; None when the guest has not started within the limit."""
    (directory / "accelerator").write_text(accelerator)
    with (directory / "disk").open("wb") as disk:
        disk.truncate(DISK_BYTES)
    words = command(directory, accelerator)
    print(shlex.join(words), flush=True)
    qemu = subprocess.Popen(words, stdin=subprocess.DEVNULL, preexec_fn=end_with_parent)  # noqa: PLW1509
    began = time.monotonic()
    while limit_s and STARTED not in _read(directory / "console"):
        if time.monotonic() - began > limit_s or qemu.poll() is not None:
            qemu.kill()
            qemu.wait()
            return None
        time.sleep(0.1)
    return qemu.wait()


def end_with_parent() -> None:
    """prctl(2): also when that is killed and can end nothing itself."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
