#!/usr/bin/env python3
"""Builds the probe, the root trees and the guests, each by one recipe beside this file."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from dataclasses import asdict
from types import FrameType

import full.recipe
import machine.base
import micro.initramfs
import micro.kernel
import micro.modules
import micro.vmlinux
import nano.recipe
import probe.recipe
import roots.busybox
import roots.debian
import roots.debian_base
import workshop.base
import workshop.recipe
from kit import builder, store
from kit.builder import Outcome
from kit.recipe import Failed, Recipe
from micro.command_line import COMMAND_LINES

# Parts before what is made of them.
RECIPES: list[Recipe] = [
    *probe.recipe.RECIPES,
    *nano.recipe.RECIPES,
    *roots.busybox.RECIPES,
    *roots.debian_base.RECIPES,
    *roots.debian.RECIPES,
    *micro.kernel.RECIPES,
    *micro.vmlinux.RECIPES,
    *micro.initramfs.RECIPES,
    *micro.modules.RECIPES,
    *machine.base.RECIPES,
    *full.recipe.RECIPES,
    *workshop.base.RECIPES,
    *workshop.recipe.RECIPES,
]

EXAMPLES = """\
examples:
  python vm-images/build.py                      build what is missing or out of date
  python vm-images/build.py list                 what there is, its size, and what is out of date
  python vm-images/build.py micro --json         kernel and initramfs; the outcome on stdout as JSON
  sudo python vm-images/build.py roots --force   Debian again, with the archive's newest packages
  python vm-images/build.py workshop             the ready-made machine (start.py starts it), 1 GB
  CC=clang python vm-images/build.py probe       another compiler
  MINICONTAINER_CACHE=/tmp/x python vm-images/build.py          somewhere else

variables: MINICONTAINER_CACHE (where it all goes), MINICONTAINER_KERNEL (the path of a vmlinuz of
your own), MINICONTAINER_DEBIAN_MIRROR (an address, or a line of sources.list), CC.
exit status: 0 all there, 1 something could not be built, 2 usage, 130 interrupted.
"""


def main() -> int:
    options = _arguments()
    os.umask(0o022)  # QEMU runs as a user of its own, and has to read these
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    began = time.monotonic()
    try:
        if options.what == "list":
            return _list(options.json)
        recipes = _chosen(options.what)
        forced = [x.path for x in recipes if options.force and options.what in ("all", x.group)]
        outcomes = builder.look(recipes, forced)
        if any(outcome.status == "stale" for outcome in outcomes) or _lines_changed():
            outcomes = builder.build(recipes, forced, COMMAND_LINES)
    except Failed as failure:
        print(f"vm-images: {failure}\n    to mend it: {failure.fix}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nvm-images: interrupted; what was finished stays", file=sys.stderr)
        return 130
    if options.json:
        print(json.dumps(_summary(outcomes), indent=1))
    return _conclude(outcomes, time.monotonic() - began)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="build.py", description=__doc__, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    groups = list(dict.fromkeys(recipe.group for recipe in RECIPES))
    parser.add_argument(
        "what", nargs="?", default="all", choices=["all", *groups, "list"],
        help="a group, with what it needs; all but the workshop (the default); or list: only look",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="the outcome, as JSON on stdout")
    parser.add_argument(
        "--force", action="store_true", help="the group's artifacts also when up to date"
    )
    return parser.parse_args()


def _end(number: int, frame: FrameType | None) -> None:
    """Leave through every `finally`, as Ctrl-C does."""
    raise SystemExit(128 + number)


def _chosen(what: str) -> list[Recipe]:
    """The group's recipes and, before them, all that they need."""
    wanted = {
        recipe.path
        for recipe in RECIPES
        if what == recipe.group or (what == "all" and not recipe.opt_in)
    }
    for recipe in reversed(RECIPES):
        if recipe.path in wanted:
            wanted.update(recipe.needs)
    return [recipe for recipe in RECIPES if recipe.path in wanted]


def _lines_changed() -> bool:
    return store.read_manifest().get("command_lines") != COMMAND_LINES


def _summary(outcomes: list[Outcome]) -> dict[str, object]:
    return {"directory": store.directory(), "artifacts": [asdict(item) for item in outcomes]}


def _conclude(outcomes: list[Outcome], seconds: float) -> int:
    failed = [outcome.path for outcome in outcomes if outcome.status == "failed"]
    built = sum(outcome.status == "built" for outcome in outcomes)
    if failed:
        text = f"not built: {', '.join(failed)}; {built} built, the lines above say why"
    elif built:
        text = f"{built} built in {seconds:.1f} s: {store.directory()}"
    else:
        text = f"up to date: {store.directory()} ({seconds:.2f} s)"
    print(f"vm-images: {text}", file=sys.stderr)
    return 1 if failed else 0


def _list(as_json: bool) -> int:
    manifest = store.read_manifest()
    outcomes = builder.look(RECIPES)
    if as_json:
        print(json.dumps({**_summary(outcomes), "manifest": manifest}, indent=1))
        return 0
    print(store.directory())
    for outcome in outcomes:
        entry = manifest["artifacts"].get(outcome.path)
        size = f"{entry['bytes'] / 1e6:9.3f} MB  {entry['built_utc']}" if entry else " " * 34
        print(f"  {outcome.path:24} {size}  {outcome.why or 'up to date'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
