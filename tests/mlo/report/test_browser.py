"""Reports in a browser, wide and narrow, light and dark."""

from __future__ import annotations

import shutil

import pytest
from matplotlib.figure import Figure

from mlo.recorded import read_run
from mlo.report import write_plots, write_report
from mlo.run_folder import RunFolder
from mlo.run_lock import locked

from .made import complete, made, records, response
from .test_graph_drawing import EIGHT

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on the path")

PAGES = ("complete", "comparison", "unfinished", "eight")
VIEWS = [(width, height, scheme) for width, height in ((1280, 900), (360, 780))
         for scheme in ("light", "dark")]  # fmt: skip

OVERFLOW = "document.scrollingElement.scrollWidth - innerWidth"

DRAWINGS = """() => [...document.querySelectorAll('svg[role=img]')].map(svg => {
    const box = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll('text')].map(text => {
        const r = text.getBoundingClientRect();
        return {said: text.textContent,
                outside: Math.max(box.left - r.left, r.right - box.right,
                                  box.top - r.top, r.bottom - box.bottom),
                size: parseFloat(getComputedStyle(text).fontSize)
                      * Math.hypot(text.getScreenCTM().a, text.getScreenCTM().b),
                left: r.left, right: r.right, top: r.top, bottom: r.bottom};
    });
    return {title: svg.getAttribute('aria-label'), width: box.width, height: box.height,
            shapes: svg.querySelectorAll('path').length, texts,
            seen: svg.checkVisibility(), own: !!svg.closest('.own')};
})"""

COLORS = """() => {
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const node = walker.currentNode, element = node.parentElement;
        if (!node.textContent.trim() || element.closest('style, title')) continue;
        const style = getComputedStyle(element);
        let around = element;
        while (around && getComputedStyle(around).backgroundColor === 'rgba(0, 0, 0, 0)')
            around = around.parentElement;
        found.push({said: node.textContent.trim(),
                    ink: element.closest('svg') ? style.fill : style.color,
                    paper: getComputedStyle(around).backgroundColor});
    }
    return found;
}"""


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Name -> file, of one page of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    run = complete(folder / "a run", recipe="lfm-reweighting", config={"ticks": 12})
    figure = Figure(figsize=(4, 3), layout="constrained")
    figure.add_subplot(xlabel="x").plot([1, 2], [3, 4])
    with RunFolder(run.path, locked(run.path)) as taken:
        write_plots(run, [("its own", figure)], taken)
    lines = [{**line, "drawing": EIGHT} if line["kind"] == "start" else line
             for line in records(200)]  # fmt: skip
    lines[2]["moves"][1]["responses"] = [response(9.0, "negative_curvature")]
    cut = made(folder / "cut off", {"a stage": {0: lines}, "b": {}}, status="running", done=False)
    eight = made(folder / "eight", {"s": {0: lines[:1]}}, status="failed", reason="E: " + "x" * 200)
    many = [cut, complete(folder / "other" / "a run", seeds=2, recipe="a" * 120)]
    runs = {"complete": [read_run(run.path)], "comparison": [run, *many], "unfinished": [cut],
            "eight": [eight]}  # fmt: skip
    for name, of in runs.items():
        write_report(of, folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in runs}


@pytest.fixture(params=VIEWS, ids=lambda view: f"{view[0]}-{view[2]}")
def view(request, browser):
    width, height, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    yield context.new_page()
    context.close()


@pytest.fixture(params=PAGES)
def opened(request, view, pages):
    """A page that has been opened, and nothing else asked for."""
    asked, said = [], []
    view.on("request", lambda request: asked.append(request.url))
    view.on("console", lambda message: said.append(message.text))
    view.on("pageerror", lambda error: said.append(str(error)))
    url = pages[request.param].as_uri()
    view.goto(url)
    assert [one for one in asked if not one.startswith("data:")] == [url]
    assert said == []
    return view


def luminance(color: str) -> float:
    """Of a CSS colour, by the formula of WCAG."""
    numbers = [float(n) for n in color[color.index("(") + 1 : -1].split(",")]
    assert len(numbers) == 3 or numbers[3] == 1, f"{color} is transparent"
    parts = [n / 255 for n in numbers[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_guidelines():
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
    assert contrast("rgb(119, 119, 119)", "rgb(255, 255, 255)") == pytest.approx(4.48, abs=0.01)


def test_it_fits_its_window_and_its_drawings_can_be_read(opened):
    assert opened.evaluate(OVERFLOW) <= 0
    found = opened.evaluate(DRAWINGS)
    assert found
    for drawing in found:
        title = drawing["title"]
        assert drawing["seen"], title
        assert min(drawing["width"], drawing["height"]) > 60, title
        assert drawing["shapes"] > 0, title
        for text in drawing["texts"]:
            assert text["outside"] <= 1, (title, text)
            assert text["size"] >= 9 or drawing["own"], (title, text)
            assert text["size"] < 20, (title, text)


def test_no_two_texts_of_a_drawing_lie_on_each_other(opened):
    for drawing in opened.evaluate(DRAWINGS):
        texts = drawing["texts"]
        for i, a in enumerate(texts):
            for b in texts[:i]:
                wide = min(a["right"], b["right"]) - max(a["left"], b["left"])
                high = min(a["bottom"], b["bottom"]) - max(a["top"], b["top"])
                # Boxes of text are as high as lines, higher than letters.
                assert wide <= 1 or high <= 4, (drawing["title"], a["said"], b["said"])


def test_all_text_stands_out_from_what_is_behind_it(opened):
    found = opened.evaluate(COLORS)
    assert len(found) > 20
    for one in found:
        assert contrast(one["ink"], one["paper"]) >= 4.5, one


def test_lines_are_seen_in_both_schemes(view, pages):
    view.goto(pages["complete"].as_uri())
    read = "name => getComputedStyle(document.documentElement).getPropertyValue(name).trim()"

    def rgb(name):
        value = view.evaluate(read, name)
        return "rgb({}, {}, {})".format(*bytes.fromhex(value[1:]))

    for number in range(8):
        assert contrast(rgb(f"--c{number}"), rgb("--card")) >= 3


def test_the_schemes_differ(browser, pages):
    papers = set()
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(pages["complete"].as_uri())
        papers.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.close()
    assert len(papers) == 2
