"""The recipe with every hypergradient method that can be named."""

from __future__ import annotations

import pytest
import torch

import mlo
from mlo.errors import DeclarationError
from mlo.recipe_run import Job, run_recipe
from problems.lfm.programs import lfm_engine
from problems.lfm.recipe import recipe
from problems.lfm.task import make_task

from . import small_lfm
from .small_lfm import config, metrics, states

engines, float32 = small_lfm.engines, small_lfm.float32


@pytest.mark.parametrize("lookahead", [True, False])
@pytest.mark.parametrize("name", sorted(set(mlo.methods()) - {"direct", "forward-mode"}))
def test_every_method_that_can_be_named_moves_all_problems(engines, name, lookahead):
    small = {"width": 2, "features": 4, "ticks": 2, "seeds": 1}
    # Hessians of these nets are singular, which `Dense` answers by NaN.
    way = "ignore" if name == "dense" else "raise"
    chosen = config(hypergradient=name, lookahead=lookahead, on_nonfinite=way, **small)
    found = run_recipe(recipe, chosen, Job(quiet=True))
    assert all(0 <= m.value <= 1 for m in found if m.name == "accuracy")
    before = states([lfm_engine(chosen, 0, make_task(chosen, 0))])
    after = states(engines[2:])
    moved = {key[1] for key, value in before.items() if not torch.equal(value, after[key])}
    assert moved == {"learner", "relearner", "validator"}


def test_tangents_of_all_weights_are_refused_with_the_reason():
    with pytest.raises(DeclarationError, match=r"'relearner'.*ForwardMode.*tangents.*Unrolled"):
        metrics(hypergradient="forward-mode")


def test_the_method_that_answers_nothing_is_refused_with_the_reason():
    with pytest.raises(DeclarationError, match=r"'validator'.*Direct"):
        metrics(hypergradient="direct")
