"""`python -m benchmarks`: containers and virtual machines, one stopwatch.

Exit codes: 0 ok, 1 failure (doctor: no arm runs here), 2 usage, 130 interrupted; of `compare A B`
also 3 (a regression: seen in two runs) and 4 (something became worse, seen once).
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks import benches, leftovers, results, roots, session
from benchmarks.arms.base import ArmFailed

EXAMPLES = """\
examples:
  python -m benchmarks compare                      build what is missing, run, write the report
  python -m benchmarks doctor                       which arms can run here, found by doing
  python -m benchmarks run --resume results/RUN     go on with an interrupted run
  python -m benchmarks VERB --help                  examples of each verb
"""
EXAMPLES_OF = {
    "doctor": """\
  python -m benchmarks doctor                       every arm: one shot, or why not and the fix
  python -m benchmarks doctor --arms 'vm-*' --json
  python -m benchmarks doctor --arms 'vm-*' --connect qemu:///session
""",
    "list": """\
  python -m benchmarks list                         the benchmarks, and names for --arms
  python -m benchmarks list --bench runtime         the arms of one benchmark
  python -m benchmarks list --json
""",
    "prepare": """\
  python -m benchmarks prepare                      nothing is built twice
""",
    "run": """\
  python -m benchmarks run --arms 'runc:*,minicontainer-*' --rounds 30
  python -m benchmarks run --bench runtime          our OCI runtime's budgets, met or not
  python -m benchmarks run --bench stop,memory --budget 120
  python -m benchmarks run --quick                  all benchmarks, three minutes; or --full
  python -m benchmarks run --budget 600 --seed 7    ten minutes of rounds, in a known order
  python -m benchmarks run --reference bubblewrap:busybox    a steadier one than runc
  python -m benchmarks run --resume results/RUN     go on with an interrupted run, by its plan
""",
    "compare": """\
  python -m benchmarks compare                      start times of all that runs here; some minutes
  python -m benchmarks compare --arms 'runc:*,podman:*,vm-*' --budget 600
  python -m benchmarks compare results/A results/B              what became slower from A to B
  python -m benchmarks compare results/A results/B --again results/B2    a second look, to be sure
  python -m benchmarks compare before/ after/                   several runs in each directory
