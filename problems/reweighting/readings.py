"""The numbers behind tables and pictures, read from what the stages of the recipe hand on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy
import torch
from numpy.typing import NDArray

Array = NDArray[numpy.float64]

Kept = Mapping[str, Any]
"""What one stage of one seed hands on.

    confusion   network -> int64 [K, K]: counts on the test set, right class in rows, predicted
                class in columns
    weights     float [N]: of all training examples; with `labels`, int64 [N], the given classes,
                and `corrupted`, bool [N]. The three are there only where a program weighs examples.
    data        {"source": str, "counts": training examples of each class}
"""

Runs = Mapping[str, Mapping[int, Kept]]
"""Stage -> seed -> what it handed on; parts may be missing."""

_ONLY = ("classifier", "members")
"""Networks that are the only one of their stage, which is named without them."""


def network_name(stage: str, network: str) -> str:
    """What tables and pictures call a network: "plain", "lfm learner"."""
    return stage if network in _ONLY else f"{stage} {network}"


def confusions(kept: Runs) -> dict[str, Array]:
    """Name of a network -> [seeds, K, K], the share of each right class that was predicted as each.

    The row of a class without a test example is NaN.
    """
    found: dict[str, list[Array]] = {}
    for stage, seeds in kept.items():
        for one in seeds.values():
            for network, counts in one.get("confusion", {}).items():
                shares = _row_shares(as_array(counts))
                found.setdefault(network_name(stage, network), []).append(shares)
    return {name: numpy.stack(shares) for name, shares in found.items()}


def class_accuracies(kept: Runs) -> dict[str, Array]:
    """Name of a network -> [seeds, K], the accuracy of each class; NaN without a test example."""
    return {
        name: numpy.diagonal(shares, axis1=1, axis2=2) for name, shares in confusions(kept).items()
    }


def class_counts(kept: Runs) -> Array | None:
    """Training examples of each class, [K], the mean over the seeds of the first stage that has it.

    None where no stage says it.
    """
    for seeds in kept.values():
        found = [as_array(one["data"]["counts"]) for one in seeds.values() if "data" in one]
        if found:
            return over_seeds(numpy.stack(found))
    return None


def imbalanced(counts: Array) -> bool:
    """Whether some class has one and a half times the examples of another, or more."""
    return bool(counts.max() >= 1.5 * counts.min())


def over_seeds(values: Array) -> Array:
    """Mean over the first axis of what is not NaN; NaN where nothing else is there."""
    there = ~numpy.isnan(values)
    count = there.sum(axis=0)
    total = numpy.where(there, values, 0).sum(axis=0)
    return numpy.asarray(numpy.where(count > 0, total / numpy.maximum(count, 1), numpy.nan))


def weighing(kept: Runs) -> Iterator[tuple[str, list[Kept]]]:
    """Stages that handed on weights, each with what its seeds handed on."""
    for stage, seeds in kept.items():
        found = [one for one in seeds.values() if "weights" in one]
        if found:
            yield stage, found


def pooled(seeds: Iterable[Kept], name: str) -> Array:
    """The numbers of one name, those of all seeds after each other."""
    return numpy.concatenate([as_array(one[name]) for one in seeds])


def right_and_wrong(kept: Runs) -> dict[str, dict[int, float]]:
    """Stage -> seed -> how well small weights tell wrong labels from right ones, `area_under_roc`.

    Left out where there are no weights, and where all labels are right or all are wrong.
    """
    found: dict[str, dict[int, float]] = {}
    for stage, seeds in kept.items():
        for seed, one in seeds.items():
            if "weights" in one and 0 < as_array(one["corrupted"]).mean() < 1:
                corrupted = as_array(one["corrupted"]) > 0
                area = area_under_roc(as_array(one["weights"]), corrupted)
                found.setdefault(stage, {})[seed] = area
    return found


def area_under_roc(weights: Array, corrupted: NDArray[numpy.bool_]) -> float:
    """Area under the ROC curve of "the weight is small" as a detector of wrong labels.

        A = P(w_right > w_wrong) + P(w_right = w_wrong) / 2
          = (R - n (n + 1) / 2) / (n m)

    R is the sum of the ranks of the n right examples among all n + m, where equal weights share
    the mean of their ranks (the statistic of Mann and Whitney). 1/2 is what chance gives.

    Args:
        weights: [N].
        corrupted: [N], some true and some false.

    Returns:
        The area; NaN if a weight is NaN.
    """
    if numpy.isnan(weights).any():
        return float("nan")
    _, which, sizes = numpy.unique(weights, return_inverse=True, return_counts=True)
    ranks = (numpy.cumsum(sizes) - (sizes - 1) / 2)[which]
    wrong = int(corrupted.sum())
    right = len(weights) - wrong
    return float((ranks[~corrupted].sum() - right * (right + 1) / 2) / (right * wrong))


def as_array(values: Any) -> Array:
    """A tensor, list or array as float64."""
    return numpy.asarray(torch.as_tensor(values).detach().cpu().numpy(), numpy.float64)


def _row_shares(counts: Array) -> Array:
    totals = counts.sum(axis=1, keepdims=True)
    return numpy.where(totals > 0, counts / numpy.maximum(totals, 1), numpy.nan)
