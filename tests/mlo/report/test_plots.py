"""Pictures in the folder of a run, and those of the recipe in its report."""

from __future__ import annotations

import pathlib
from xml.etree import ElementTree as ET

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread

from mlo.recorded import read_run
from mlo.report import plots, write_plots, write_report
from mlo.run_folder import RunFolder
from mlo.run_lock import locked

from .made import complete
from .parsed import Parsed


def own():
    figure = Figure(figsize=(3, 2))
    axes = figure.add_subplot(title="of <my> own")
    axes.plot([1, 2], [3, 4], color="#0064b0")
    axes.imshow([[0.0, 1.0], [2.0, 3.0]])
    return figure


def written(folder: pathlib.Path, extra):
    run = complete(folder, seeds=2)
    with RunFolder(folder, locked(folder)) as taken:
        write_plots(run, extra, taken)
    return read_run(folder)


def test_main_pictures_are_png_and_those_of_the_recipe_svg_too(tmp_path):
    run = written(tmp_path / "run", [("my & picture", own())])
    names = {path.name for path in (tmp_path / "run" / "plots").iterdir()}
    assert {"evaluations-accuracy.png", "losses-first.png", "losses-second.png"} <= names
    assert {"weights-first-weights-good.png", "my-picture.png", "my-picture.svg"} <= names
    assert [name for name in names if name.endswith(".svg")] == ["my-picture.svg"]
    assert {path.name for path in run.plots} == {n for n in names if n.endswith(".png")}
    for path in run.plots:
        assert imread(path).std() > 0.01
        assert imread(path)[0, 0, :3].min() > 0.9  # on white


def test_title_and_legend_of_a_picture_lie_apart(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "_png", lambda figure: drawn.append(figure) or b"")
    written(tmp_path / "run", [])
    assert len(drawn) == 1 + 2 + 2 * 3
    for figure in drawn:
        FigureCanvasAgg(figure).draw()
        parts = [figure.axes[0]._left_title, *figure.legends]
        title, *others = [part.get_window_extent() for part in parts]
        assert title.width > 0
        assert not any(title.overlaps(other) for other in others)


def test_the_report_shows_the_pictures_of_the_recipe(tmp_path):
    run = written(tmp_path / "run", [("mine", own()), ("mine too", own())])
    write_report([run], tmp_path / "page.html")
    found = Parsed(tmp_path / "page.html")
    titles = [drawing.get("aria-label") for drawing in found.drawings]
    assert titles.count("mine") == titles.count("mine too") == 1
    mine = next(d for d in found.drawings if d.get("aria-label") == "mine")
    text = ET.tostring(mine, encoding="unicode")
    assert "of &lt;my&gt; own" in text
    assert "#0064b0" in text, "its own colours are kept"
    assert "data:image/png;base64," in text


def test_scripts_links_and_styles_in_a_picture_are_left_out(tmp_path):
    written(tmp_path / "run", [("mine", own())])
    (tmp_path / "run" / "plots" / "mine.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:x="http://www.w3.org/1999/xlink" '
        'viewBox="0 0 9 9" onload="alert(1)"><script>alert(2)</script><style>*{color:red}</style>'
        '<image x:href="https://example.org/a.png"/><a href="javascript:alert(3)"/>'
        '<defs><path id="p" d="M0 0"/></defs><use x:href="#p"/><g id="unused"/></svg>'
    )
    write_report([read_run(tmp_path / "run")], tmp_path / "page.html")
    found = Parsed(tmp_path / "page.html")
    for word in ("alert", "example.org", "color:red", "unused"):
        assert word not in found.source
    uses = [link for link in found.links if link.endswith("-p")]
    assert len(uses) == 1
    assert uses[0][1:] in found.ids


def test_a_damaged_picture_does_not_stop_the_report(tmp_path):
    written(tmp_path / "run", [("mine", own())])
    (tmp_path / "run" / "plots" / "mine.svg").write_text("<svg")
    write_report([read_run(tmp_path / "run")], tmp_path / "page.html")
    assert "The picture is damaged." in Parsed(tmp_path / "page.html").text
