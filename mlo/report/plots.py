"""Pictures in the folder of a run."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from mlo.files import write_bytes, write_text
from mlo.recorded import RecordedRun
from mlo.report.chart import Picture
from mlo.report.run_charts import evaluation_charts, loss_charts
from mlo.report.spread_charts import spread_charts
from mlo.report.style import styled
from mlo.report.svg import save
from mlo.report.weights import spreads
from mlo.run_folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 150


def write_plots(run: RecordedRun, extra: Iterable[tuple[str, Figure]], folder: RunFolder) -> None:
    """Draw the evaluations, losses and weights of a run, and what its recipe adds.

    Args:
        run: the run as it was recorded.
        extra: (name, figure) of `Recipe.plots`; they are written as SVG too, for the report. One
            that has the name of another picture takes its place.
        folder: where to write.

    Raises:
        DataError: matplotlib is not installed.
    """
    with styled():
        for name, picture in _main(run):
            figure = picture.draw()
            figure.axes[0].set_title(picture.title, loc="left")
            write_bytes(folder.plot(name), _png(figure))
    for name, figure in extra:
        with styled():  # so that text stays text; colours of a figure are settled when it is made
            write_text(folder.plot(name, "svg"), save(figure))
        write_bytes(folder.plot(name), _png(figure))


def _main(run: RecordedRun) -> Iterator[tuple[str, Picture]]:
    groups = {
        "evaluations": evaluation_charts(run),
        "losses": loss_charts(run),
        "weights": spread_charts(spreads(run)),
    }
    for group, pictures in groups.items():
        for picture in pictures:
            yield f"{group} {picture.title}", picture


def _png(figure: Figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=_DPI, facecolor="white")
    return data.getvalue()
