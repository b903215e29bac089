"""Reports for people: a page about a run or several, pictures, and the graph of a program."""

from __future__ import annotations

from mlo.report.graph_drawing import graph_svg
from mlo.report.page import write_report
from mlo.report.plots import write_plots

__all__ = ["graph_svg", "write_plots", "write_report"]
