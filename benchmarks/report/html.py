"""report.html: one file that shows itself anywhere, without a network or its neighbours."""

from __future__ import annotations

import base64
import os
import re
from itertools import groupby
from typing import Any

import jinja2

from benchmarks import anchors, schema
from benchmarks.report import sizes, units, words
from benchmarks.report.analysis import Analysis
from benchmarks.report.capacity import DEFINITIONS
from benchmarks.report.claims import claims
from benchmarks.report.figures import Drawn
from benchmarks.report.isolation import probed


def data_uri(path: str) -> str:
    """The SVG file as a data URI."""
    with open(path, "rb") as file:
        return "data:image/svg+xml;base64," + base64.b64encode(file.read()).decode("ascii")


def unbroken(text: str) -> str:
    """The same words, where a line never ends inside "6.1 ms" or inside "(5.7–6.4 ms; n=12)"."""
    text = re.sub(
        r"\([^()]*n=\d+\)", lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), text
    )
    text = re.sub(r"(?<=\d) (?=(µs|ms|s|KiB|MiB|GiB)\b)", "\N{NO-BREAK SPACE}", text)
    return text.replace("–", "\N{WORD JOINER}–\N{WORD JOINER}")


def page(template: str, **variables: Any) -> str:
    """The text of a page from a template beside this file."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(os.path.dirname(os.path.abspath(__file__))),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["unbroken"] = unbroken
    shared = {"units": units, "words": words, "sizes": sizes, "data_uri": data_uri}
    return templates.get_template(template).render(**shared, **variables)


def render(analysis: Analysis, figures: list[Drawn]) -> str:
    """The page of one run."""
    return page(
        "report.html.j2",
        analysis=analysis,
        figures=figures,
        anchors=anchors.starts() + (anchors.memory() if analysis.footprints else []),
        claims=claims(analysis),
        definitions=DEFINITIONS,
        probed=probed,
        by_bench=[
            (name, list(found))
            for name, found in groupby(analysis.measured, key=lambda one: one.key.group.bench)
        ],
        benches=schema.benches(),
        environment=words.environment(analysis.environment),
    )
