"""Figures with their units, intervals and badges, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from benchmarks.statistics import Ratio, Summary

MOST_PLACES = 9  # behind these, a difference of floats and no measurement
EMULATED = "emulated: not a KVM figure"


def duration(ms: float) -> str:
    """Three figures at most, in the unit that suits: 8.5 µs, 0.43 ms, 19.7 ms, 166 ms, 2.51 s."""
    if ms >= 999.5:
        return f"{figures(ms / 1000)} s"
    if ms < 0.0995:
        return f"{figures(ms * 1000, 2)} µs"
    return f"{figures(ms, 2 if ms < 1 else 3)} ms"


def figures(value: float, count: int = 3) -> str:
    """The number to so many significant figures, never as 1.2e+03 or 1.2e-05."""
    text = f"{value:.{count}g}"
    if "e-" in text:
        places = count - 1 + int(text.partition("e-")[2])
        return f"{value:.{places}f}" if places <= MOST_PLACES else "0"
    return f"{float(text):.0f}" if "e+" in text else text


def amount(value: float, unit: str) -> str:
    """A value in its unit; milliseconds and MiB in the size that suits."""
    if unit == "ms":
        return duration(value)
    if unit == "MiB":
        return mebibytes(value)
    return f"{figures(value)} {unit}"


def mebibytes(value: float) -> str:
    """Three figures at most: 12 KiB, 4.31 MiB, 1.2 GiB."""
    if abs(value) >= 1023.5 * 1024:
        return f"{figures(value / 1024**2)} TiB"
    if abs(value) >= 1023.5:
        return f"{figures(value / 1024)} GiB"
    if abs(value) < 0.0995:
        return f"{figures(value * 1024)} KiB"
    return f"{figures(value)} MiB"


def interval(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "no interval"
    if max(low, high) >= 999.5:
        return f"{figures(low / 1000)}–{figures(high / 1000)} s"
    return f"{figures(low)}–{figures(high)} ms"


def measured(summary: Summary) -> str:
    """Median, 95% interval and n of one arm."""
    return f"{duration(summary.median)} {spread(summary)}"


def summed(summary: Summary, unit: str) -> str:
    """Median, 95% interval and n in any unit."""
    if unit == "ms":
        return measured(summary)
    return f"{amount(summary.median, unit)} {bounds(summary)}"


def bounds(summary: Summary) -> str:
    """The 95% interval without its unit, and n."""
    if summary.low is None or summary.high is None:
        return f"(no interval; n={summary.n})"
    return f"({figures(summary.low)}–{figures(summary.high)}; n={summary.n})"


def spread(summary: Summary) -> str:
    """The 95% interval of the median and n."""
    return f"({interval(summary.low, summary.high)}; n={summary.n})"


def times(of: Ratio | None) -> str:
    if of is None:
        return "–"
    if of.low is None or of.high is None:
        return f"× {figures(of.value)} (n={of.n}, no interval)"
    return f"× {figures(of.value)} ({figures(of.low)}–{figures(of.high)}; n={of.n})"


class Named(Protocol):
    """Whatever was measured of one arm."""

    @property
    def name(self) -> str: ...
    @property
    def accel(self) -> str: ...


def label(arm: Named) -> str:
    """The arm's name with its accelerator badge."""
    return f"{arm.name} [{arm.accel}]" if arm.accel else arm.name


def between(values: Sequence[float], unit: str) -> str:
    """'5.5 ms to 166 ms', from the smallest to the largest."""
    low, high = amount(min(values), unit), amount(max(values), unit)
    return low if low == high else f"{low} to {high}"


KINDS = {"process": "a process", "container": "a container", "vm": "a virtual machine"}


def by_kind(values: Sequence[tuple[str, bool, float]], unit: str) -> str:
    """'a container 5 ms to 9 ms, an emulated virtual machine 2 s', from (kind, emulated, value)."""
    parts = []
    for kind, name in KINDS.items():
        for emulated in (False, True):
            alike = [value for k, e, value in values if (k, e) == (kind, emulated)]
            if alike:
                who = name.replace("a ", "an emulated ", 1) if emulated else name
                parts.append(f"{who} {between(alike, unit)}")
    return ", ".join(parts)
