"""How much more than plain training a program computes, by counting floating-point operations."""

from __future__ import annotations

from torch.utils.flop_counter import FlopCounterMode

from mlo.configuration import configure
from mlo.recipe import Carry
from problems.reweighting.recipe import recipe
from problems.reweighting.study.plan import DAMAGE
from problems.reweighting.study.trial import trial_settings


def operations(data: str, method: str) -> int:
    """Floating-point operations of matrix products and convolutions in one tick.

    Args:
        data: name in `plan.BASE`.
        method: a program of one stage.
    """
    settings = trial_settings(data, next(iter(DAMAGE)), method, {"ticks": 2})
    config = configure(recipe.config, settings, title=recipe.name)
    (stage,) = recipe.stages(config)
    engine = stage.setup(config, 0, Carry()).engine
    engine.step()  # the first tick makes what later ones only use
    with FlopCounterMode(display=False) as counter:
        engine.step()
    return counter.get_total_flops()


def relative_cost(data: str, method: str = "lfm") -> float:
    """Operations of a tick of `method` over those of a tick of plain training."""
    return operations(data, method) / operations(data, "plain")
