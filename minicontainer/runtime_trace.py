"""`--trace`: run a command, and show what its steps did, also when one of them failed."""

from __future__ import annotations

import errno
import json
import os
import sys

from .options import UsageError
from .runtime import report
from .runtime.errors import ContainerError, kernel_words

_SHOWN = 4  # calls of a step, in the text


def run(name: str, function, options: dict, args: list[str], log) -> int:
    """As `function`, with the trace on stderr or in the file as soon as the command runs."""
    kind, path = options["trace"], options["trace_file"]
    if kind not in ("text", "json"):
        raise UsageError(f"--trace {kind}: either text or json")
    fd = _open(path) if path else os.dup(2)
    trace = report.trace = report.Trace()

    def show() -> None:
        nonlocal fd
        if fd < 0:
            return
        steps, report.trace = trace.steps(), None
        text = json.dumps({"command": name, "steps": steps}) if kind == "json" else _text(steps)
        with open(fd, "w") as file:
            file.write(text + "\n")
        fd = -1

    options["started"] = show
    try:
        return function(options, args, log)
    finally:
        sys.stdout.flush()
        show()


def _open(path: str) -> int:
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        return os.open(path, flags, 0o600)
    except OSError as error:
        raise ContainerError(f"--trace-file {path}: {kernel_words(error.errno or 0)}") from None


def _text(steps: list[dict]) -> str:
    if not steps:
        return "no step was reported"
    lines = [f"{'':3} {'step':<32} {'where':<8} {'at µs':>9} {'took µs':>9}"]
    begin = steps[0]["start_ns"]
    for step in steps:
        at, took = (step["start_ns"] - begin) / 1000, (step["end_ns"] - step["start_ns"]) / 1000
        lines.append(
            f"{step['n']:3} {step['name']:<32.32} {step['where']:<8} {at:9.0f} {took:9.0f}"
        )
        calls = step["calls"]
        lines += [_call(call) for call in calls[:_SHOWN]]
        if len(calls) > _SHOWN:
            took = sum(call["end_ns"] - call["start_ns"] for call in calls[_SHOWN:]) / 1000
            words = f"… {len(calls) - _SHOWN} more"
            lines.append(f"      {words:<57} {took:9.0f}")
    total = (max(step["end_ns"] for step in steps) - begin) / 1000
    lines.append(f"    {'first call to the last one told':<51} {total:9.0f}")
    return "\n".join(lines)


def _call(call: dict) -> str:
    took = (call["end_ns"] - call["start_ns"]) / 1000
    text = call["call"]
    if len(text) > 57:
        text = text[:56] + "…"
    return f"      {text:<57} {took:9.0f}  = {_result(call['result'])}"


def _result(text: str) -> str:
    """What the call returned; errors by their names."""
    if text.startswith("[Errno "):
        number = int(text[7 : text.index("]")])
        return f"-1 {errno.errorcode.get(number, number)}"
    return "0" if text == "None" else text
