"""What the study runs: settings, the grid of every method, and the ablations.

Every method is tuned with the same number of configurations on the same seeds, which are not
reported, by its accuracy on clean examples that are held out of training; the test sets are not
looked at. The ablations change LFM as it was tuned in one respect each.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

Settings = Mapping[str, Any]
"""Settings of the recipe, nested."""

_CONVOLUTIONS = {"width": 8, "features": 32}
_SEQUENCES = {"width": 16, "features": 32, "batch_norm": True}

BASE: Mapping[str, Settings] = {
    "digits": {
        "dataset": "digits",
        "ticks": 300,
        "network": _CONVOLUTIONS,
        "lfm": {"encoder": _CONVOLUTIONS},
    },
    "mnist1d": {
        "dataset": "mnist1d",
        "ticks": 400,
        "network": _SEQUENCES,
        "lfm": {"encoder": _SEQUENCES},
    },
}
"""Data set -> settings of all its runs."""

DAMAGE: Mapping[str, Settings] = {
    "flip 40 %": {"noise": "flip", "rate": 0.4},
    "imbalance 100": {"noise": "none", "imbalance": 0.01},
}

CASES = tuple(itertools.product(BASE, DAMAGE))
"""Data set and damage of the parts of the study."""

COMMON: Settings = {"seeds": 1, "evaluations": 1}


def _products(**axes: Sequence[Any]) -> tuple[dict[str, Any], ...]:
    """All combinations of dotted settings (`__` for the dot), as nested settings."""
    return tuple(
        _nested(dict(zip(axes, values, strict=True)))
        for values in itertools.product(*axes.values())
    )


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, value in flat.items():
        *sections, name = path.split("__")
        section = found
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = value
    return found


_FINE = [0.01, 0.03, 0.1, 0.3]
_COARSE = [0.05, 0.2]

GRID: Mapping[str, tuple[Settings, ...]] = {
    "plain": _products(training__learning_rate=_FINE, training__weight_decay=[5e-4, 5e-3]),
    "plain+valid": _products(training__learning_rate=_FINE, training__weight_decay=[5e-4, 5e-3]),
    "focal": _products(training__learning_rate=_COARSE, focal__gamma=[0.5, 1.0, 2.0, 4.0]),
    "class-balanced": _products(
        training__learning_rate=_COARSE, class_balanced__beta=[0.9, 0.99, 0.999, 0.9999]
    ),
    "fine-tuning": _products(
        training__learning_rate=_COARSE, fine_tuning__learning_rate=[0.003, 0.01, 0.03, 0.1]
    ),
    "l2rw": _products(
        training__learning_rate=[0.003, 0.01, 0.03, 0.1], training__weight_decay=[5e-4, 5e-3]
    ),
    "meta-weight-net": _products(
        training__learning_rate=_COARSE,
        meta_weight_net__unit_mean=[False, True],
        meta_weight_net__rate=[1e-3, 1e-2],
    ),
    "learned-weights": _products(
        training__learning_rate=_COARSE, learned_weights__rate=[0.03, 0.1, 0.3, 1.0]
    ),
    "lfm": _products(
        training__learning_rate=_COARSE,
        lfm__coefficient_rate=[0.2, 1.0],
        lfm__encoder_rate=[1e-4, 1e-3],
    ),
    "lfm, published form": _products(
        training__learning_rate=_COARSE,
        lfm__stage1_weights=[True],
        lfm__normalize=[False],
        lfm__temperature=[1.0],
        lfm__coefficient_rate=[0.2, 1.0],
        lfm__stage1_rate=[0.01, 0.1],
    ),
    "lfm, offset": _products(
        training__learning_rate=_COARSE,
        lfm__unit_mean=[True],
        lfm__offset=[-3.0, -1.0],
        lfm__coefficient_rate=[0.2, 1.0],
    ),
}
"""Method -> the configurations that are tried."""

ABLATIONS: Mapping[str, Settings] = {
    "weights constant at 1/2": {
        "lfm": {"initial_coefficient": 0.0, "coefficient_rate": 0.0, "encoder_rate": 0.0}
    },
    "encoder and coefficients as they start": {
        "lfm": {"coefficient_rate": 0.0, "encoder_rate": 0.0}
    },
    "random frozen encoder": {"lfm": {"frozen_encoder": True}},
    "coefficients of slots": {"lfm": {"keyed_by": "slot"}},
    "temperature 0.3": {"lfm": {"temperature": 0.3}},
    "temperature 1": {"lfm": {"temperature": 1.0}},
    "plain products of features": {"lfm": {"normalize": False, "temperature": 1.0}},
    "stage-1 weights learned": {"lfm": {"stage1_weights": True}},
}
"""What is changed in LFM as it was tuned."""


def program(method: str) -> str:
    """The program of the recipe that a method runs."""
    return method.partition(",")[0]


def network(method: str) -> str:
    """The classifier that a method is judged by."""
    return {"lfm": "relearner", "ensemble": "members"}.get(program(method), "classifier")
