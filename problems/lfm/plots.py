"""Pictures of the reweighting experiment; matplotlib is an extra and may be missing."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from mlo.errors import DataError
from problems.lfm.experiment import NETWORKS, Repetition

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_accuracy(repetitions: Sequence[Repetition], path: pathlib.Path, *, title: str) -> None:
    """Draw the test accuracy over the ticks: a thick line for the mean, thin ones for the seeds.

    Raises:
        DataError: matplotlib is not installed.
    """
    figure = _figure()
    axes = figure.subplots()
    for color, name in enumerate(NETWORKS):
        ticks = [tick for tick, _ in repetitions[0].curves[name]]
        curves = torch.tensor([[y for _, y in r.curves[name]] for r in repetitions]) * 100
        # Without stage-1 weights the learner is plain training again; dashes let both be seen.
        line = "--" if name == "learner" else "-"
        for curve in curves:
            axes.plot(ticks, curve.tolist(), line, color=f"C{color}", linewidth=0.5, alpha=0.6)
        axes.plot(ticks, curves.mean(0).tolist(), line, color=f"C{color}", linewidth=2, label=name)
    axes.set(title=title, xlabel="ticks", ylabel="test accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)


def plot_weights(repetitions: Sequence[Repetition], path: pathlib.Path, *, title: str) -> None:
    """Draw the learned weights of all seeds: how many examples, right and wrong, got which.

    Raises:
        DataError: matplotlib is not installed.
    """
    weights = torch.cat([r.weights for r in repetitions])
    corrupted = torch.cat([r.corrupted for r in repetitions])
    figure = _figure()
    axes = figure.subplots()
    low, high = min(0.5, float(weights.min())), 1.0
    bins = torch.linspace(low, high, 41).tolist()
    for label, mask in (("right label", ~corrupted), ("wrong label", corrupted)):
        if mask.any():
            axes.hist(weights[mask].tolist(), bins=bins, alpha=0.6, label=label)
    axes.set(title=title, xlabel="weight a of a training example", ylabel="examples")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)


def _figure() -> Figure:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DataError(
            "plots: expected the package matplotlib, found none. "
            "Install the extra that brings it: pip install 'mlo-engine[plots]'."
        ) from error
    figure = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
