"""The published protocols as settings.

Backbones, batches, epochs and rates are those of the authors' code of Learning From Mistakes
(importZL/LFM at dbda025); rates fall at the start of the epochs that it names, counted from 0. The
data are prepared as for Meta-Weight-Net (J. Shu et al., NeurIPS 2019), uniform noise is its
setting. The README beside this file lists differences.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from problems.datasets.imbalance import long_tail_counts

_CIFAR = 50_000
"""Training images of CIFAR-10 and of CIFAR-100."""

_BATCH = 100

_COMPARED = [
    "plain",
    "focal",
    "class-balanced",
    "fine-tuning",
    "l2rw",
    "meta-weight-net",
    "lfm",
]

_LFM = {
    "encoder": {"name": "resnet18"},
    "temperature": 1.0,
    "normalize": False,
    "optimizer": "sgd",
    "encoder_rate": 1e-5,
    "coefficient_rate": 1e-5,
    "stage1_rate": 1e-2,
    "clip_norm": 5.0,
    "stage1_weights": True,
}
"""The validator as published: plain products of features, SGD for encoder and coefficients."""

_META_WEIGHT_NET = {
    "rate": 1e-3,
    "weight_decay": 1e-4,
    "betas": [0.9, 0.999],
    "schedule": "constant",
}


def _preset(
    dataset: str,
    network: str,
    *,
    examples: int,
    epochs: int,
    learning_rate: float,
    falls: list[int],
    factor: float = 0.1,
    nesterov: bool = False,
    initial_stage1_weight: float = 1.1,
    **settings: Any,
) -> dict[str, Any]:
    """A protocol whose length is given in epochs of whole batches."""
    return {
        "programs": _COMPARED,
        "dataset": dataset,
        "network": {"name": network},
        "ticks": epochs * (examples // _BATCH),
        "evaluations": epochs // 5,
        "train_batch": _BATCH,
        "valid_batch": _BATCH,
        "training": {
            "learning_rate": learning_rate,
            "nesterov": nesterov,
            "clip_norm": 5.0,
            "milestones": [epoch / epochs for epoch in falls],
            "factor": factor,
        },
        "meta_weight_net": _META_WEIGHT_NET,
        "lfm": {**_LFM, "initial_stage1_weight": initial_stage1_weight},
        **settings,
    }


def _imbalance(classes: int, ratio: int) -> dict[str, Any]:
    """Classes whose sizes fall to 1/ratio of the largest; ResNet-32, 120 epochs."""
    largest = (_CIFAR - 10 * classes) // classes
    return _preset(
        f"cifar{classes}",
        "resnet32",
        examples=sum(long_tail_counts(largest, classes, 1 / ratio)),
        epochs=120,
        learning_rate=0.1,
        falls=[79, 89],
        nesterov=True,
        initial_stage1_weight=1.0,
        noise="none",
        imbalance=1 / ratio,
        validation_per_class=10,
    )


def _noise(classes: int, kind: str, percent: int) -> dict[str, Any]:
    """Wrong labels, 1000 clean images; WRN-28-10, 100 epochs."""
    return _preset(
        f"cifar{classes}",
        "wrn-28-10",
        examples=_CIFAR - 1000,
        epochs=100,
        learning_rate=0.1,
        falls=[79, 99],
        noise=kind,
        rate=percent / 100,
        validation_per_class=1000 // classes,
    )


_SMALL = {"name": "small", "width": 8, "features": 32, "batch_norm": True}


def _shortened(preset: dict[str, Any], epochs: int) -> dict[str, Any]:
    """The same data, fewer epochs and small networks, for a CPU."""
    ticks = preset["ticks"] * epochs // 120
    return {
        **preset,
        "programs": ["plain", "meta-weight-net", "lfm"],
        "seeds": 1,
        "ticks": ticks,
        "evaluations": epochs,
        "network": _SMALL,
        "lfm": {**preset["lfm"], "encoder": _SMALL},
    }


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {"ticks": 120, "seeds": 1, "evaluations": 12},
    **{
        f"cifar{classes}-imbalance-{ratio}": _imbalance(classes, ratio)
        for classes in (10, 100)
        for ratio in (10, 20, 50, 100, 200)
    },
    **{
        f"cifar{classes}-{kind}-{percent}": _noise(classes, kind, percent)
        for classes in (10, 100)
        for kind, percents in {"flip2": (20, 40), "uniform": (40, 60)}.items()
        for percent in percents
    },
    "cifar10-imbalance-100-small": _shortened(_imbalance(10, 100), epochs=3),
    "animal10n": _preset(
        "animal10n",
        "vgg19-bn",
        examples=50_000 - 1000,
        epochs=120,
        learning_rate=0.01,
        falls=[39, 79, 99],
        factor=0.2,
        image_size=64,
        noise="none",
        validation_per_class=100,
    ),
}
"""Name -> settings; ratios are largest over rarest class, percentages the rate of noise."""
