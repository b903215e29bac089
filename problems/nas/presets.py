"""Settings that go together: short searches for a CPU, and the published protocols.

Search and evaluation on CIFAR and ImageNet are those of H. Liu et al., DARTS, ICLR 2019, and of
the code of the authors of Learning From Mistakes (importZL/LFM at dbda025), as far as they differ.
These differ from both: hypergradients are exact where those are differences, an epoch leaves its
last batch out if it is not full, the halves of the training set are drawn class by class by the
seed, images are cropped with a mirrored margin where theirs is black, and drop path grows with
every tick instead of every epoch. The encoder starts from random weights unless
`search.lfm.encoder_weights` names others, and the coefficients start at 1 without noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_IMAGES, _IMAGENET = 50_000, 1_281_167
"""Training images of CIFAR-10 and CIFAR-100, and of ImageNet."""


def _search(batch: int, training: Mapping[str, float], epochs: int = 50) -> dict[str, Any]:
    """Half of the images train weights, the others judge architectures."""
    epoch = _IMAGES // 2 // batch
    return {
        "ticks": epochs * epoch,
        "channels": 16,
        "layers": 8,
        "train_batch": batch,
        "valid_batch": batch,
        "training": {**training, "momentum": 0.9, "clip_norm": 5.0, "epoch": epoch},
    }


_DARTS = {
    **_search(64, {"learning_rate": 0.025, "floor": 1e-3, "weight_decay": 3e-4}),
    "architecture": {"rate": 3e-4, "schedule": "constant", "weight_decay": 1e-3},
}

_LFM = {
    **_search(32, {"learning_rate": 0.01, "floor": 2.5e-4, "weight_decay": 1e-4}),
    "lfm": {
        "encoder": {"name": "resnet18"},
        "temperature": 1.0,
        "normalize": False,
        "keyed_by": "slot",
        "rate": 1e-3,
        "encoder_rate": 1e-2,
        "coefficient_rate": 1e-2,
        "schedule": "cosine",
        "floor": 2.5e-4,
        "weight_decay": 1e-5,
        "validator_weight_decay": 1e-4,
        "clip_norm": 5.0,
    },
}

_CIFAR_NETWORK = {
    "ticks": 600 * (_IMAGES // 96),
    "channels": 36,
    "layers": 20,
    "batch": 96,
    "auxiliary": True,
    "auxiliary_weight": 0.4,
    "drop_path": 0.2,
    "cutout": 16,
    "training": {
        "learning_rate": 0.025,
        "momentum": 0.9,
        "weight_decay": 3e-4,
        "clip_norm": 5.0,
        "epoch": _IMAGES // 96,
    },
}

_IMAGENET_NETWORK = {
    "ticks": 250 * (_IMAGENET // 128),
    "channels": 48,
    "layers": 14,
    "batch": 128,
    "stem": "imagenet",
    "auxiliary": True,
    "auxiliary_weight": 0.4,
    "drop_path": 0.0,
    "label_smoothing": 0.1,
    "training": {
        "learning_rate": 0.1,
        "momentum": 0.9,
        "weight_decay": 3e-5,
        "clip_norm": 5.0,
        "schedule": "exponential",
        "factor": 0.97,
        "epoch": _IMAGENET // 128,
    },
}


def _published(dataset: str, program: str, search: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "space": "cell",
        "programs": [program],
        "lookahead": True,
        "seeds": 1,
        "evaluations": 50,
        "search": search,
        "evaluation": _CIFAR_NETWORK,
    }


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {
        "seeds": 1,
        "evaluations": 6,
        "search": {"ticks": 24, "layers": 3, "channels": 4},
        "evaluation": {"ticks": 60, "channels": 8},
    },
    "mnist1d": {"dataset": "mnist1d", "search": {"ticks": 400}, "evaluation": {"ticks": 1000}},
    "cells": {
        "space": "cell",
        "nodes": 2,
        "seeds": 1,
        "search": {"ticks": 120, "channels": 4, "layers": 3},
        "evaluation": {"ticks": 300, "channels": 8},
    },
    "cifar10-darts": _published("cifar10", "darts", _DARTS),
    "cifar10-lfm": _published("cifar10", "lfm", _LFM),
    "cifar100-darts": _published("cifar100", "darts", _DARTS),
    "cifar100-lfm": _published("cifar100", "lfm", _LFM),
    "imagenet": {
        "dataset": "imagenet",
        "space": "cell",
        "programs": ["given"],
        "genotype": "darts-v2",
        "seeds": 1,
        "evaluations": 50,
        "image_size": 224,
        "evaluation": _IMAGENET_NETWORK,
    },
    "cifar10-small": {
        "dataset": "cifar10",
        "space": "cell",
        "seeds": 1,
        "evaluations": 10,
        "search": {"ticks": 100, "channels": 4, "layers": 5, "train_batch": 32, "valid_batch": 32},
        "evaluation": {"ticks": 300, "channels": 8, "layers": 5, "cutout": 16},
    },
}
"""Name -> settings that go before the defaults."""
