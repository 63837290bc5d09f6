#!/usr/bin/env python3
"""Starts the workshop's machine and says where its JupyterLab is. Ctrl-C ends it.

Python and QEMU suffice, on Linux, macOS and Windows: this file and the image can be given away.
"""

from __future__ import annotations

import argparse
import ctypes
import http.client
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

QEMU = "qemu-system-x86_64"
ACCELERATORS = {"linux": ["kvm", "tcg"], "darwin": ["hvf", "tcg"], "win32": ["whpx", "tcg"]}
# From QEMU's start to a service of sysinit.target; on KVM that is some three seconds.
ALIVE_S = {"kvm": 20, "hvf": 20, "whpx": 30, "tcg": 600}
JUPYTER_S, STOP_S = 900, 120  # emulated, on a busy computer
EXAMPLES = """\
examples:
  python vm-images/build.py workshop              once: builds the image
  python vm-images/start.py workshop              prints an address for the browser
  python vm-images/start.py workshop --keep work.qcow2       changes are kept in that file
  python start.py workshop --image workshop.qcow2            a copy, on any computer with QEMU
"""


class Failed(Exception):
    """What failed, and what to do."""


def main() -> int:
    options = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        image = os.path.abspath(options.image or _built())
        if not os.path.exists(image):
            raise Failed(f"{image} is not there: python vm-images/build.py workshop builds it")
        if not shutil.which(QEMU):
            raise Failed(f"{QEMU} is not installed: apt install qemu-system-x86, brew install qemu")
        port = options.port or _free_port()
        with _machine(image, port, options) as (process, token):
            _wait_for_jupyter(process, port, token)
            print(f"http://127.0.0.1:{port}/lab/tree/lessons?token={token}", flush=True)
            say("Ctrl-C ends the machine" + ("" if options.keep else "; nothing in it is kept"))
            process.wait()
        raise Failed("the machine has ended by itself")
    except Failed as failure:
        say(str(failure))
        return 1
    except KeyboardInterrupt:
        return 130


def say(text: str) -> None:
    print(f"workshop machine: {text}", file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="start.py", description=__doc__, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("what", choices=["workshop"], help="the image")
    parser.add_argument("--image", help="its file, when it is not in the cache directory")
    parser.add_argument("--keep", metavar="FILE", help="a qcow2 file for what is changed in it")
    parser.add_argument("--port", type=int, help="of 127.0.0.1; a free one by default")
    parser.add_argument("--memory", type=int, default=2048, metavar="MiB")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--accel", choices=sorted(ALIVE_S), help="without trying which one works")
    return parser.parse_args()


def _built() -> str:
    """Where build.py puts it."""
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    try:
        from minicontainer.paths import cache_dir
    except ImportError:
        raise Failed("give the image: --image workshop.qcow2") from None
    return os.path.join(cache_dir(), "vm-images", "workshop", "workshop.qcow2")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def _machine(
    image: str, port: int, options: argparse.Namespace
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:  # fmt: skip
    """A machine that has given a sign of life, on the first accelerator on which one does; and
    JupyterLab's token.
    """
    token = secrets.token_hex(16)
    chosen = [options.accel] if options.accel else ACCELERATORS.get(sys.platform, ["tcg"])
    disk = _disk(image, options.keep)
    with tempfile.TemporaryDirectory(prefix="minicontainer-workshop-") as directory:
        for accel in chosen:
            console = os.path.join(directory, f"console-{accel}")
            words = _command(disk, port, token, accel, directory, options)
            process = subprocess.Popen(
                [*words, "-serial", f"file:{console}"], stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
            )  # fmt: skip
            try:
                if _is_alive(process, os.path.join(directory, f"alive-{accel}"), ALIVE_S[accel]):
                    say(f"runs on {accel}" + (", emulated: slow" if accel == "tcg" else ""))
                    yield process, token
                    return
                say(f"{accel} does not work here: {_why(process, console)}")
            finally:
                _end(process, gently=bool(options.keep))
    raise Failed("no accelerator works; the lines above say why")


def _disk(image: str, keep: str | None) -> list[str]:
    """-drive and its value: changes go to a temporary file, or to `keep`, made if need be."""
    if not keep:
        return ["-drive", f"file={image},if=virtio,format=qcow2,snapshot=on"]
    if not os.path.exists(keep):
        words = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "qcow2", keep]
        if subprocess.run(words, check=False).returncode:
            raise Failed(f"{keep} could not be made; the line above says why")
    return ["-drive", f"file={keep},if=virtio,format=qcow2"]


def _command(
    disk: list[str], port: int, token: str, accel: str, directory: str, options: argparse.Namespace
) -> list[str]:
    network = f"user,id=net,hostfwd=tcp:127.0.0.1:{port}-:8888"
    alive = f"file,id=alive,path={os.path.join(directory, f'alive-{accel}')}"
    return [
        QEMU, "-machine", "q35", "-accel", accel, "-cpu", "max" if accel == "tcg" else "host",
        "-m", str(options.memory), "-smp", str(options.cpus), "-nodefaults", "-display", "none",
        "-no-reboot", *disk, "-netdev", network, "-device", "virtio-net-pci,netdev=net,romfile=",
        "-fw_cfg", f"name=opt/io.systemd.credentials/jupyter.token,string={token}",
        "-chardev", alive, "-device", "isa-debugcon,iobase=0xe9,chardev=alive",
        "-monitor", "stdio",
    ]  # fmt: skip


def _is_alive(process: subprocess.Popen[bytes], path: str, seconds: float) -> bool:
    """Whether something has written to the machine's debug console before the time is over."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        if os.path.exists(path) and os.path.getsize(path):
            return True
        time.sleep(0.2)
    return False


def _die_with_parent() -> None:
    """In the child, on Linux: QEMU ends with this program, even when that is killed (prctl(2))."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _why(process: subprocess.Popen[bytes], console: str) -> str:
    _end(process, gently=False)
    assert process.stderr
    words = process.stderr.read().decode(errors="replace").strip()
    if not words and os.path.exists(console):
        with open(console, encoding="utf-8", errors="replace") as file:
            words = " | ".join(line.strip() for line in file.readlines()[-3:])
    return words or "the machine gave no sign of life"


def _wait_for_jupyter(process: subprocess.Popen[bytes], port: int, token: str) -> None:
    began = time.monotonic()
    while process.poll() is None:
        seconds = time.monotonic() - began
        if seconds > JUPYTER_S:
            raise Failed(f"JupyterLab did not answer within {JUPYTER_S} s")
        if _answers(port, token):
            return
        if sys.stderr.isatty():
            print(f"\rJupyterLab starts … {seconds:.0f} s ", end="", file=sys.stderr, flush=True)
        time.sleep(1)
    raise Failed("the machine has ended by itself")


def _answers(port: int, token: str) -> bool:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        link.request("GET", "/api/status", headers={"Authorization": f"token {token}"})
        return link.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        link.close()


def _end(process: subprocess.Popen[bytes], gently: bool) -> None:
    """Its power button first, where what it has written is to be kept; then its plug."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if process.poll() is None and not gently:
            process.kill()
            process.wait()
        if process.poll() is None:
            assert process.stdin
            try:
                process.stdin.write(b"system_powerdown\n")
                process.stdin.flush()
                process.wait(STOP_S)
            except (OSError, subprocess.TimeoutExpired):
                process.kill()
            process.wait()
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    sys.exit(main())
