"""Writes kernel/seccomp_table.py from the kernel's headers, and reads them for the test of it.

    python -m tests.syscall_table /usr/include/x86_64-linux-gnu AARCH64_INCLUDE ARM_INCLUDE

The other machines' headers are Debian's linux-libc-dev-arm64-cross and linux-libc-dev-armhf-cross;
`apt-get download` and `dpkg-deb -x` are enough.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

TABLE = Path(__file__).resolve().parent.parent / "minicontainer/kernel/seccomp_table.py"
COLUMNS = {  # our column -> the header, what its compiler would define, and its own calls
    "x86_64": ("asm/unistd_64.h", [], {"uretprobe": 335, "uprobe": 336}),
    "i386": ("asm/unistd_32.h", [], {}),
    "aarch64": ("asm/unistd.h", ["-D__LP64__"], {}),
    # arch/arm/include/uapi/asm/unistd.h, "the following SWIs are ARM private": __ARM_NR_BASE + n
    "arm": ("asm/unistd.h", ["-D__ARM_EABI__"], {
        "breakpoint": 0xF0001, "cacheflush": 0xF0002, "usr26": 0xF0003, "usr32": 0xF0004,
        "set_tls": 0xF0005, "get_tls": 0xF0006,
    }),
}  # fmt: skip
# Since Linux 5.1 a new call gets one number for all machines; these are younger than the headers:
# from 451 on.
NEWER = (
    "cachestat", "fchmodat2", "map_shadow_stack", "futex_wake", "futex_wait", "futex_requeue",
    "statmount", "listmount", "lsm_get_self_attr", "lsm_set_self_attr", "lsm_list_modules", "mseal",
    "setxattrat", "getxattrat", "listxattrat", "removexattrat", "open_tree_attr", "file_getattr",
    "file_setattr",
)  # fmt: skip


def read_headers(include: str | Path, column: str) -> dict[str, int]:
    """Name -> number as the C preprocessor sees them in the include directory of one machine."""
    header, defines, _ = COLUMNS[column]
    done = subprocess.run(
        ["cc", "-E", "-dM", "-nostdinc", "-D__BITS_PER_LONG=64", *defines, "-I", include, "-"],
        input=f"#include <{header}>\n", capture_output=True, text=True, check=True,
    )  # fmt: skip
    macros = dict(re.findall(r"#define (__NR\w+) (.+)", done.stdout))
    numbers = {}
    for macro in macros:
        value = macro
        while value in macros:  # __NR_mmap is __NR3264_mmap, and that is a number
            value = macros[value].strip("()").removeprefix("__NR_SYSCALL_BASE + ")
        name = macro.removeprefix("__NR_")
        if value.isdigit() and name == name.lower() and name not in (
            "syscalls", "arch_specific_syscall"
        ):  # fmt: skip
            numbers[name] = int(value)
    return numbers


def main(x86: str, aarch64: str, arm: str) -> None:
    includes = {"x86_64": x86, "i386": x86, "aarch64": aarch64, "arm": arm}
    table: dict[str, dict[str, int]] = {}
    for column, include in includes.items():
        numbers = read_headers(include, column) | COLUMNS[column][2]
        for name, number in (numbers | {name: 451 + n for n, name in enumerate(NEWER)}).items():
            if not name.startswith("__"):
                table.setdefault(name, {})[column] = number
    lines = [
        " ".join([name, *(str(table[name].get(column, "-")) for column in COLUMNS)])
        for name in sorted(table)
    ]
    head = (
        f'"""Numbers of the system calls: name, {", ".join(COLUMNS)} ("-" where there is none).\n\n'
        "Data, written by tests/syscall_table.py from the kernel's headers; loaded only to compile "
        f'a filter.\n"""\n\nCOLUMNS = {json.dumps(list(COLUMNS))}\n\nTABLE = """\\\n'
    )
    TABLE.write_text(head + "\n".join(lines) + '\n"""\n')


if __name__ == "__main__":
    main(*sys.argv[1:])
