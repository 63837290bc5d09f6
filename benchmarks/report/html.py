"""report.html: one file that shows itself anywhere, without a network or its neighbours."""

from __future__ import annotations

import base64
import os
import re

import jinja2

from benchmarks import anchors
from benchmarks.report import words
from benchmarks.report.analysis import Analysis
from benchmarks.report.figures import Drawn

TEMPLATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "report.html.j2")


def data_uri(path: str) -> str:
    """The SVG file as a data URI."""
    with open(path, "rb") as file:
        return "data:image/svg+xml;base64," + base64.b64encode(file.read()).decode("ascii")


def unbroken(text: str) -> str:
    """The same words, where a line never ends inside "6.1 ms" or inside "(5.7–6.4 ms; n=12)"."""
    text = re.sub(r"\([^()]*\)", lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), text)
    text = re.sub(r"(?<=\d) (?=(µs|ms|s)\b)", "\N{NO-BREAK SPACE}", text)
    return text.replace("–", "\N{WORD JOINER}–\N{WORD JOINER}")


def render(analysis: Analysis, figures: list[Drawn]) -> str:
    """The page's text."""
    with open(TEMPLATE, encoding="utf-8") as file:
        text = file.read()
    templates = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters["unbroken"] = unbroken
    template = templates.from_string(text)
    return template.render(
        analysis=analysis,
        figures=figures,
        anchors=anchors.starts(),
        claims=words.claims(analysis),
        words=words,
        data_uri=data_uri,
        environment=words.environment(analysis.environment),
    )
