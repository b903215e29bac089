"""What the stages of the recipe `reweighting` hand on, made up in many shapes."""

from __future__ import annotations

import numpy
import torch

STAGES = (
    "plain",
    "plain+valid",
    "focal",
    "class-balanced",
    "fine-tuning",
    "ensemble",
    "l2rw",
    "meta-weight-net",
    "learned-weights",
    "lfm",
)
WEIGHING = ("meta-weight-net", "learned-weights", "lfm")
NETWORKS = {"lfm": ("learner", "relearner"), "ensemble": ("members",)}


def counts_of(classes: int, largest: int, factor: float) -> list[int]:
    return [max(1, int(largest * factor ** (k / (classes - 1)))) for k in range(classes)]


def confusion(classes: int, each: int, quality, rng) -> torch.Tensor:
    """Counts of a network that is right with probabilities `quality`, [K]."""
    rows = []
    for right in range(classes):
        chances = rng.dirichlet(numpy.full(classes, 0.3)) * (1 - quality[right])
        chances[right] += quality[right]
        rows.append(rng.multinomial(each, chances / chances.sum()))
    return torch.tensor(numpy.array(rows))


def handed_on(stages=STAGES, *, classes=10, seeds=1, largest=500, factor=1.0, noise=0.4, each=100):
    """Stage -> seed -> what it hands on, in the recipe's form."""
    rng = numpy.random.default_rng(7)
    counts = counts_of(classes, largest, factor)
    kept = {}
    for number, stage in enumerate(stages):
        for seed in range(seeds):
            rank = numpy.linspace(0, 1, classes) * (factor < 1)
            quality = numpy.clip(0.55 + 0.03 * number - 0.4 * rank, 0.02, 0.98)
            quality = numpy.clip(quality + rng.normal(0, 0.06, classes), 0, 1)
            one = {
                "confusion": {
                    network: confusion(classes, each, quality, rng)
                    for network in NETWORKS.get(stage, ("classifier",))
                },
                "data": {"source": "digits", "counts": counts},
            }
            if stage in WEIGHING:
                one |= weights(counts, noise, rng)
            kept.setdefault(stage, {})[seed] = one
    return kept


def weights(counts, noise, rng):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    corrupted = torch.tensor(rng.random(len(labels)) < noise)
    clean = torch.tensor(rng.beta(5, 2, len(labels)))
    wrong = torch.tensor(rng.beta(2, 4, len(labels)))
    share = 0.3 + 0.7 * labels / max(1, len(counts) - 1)
    return {
        "weights": torch.where(corrupted, wrong, clean) * share,
        "labels": labels,
        "corrupted": corrupted,
    }
