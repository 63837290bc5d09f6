"""The v2 rig: the tests of kernel/, runtime/ and images/ and the lessons once more, in a guest with
pure cgroup v2.

plugin.py     in the suite's own pytest: starts the guest, merges its results
beside.py     the guest as the suite sees it: what it says, and its end
compare.py    what passes on one layout only
guest.py      a process of its own beside the suite: has the image made, runs QEMU
image.py      the guest's initramfs: this host's Python, packages and programs, under the same paths
tree.py       how that is written
init.sh, passes.sh    what the guest does, from its first process on
inside.py     in the guest's pytest: leaves out what cannot run there, sends each result
selection.py  what runs in which pass, what does not, and why
"""
