"""The verbs that work on stored runs: report, compare A B, merge, export."""

from __future__ import annotations

import argparse
import json
import os
import sys

from benchmarks import results, tables
from benchmarks.report import (
    comparison,
    comparison_text,
    merged_page,
    merging,
    series,
    write_report,
)

REGRESSION, SEEN_ONCE = 3, 4  # exit codes of `compare A B`


def report(options: argparse.Namespace) -> int:
    written = write_report(options.directory or results.latest(options.out))
    print(json.dumps(written.record(), indent=2) if options.json else written.text)
    return 0


def compare_runs(options: argparse.Namespace) -> int:
    before, after = options.runs
    found = comparison.compare(
        [series.read(path) for path in _runs([before])],
        [series.read(path) for path in _runs([after, *options.again])],
    )
    if options.json:
        print(json.dumps(comparison_text.record(found), indent=2))
    else:
        print(comparison_text.render(found))
    if found.of("regression"):
        return REGRESSION
    return SEEN_ONCE if found.of("worse, seen once") else 0


def merge(options: argparse.Namespace) -> int:
    merged = merging.merge([series.read(path) for path in _runs(options.runs)])
    for run in merged.runs:
        write_report(run.directory)  # the merge links to each host's own
    os.makedirs(options.to, exist_ok=True)
    record, text = merging.record(merged), merged_page.markdown(merged)
    results.write_json(options.to, "merged.json", record)
    results.write_whole(os.path.join(options.to, "merged.md"), text)
    page = os.path.join(options.to, "merged.html")
    results.write_whole(page, merged_page.html(merged, options.to))
    print(json.dumps(record, indent=2) if options.json else f"{text}\nreport: {page}")
    return 0


def export(options: argparse.Namespace) -> int:
    rows, damaged = results.read_rows(options.directory)
    for line in damaged:
        print(line, file=sys.stderr)
    if options.json:
        print(json.dumps(rows))
    else:
        tables.write_csv(rows, sys.stdout)
    return 0


def _runs(paths: list[str]) -> list[str]:
    """Each path is a run, or a directory of runs."""
    return [run for path in paths for run in results.runs(path) or [path]]
