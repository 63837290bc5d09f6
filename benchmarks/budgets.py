"""What this project allows itself: how often an arm may take the time of another one, both measured
in the same rounds and on the same root.
"""

from __future__ import annotations

from dataclasses import dataclass

WHOLE, FIRST = "start.whole_process", "start.first_instruction"


@dataclass(frozen=True)
class Allowance:
    """`arm` and `against` are names of arms before the colon; machines are of the same accelerator.

    metric: WHOLE, from the request until nothing of it is left, or FIRST; or one of its own.
    """

    arm: str
    limit: float
    against: str
    metric: str = WHOLE


ALLOWANCES = (
    Allowance("minicontainer-cli", 1.0, "runc"),
    Allowance("minicontainer-library", 0.4, "runc"),
    Allowance("minicontainer-runtime-run", 0.8, "runc-run"),
    Allowance("minicontainer-runtime-create-start-delete", 1.0, "runc-create-start-delete"),
    Allowance("minicontainer-library", 0.25, "runc-run"),
    Allowance("minicontainer-library", 1.2, "bubblewrap"),
    Allowance("vm-micro", 0.6, "vm-direct", FIRST),
    Allowance("vm-direct", 0.5, "vm-full", FIRST),
)
# Our driver beside libvirt-python without it, for the same machine.
DRIVER = Allowance("create-by-driver", 1.05, "create-by-createXML", "libvirt.create")
# The reference against itself on a quiet machine: how far its interval may reach, and from how many
# rounds on that is asked.
A_A, A_A_ROUNDS = 0.05, 30
