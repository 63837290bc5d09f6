"""The report looked at in a browser: wide, on a phone, in the dark, on paper."""

from __future__ import annotations

import base64
import re
import time

import pytest

from benchmarks import stored
from benchmarks.__main__ import parser
from benchmarks.report import write_report
from tests.browser import CHROMIUM, NO_CHROMIUM, browser
from tests.report_fakes import full_run, run_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM),
]

# What a reader would see that is wrong: pictures that are missing, text that is cut off or too
# small, a page that must be pushed sideways.
LOOK = """(() => {
  const images = [...document.images];
  const scales = images.map(image => image.clientWidth / image.naturalWidth);
  const holds = box => [...box.querySelectorAll('td, th, li, p, h1, h2')]
    .filter(cell => cell.offsetParent && cell.scrollWidth > cell.clientWidth + 1);
  const dark = getComputedStyle(document.body);
  return {
    width: innerWidth,
    scroll: document.documentElement.scrollWidth,
    images: images.length,
    missing: images.filter(i => !i.complete || !i.naturalWidth || i.clientWidth < 250).length,
    scale: Math.min(...scales),
    overflowing: holds(document.body).map(cell => cell.textContent.slice(0, 60)),
    beyond: [...document.querySelectorAll('td, th, img')]
      .filter(one => one.offsetParent && one.getBoundingClientRect().right > innerWidth + 1).length,
    ink: dark.color, paper: dark.backgroundColor,
    verdicts: [...document.querySelectorAll('.claims td:nth-child(4)')]
      .filter(cell => cell.getBoundingClientRect().right <= innerWidth).length,
  };
})()"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """The report of a run with every benchmark, and a merge of two hosts."""
    directory = tmp_path_factory.mktemp("pages")
    one = full_run(directory / "one")
    write_report(one)
    two = run_of(directory / "two", "run-b", 1.1)
    stored.merge(parser().parse_args(["merge", one, two, "--to", str(directory / "merged")]))
    return {"report": directory / "one/report.html", "merged": directory / "merged/merged.html"}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def look(page, path, width, *, media="", scheme="light"):
    page.call(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=900, deviceScaleFactor=1, mobile=width < 500,
    )  # fmt: skip
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.call("Emulation.setEmulatedMedia", media=media, features=features)
    page.call("Page.navigate", url=path.as_uri())
    there = f"document.readyState == 'complete' && location.href == '{path.as_uri()}'"
    deadline = time.monotonic() + 30
    while not page.evaluate(there):
        assert time.monotonic() < deadline, "the page does not load"
        time.sleep(0.05)
    return page.evaluate(LOOK)


def luminance(colour):
    red, green, blue = (int(part) / 255 for part in re.findall(r"\d+", colour)[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("name", ["report", "merged"])
@pytest.mark.parametrize("width", [390, 1280])
def test_on_a_screen(reports, page, width, name):
    seen = look(page, reports[name], width)
    assert seen["width"] == width
    assert seen["scroll"] <= width, "the page scrolls sideways"
    assert seen["images"] == (10 if name == "report" else 1)
    assert seen["missing"] == 0
    assert seen["overflowing"] == []
    # 7 pt, the smallest text of the figures, is then no smaller than 8 px on the screen.
    assert seen["scale"] * 7 * 96 / 72 >= 8
    if name == "report":
        assert seen["verdicts"] == 8, "every verdict is in view"


def test_in_the_dark(reports, page):
    light, dark = (look(page, reports["report"], 1280, scheme=s) for s in ("light", "dark"))
    for seen, sign in ((light, 1), (dark, -1)):
        assert (luminance(seen["paper"]) - luminance(seen["ink"])) * sign > 0.6


@pytest.mark.parametrize("name", ["report", "merged"])
def test_on_paper(reports, page, tmp_path, name):
    """A4 with its margins is 703 px wide at 96 px in an inch; nothing may stand out of it."""
    seen = look(page, reports[name], 703, media="print")
    assert seen["beyond"] == 0
    assert seen["missing"] == 0
    assert seen["overflowing"] == []
    pdf = base64.b64decode(page.call("Page.printToPDF", preferCSSPageSize=True)["data"])
    pages = len(re.findall(rb"/Type\s*/Page\b", pdf))
    assert (1 if name == "merged" else 8) <= pages <= 20
    assert re.search(rb"/MediaBox\s*\[\s*0 0 59[45][\d.]* 84[12]", pdf), "A4"


def test_raw_data_is_a_click_away(reports, page):
    look(page, reports["report"], 1280)
    links = page.evaluate("[...document.querySelectorAll('#raw a')].map(a => a.href)")
    assert [link.rpartition("/")[2] for link in links] == [
        "samples.jsonl", "environment.json", "plan.json",
    ]  # fmt: skip
    for link in links:
        assert (reports["report"].parent / link.rpartition("/")[2]).is_file()