exit codes with two runs: 0 no regression, 3 regression (seen in two runs of B), 4 seen once
""",
    "merge": """\
  python -m benchmarks merge laptop/RUN server/RUN              one table, a column for each host
  python -m benchmarks merge hosts/*/RUN --to all-hosts --json
""",
    "export": """\
  python -m benchmarks export results/RUN > rows.csv            every observation, as a table
  python -m benchmarks export results/RUN --json                one JSON list; from Python:
                                                                benchmarks.load("results/RUN")
""",
    "report": """\
  python -m benchmarks report                       of the latest run in results/
  python -m benchmarks report results/RUN --json
""",
    "clean": """\
  python -m benchmarks clean                        running harnesses are left alone
""",
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Containers and virtual machines, one endpoint, one clock, one receiver.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, run: Callable[[argparse.Namespace], int], text: str) -> Any:
        sub = verbs.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog="examples:\n" + EXAMPLES_OF[name],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(run=run)
        sub.add_argument("--json", action="store_true", help="print the result as JSON")
        return sub

    def choice(sub: Any) -> None:
        sub.add_argument(
            "--bench",
            default="",
            metavar="LIST",
            help="with commas: " + "; ".join(f"{b.name}: {b.title}" for b in benches.every_bench()),
        )
        sub.add_argument("--arms", default="", metavar="LIST", help="names or globs, with commas")
        sub.add_argument(
            "--connect",
            metavar="URI",
            help="libvirt's; as LIBVIRT_DEFAULT_URI. qemu:///system for root, else qemu:///session",
        )

    def sizes(sub: Any) -> None:
        choice(sub)
        sub.add_argument("--seed", type=int, help="the order of all rounds follows from it")
        sub.add_argument("--rounds", type=_positive(int), help="every arm this often")
        sub.add_argument(
            "--reference",
            default="",
            metavar="ARM",
            help="what the others are held against, shot twice in each round (runc, where it runs)",
        )
        sub.add_argument(
            "--budget",
            type=_positive(float),
            metavar="SECONDS",
            help=f"for all rounds together, when --rounds is not given ({session.BUDGET_S:.0f})",
        )
        size = sub.add_mutually_exclusive_group()
        size.add_argument("--quick", action="store_true", help="all benchmarks in three minutes")
        size.add_argument(
            "--full", action="store_true", help="all benchmarks, as many rounds as they need"
        )
        sub.add_argument("--out", default="results", metavar="DIR", help="results/ by default")

    choice(verb("doctor", doctor, "try every arm once and say which can run, and why not"))
    choice(verb("list", list_all, "name the benchmarks and arms, without starting anything"))
    verb("prepare", prepare, "build the probe, the root trees and the guests that are missing")
    run_parser = verb("run", run, "measure, and write one row for each observation")
    sizes(run_parser)
    run_parser.add_argument("--resume", metavar="RUN", help="directory of an interrupted run")
    compared = verb("compare", compare, "prepare, run and report; or compare stored runs")
    sizes(compared)
    compared.add_argument("runs", nargs="*", metavar="RUN", help="two stored runs: A and B")
    compared.add_argument(
        "--again", nargs="+", default=[], metavar="RUN", help="more runs of what B is"
    )
    merged = verb("merge", merge, "set the results of several hosts beside each other")
    merged.add_argument("runs", nargs="+", metavar="RUN", help="a run of each host")
    merged.add_argument("--to", default="merged", metavar="DIR", help="merged/ by default")
    exported = verb("export", export, "write every row of a run as CSV to stdout")
    exported.add_argument("directory", metavar="RUN")
    report_parser = verb("report", report, "write report.html, report.md and figures of a run")
    report_parser.add_argument("directory", nargs="?", metavar="RUN", help="default: the latest")
    report_parser.add_argument("--out", default="results", metavar="DIR", help="where runs lie")
    verb("clean", clean, "remove what a killed run left outside the clone")
    return top


def _positive(kind: type) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError
        return value

    convert.__name__ = f"positive {kind.__name__}"
    return convert


def _chosen(options: argparse.Namespace) -> list[session.Part]:
    quick = getattr(options, "quick", False)
    names = [name for name in options.bench.split(",") if name]
    if not names:
        full = getattr(options, "full", False)
        names = list(benches.QUICK if quick else benches.FULL if full else benches.NAMES[:1])
    return _parts(names, options.arms, quick)


def _parts(names: Iterable[str], patterns: str, quick: bool) -> list[session.Part]:
    try:
        found = [benches.bench(name) for name in dict.fromkeys(names)]
        return session.choose(found, patterns, quick)
    except ValueError as error:
        raise session.UsageError(str(error)) from None


def doctor(options: argparse.Namespace) -> int:
    facts = [fact for part in _chosen(options) for fact in session.status(part)]
    able = 0 if any(fact["runs"] for fact in facts) else 1
    if options.json:
        print(json.dumps(facts, indent=2))
        return able
    for fact in facts:
        badge = f" [{fact['accel']}]" if fact["accel"] else ""
        if fact["runs"]:
            print(f"ok    {fact['arm']}{badge}: one shot in {fact['seconds'] * 1000:.1f} ms")
        else:
            print(f"skip  {fact['arm']}{badge}: {fact['reason']}")
            print(f"      fix: {fact['fix'] or 'unknown'}")
    return able


def list_all(options: argparse.Namespace) -> int:
    known = [(arm, part.bench.unavailable(arm)) for part in _chosen(options) for arm in part.arms]
    titles = {bench.name: bench.title for bench in benches.every_bench()}
    if options.json:
        arms = [
            {"arm": arm.name, "kind": arm.kind, "missing": skip.reason if skip else ""}
            for arm, skip in known
        ]
        print(json.dumps({"benches": titles, "arms": arms}, indent=2))
        return 0
    for name, title in titles.items():
        print(f"--bench {name:<24} {title}")
    for arm, skip in known:
        print(f"{arm.name:<32} {arm.kind:<10} {f'({skip.reason})' if skip else ''}".rstrip())
    return 0


def prepare(options: argparse.Namespace) -> int:
    return roots.build(json=options.json)


def run(options: argparse.Namespace) -> int:
    directory = _measure(options, options.resume)
    print(json.dumps({"directory": directory}) if options.json else directory)
    if "runtime" in options.bench.split(",") and not options.json:
        # Only now, as in _after.
        from benchmarks.report.analysis import analyse
        from benchmarks.report.terminal import budgets

        print("\n".join(budgets(analyse(directory))))
    return 0


def _plans(options: argparse.Namespace) -> bool:
    """Whether anything was asked for that a run's plan is made of."""
    asked = options.arms or options.rounds or options.reference
    return bool(asked) or options.seed is not None


def _measure(options: argparse.Namespace, resume: str | None) -> str:
    if resume:
        if options.bench or _plans(options):
            words = "no --bench, --arms, --rounds, --reference, --seed"
            raise session.UsageError(f"--resume keeps the run's plan: {words}")
        return session.resume(resume, _parts)
    default = session.QUICK_S if options.quick else None if options.full else session.BUDGET_S
    request = session.Request(
        options.out, options.arms, options.seed, options.rounds, options.budget or default,
        quick=options.quick, reference=options.reference,
    )  # fmt: skip
    return session.new_run(request, _chosen(options))


def compare(options: argparse.Namespace) -> int:
    if options.runs or options.again:
        if len(options.runs) != 2:
            raise session.UsageError("compare takes two stored runs, A and B, or none to measure")
        if _plans(options):
            words = "no --arms, --rounds, --reference, --seed"
            raise session.UsageError(f"compare A B measures nothing: {words}")
        return _after("compare_runs")(options)
    code = roots.build(json=False, output=sys.stderr)
    if code != 0:
        print("some images could not be built; their arms are skipped", file=sys.stderr)
    options.directory = _measure(options, None)
    return report(options)


def report(options: argparse.Namespace) -> int:
    return _after("report")(options)


def merge(options: argparse.Namespace) -> int:
    return _after("merge")(options)


def export(options: argparse.Namespace) -> int:
    return _after("export")(options)


def _after(name: str) -> Callable[[argparse.Namespace], int]:
    """A verb that works on stored runs. Loaded only now: pandas and matplotlib are never in a
    process that still measures.
    """
    from benchmarks import stored

    verb: Callable[[argparse.Namespace], int] = getattr(stored, name)
    return verb


def clean(options: argparse.Namespace) -> int:
    removed = leftovers.remove(lambda line: print(line, file=sys.stderr))
    print(json.dumps(removed) if options.json else f"removed {len(removed)} left-over directories")
    return 0


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if getattr(options, "connect", None):
        os.environ["LIBVIRT_DEFAULT_URI"] = options.connect  # what libvirt's own tools read, too
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return 130
    except session.UsageError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except (results.ResultsError, ArmFailed) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        fix = "; make room and run again" if error.errno == errno.ENOSPC else ""
        print(f"benchmarks: {where}{error.strerror or error}{fix}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
