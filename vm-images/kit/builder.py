"""Which artifacts are out of date and why, and building them in order; what fails stops only what
needs it.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from kit import store, trees
from kit.recipe import Failed, Recipe, Work
from kit.tools import Tools

PREFIX = "vm-images: "
TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@dataclass
class Outcome:
    """What became of one artifact. status: current, stale (only looked at), built or failed."""

    path: str
    status: str
    why: str = ""
    fix: str = ""
    seconds: float = 0.0


def inputs(recipe: Recipe, manifest: dict[str, Any]) -> dict[str, str]:
    """All that decides what the output is. Raises Failed when a tool is missing."""
    found = {os.path.relpath(path, TOP): trees.file_sha256(path) for path in recipe.sources}
    for need in recipe.needs:
        found[need] = manifest["artifacts"].get(need, {}).get("sha256", "")
    return found | recipe.facts()


def stale(recipe: Recipe, manifest: dict[str, Any]) -> str:
    """Why it has to be built; "" when it is current. Raises Failed like `inputs`."""
    now = inputs(recipe, manifest)
    entry = manifest["artifacts"].get(recipe.path)
    path = store.output(recipe.path)
    if entry is None or not os.path.lexists(path):
        return "not built yet"
    changed = sorted(key for key, _ in now.items() ^ entry["inputs"].items())
    if changed:
        return f"changed: {', '.join(dict.fromkeys(changed))}"
    if trees.fingerprint(path) != entry["fingerprint"]:
        return "modified since it was built"
    return ""


def look(recipes: list[Recipe], forced: Collection[str] = ()) -> list[Outcome]:
    """What a build would do, without doing it."""
    manifest = store.read_manifest()
    found = []
    for recipe in recipes:
        try:
            why = stale(recipe, manifest) or ("asked for" if recipe.path in forced else "")
            found.append(Outcome(recipe.path, "stale" if why else "current", why))
        except Failed as failure:
            found.append(Outcome(recipe.path, "stale", str(failure), failure.fix))
    return found


def build(
    recipes: list[Recipe], forced: Collection[str], command_lines: dict[str, str]
) -> list[Outcome]:
    """Build what is out of date, in the given order, under the cache's lock."""
    waiting = f"{PREFIX}another build is at work in {store.directory()}; waiting for it"
    done: list[Outcome] = []
    with store.locked(waiting) as (lock, scratch):
        manifest = store.read_manifest()
        manifest["command_lines"] = command_lines
        store.write_manifest(manifest)
        failed: set[str] = set()
        for number, recipe in enumerate(recipes):
            place = os.path.join(scratch, str(number))
            outcome = _build_one(recipe, manifest, forced, failed, place, lock)
            if outcome.status == "failed":
                failed.add(recipe.path)
            done.append(outcome)
    return done


def _build_one(
    recipe: Recipe,
    manifest: dict[str, Any],
    forced: Collection[str],
    failed: set[str],
    place: str,
    lock: int,
) -> Outcome:
    line = Line(recipe.path)
    try:
        # An older output of what failed is still there to be used.
        missing = [x for x in recipe.needs if x in failed and not os.path.lexists(store.output(x))]
        if missing:
            raise Failed(f"it needs {', '.join(missing)}", "mend that first; this follows")
        why = stale(recipe, manifest) or ("asked for" if recipe.path in forced else "")
        if not why:
            return Outcome(recipe.path, "current")
        line.start(why)
        os.mkdir(place)
        _make(recipe, manifest, Tools(place, lock, line.progress), place)
        line.end()
        return Outcome(recipe.path, "built", why, seconds=line.seconds())
    except (Failed, OSError) as error:
        failure = _explained(error)
        line.fail(failure)
        return Outcome(recipe.path, "failed", str(failure), failure.fix, line.seconds())
    finally:
        if os.path.lexists(place):
            trees.remove(place)


def _make(recipe: Recipe, manifest: dict[str, Any], tools: Tools, place: str) -> None:
    """Make it aside, then put it in its place, then say so in the manifest. A crash between the
    last two leaves a new output under an old entry: the next build sees that and builds again.
    """
    used = inputs(recipe, manifest)
    target = os.path.join(place, "output")
    needed = {need: store.output(need) for need in recipe.needs}
    versions = store.copied_from_root(recipe.path, used, target) if recipe.shared else None
    if versions is None:
        versions = recipe.make(Work(target, place, needed, tools))
    sha256, size = trees.checksum(target)
    path = store.output(recipe.path)
    store.install(target, path)
    manifest["artifacts"][recipe.path] = {
        "sha256": sha256,
        "bytes": size,
        "inputs": used,
        "versions": versions,
        "built_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "fingerprint": trees.fingerprint(path),
    }
    store.write_manifest(manifest)


def _explained(error: Failed | OSError) -> Failed:
    """A full disk is said by errno when we write, and in a tool's own words when it does."""
    if isinstance(error, Failed):
        if any(os.strerror(errno.ENOSPC) in line for line in error.words):
            error.fix = no_space()
        return error
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Failed(f"{error.strerror}{where}", no_space())
    return Failed(f"{error.strerror}{where}", "look at that path; then run the same command again")


def no_space() -> str:
    status = os.statvfs(store.directory())
    free = status.f_bavail * status.f_frsize >> 20
    return (
        f"{free} MB are free at {store.directory()}, some 1500 MB are needed: free some, or set "
        "MINICONTAINER_CACHE to a directory elsewhere"
    )


class Line:
    """One artifact's line on stderr: what and why, how long it has taken, how it ended."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.began = time.monotonic()
        self.text = ""
        self.shown = self.began
        self.moving = sys.stderr.isatty()

    def seconds(self) -> float:
        return round(time.monotonic() - self.began, 3)

    def start(self, why: str) -> None:
        self.text = f"{PREFIX}{self.path} ({why})"
        self._write(self.text)

    def progress(self, said: str) -> None:
        """On a terminal, twice a second: the time so far and the tool's last word."""
        if self.moving and time.monotonic() - self.shown > 0.5:
            self.shown = time.monotonic()
            self._write(f"\r\033[K{self.text} {self.seconds():.0f} s {said[:50]}")

    def end(self) -> None:
        again = f"\r\033[K{self.text}" if self.moving else ""
        self._write(f"{again} {self.seconds():.1f} s\n")

    def fail(self, failure: Failed) -> None:
        lines = [f"{PREFIX}FAILED {self.path}: {failure}"]
        lines += [f"    | {word}" for word in failure.words]
        lines += [f"    to mend it: {failure.fix}"]
        begun = "\n" if self.text else ""
        self._write(begun + "".join(f"{line}\n" for line in lines))

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
