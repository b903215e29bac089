"""What a tick or a hypergradient no longer needs goes at once, not with the cycle collector."""

from __future__ import annotations

import gc

import pytest
import torch

import mlo

from .nested.test_vector_programs import solved
from .oracles import engine_of
from .programs import program

NESTED = mlo.ConjugateGradient(iterations=3, tolerance=0.0)
STAGED = {"top": ("a", "b"), "b": ("top", "a"), "a": ("top",)}


def tensors() -> int:
    # By type: some lazy modules warn when they are asked for their class.
    return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())


def staged(method, **settings):
    levels = program(dict(reversed(STAGED.items())), ("quartic",), judges=("top",))
    return engine_of(levels, {level.name: level.start for level in levels}, method, **settings)


ENGINES = {
    "one step": lambda: (staged(mlo.OneStep()), "top"),
    "one step, lookahead": lambda: (staged(mlo.OneStep(), lookahead=True), "top"),
    "recorded updates": lambda: (staged(mlo.Unrolled(steps=3)), "top"),
    "recorded updates, lookahead": lambda: (staged(mlo.Unrolled(steps=3), lookahead=True), "top"),
    "tangents": lambda: (staged(mlo.ForwardMode()), "top"),
    "differences": lambda: (staged(mlo.FiniteDifference()), "top"),
    "conjugate gradients": lambda: (staged(mlo.ConjugateGradient()), "top"),
    **{
        f"four levels, {nested}": lambda nested=nested: (
            engine_of(*solved("four levels"), NESTED, nested=nested),
            "x",
        )
        for nested in ("exact", "projected", "partial")
    },
}


@pytest.mark.parametrize("case", ENGINES)
@pytest.mark.filterwarnings("ignore::mlo.errors.HypergradientWarning")
def test_no_tensor_waits_for_the_cycle_collector(case):
    engine, top = ENGINES[case]()
    for _ in range(3):  # as many updates as are recorded
        engine.step()
    engine.hypergradient(top)
    gc.collect()
    gc.disable()
    try:
        before = tensors()
        for _ in range(3):
            engine.hypergradient(top)
        assert tensors() <= before
        engine.step()
        before = tensors()
        for _ in range(3):
            engine.step()
        assert tensors() <= before
    finally:
        gc.enable()
