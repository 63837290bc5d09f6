"""The guest kernel's command lines, one for each machine; README.md says what each word gave.

https://docs.kernel.org/admin-guide/kernel-parameters.html
"""

# Micro alone is trimmed; direct starts as a distribution's kernel comes. No word here takes away
# what isolates or protects: mitigations, LSMs and zeroed memory stay as the distribution has them.
TRIMS = "quiet cryptomgr.notests noreplace-smp no_timer_check 8250.nr_uarts=0"

# What the kernel has to say in spite of `quiet`, a panic above all, goes out on the serial port,
# which it need not even find first. Without such a port it goes nowhere.
CONSOLE = "earlyprintk=serial,ttyS0,115200,keep"

# reboot=t: by a triple fault, the one way that needs no device. After "--" come init's arguments.
END = "panic=-1 reboot=t rdinit=/probe -- debugcon"

# Of the disk's boot loader, behind root=: what Debian's cloud images have.
FULL = "ro quiet console=ttyS0"

COMMAND_LINES = {
    "micro": f"{TRIMS} {CONSOLE} {END}",
    "direct": f"quiet {CONSOLE} {END}",
    "full": FULL,
}
