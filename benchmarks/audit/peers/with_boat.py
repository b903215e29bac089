"""boat-torch: its `Problem`, configured as its examples are, with losses found by their names."""

from __future__ import annotations

import os
import tempfile

import boat_torch
import torch
from boat_torch.utils import ResultStore
from losses import Quadratic
from serving import serve

NOW = {}
"""The quadratic that the two losses below belong to."""


class Holder(torch.nn.Module):
    """One vector."""

    def __init__(self, value):
        super().__init__()
        self.w = torch.nn.Parameter(value.clone())

    def forward(self):
        """The vector."""
        return self.w


def lower_loss(data, upper, lower, params=None):
    """The lower loss, in the signature that the library asks for."""
    return NOW["quad"].lower(lower() if params is None else params[0], upper())


def upper_loss(data, upper, lower, params=None):
    """The upper loss."""
    return NOW["quad"].upper(lower() if params is None else params[0], upper())


def run(problem, method, settings):
    """One iteration with `return_grad`, from the solution or from the start."""
    if problem["kind"] == "bookkeeping":
        return bookkeeping(problem, method, settings)
    quad = NOW["quad"] = Quadratic(problem)
    start = quad.start if settings.get("from") == "start" else quad.w
    lower, upper = Holder(start), Holder(quad.x)
    with quad.counting() as counting:
        gradients, _ = engine(lower, upper, method, settings).run_iter({}, {}, current_iter=0)
    report = quad.report(counting, lower.w)
    if settings.get("from") == "start":
        report.pop("moved")
    return gradients[0].tolist(), report


def bookkeeping(problem, method, settings):
    """What is left in a cleared store, and bytes written in so many iterations over those kept."""
    quad = NOW["quad"] = Quadratic(problem)
    store = ResultStore()
    store.add("result", {})
    store.clear()
    with tempfile.NamedTemporaryFile() as log:
        machine = engine(Holder(quad.w), Holder(quad.x), method, settings, log.name)
        sizes = []
        for current in range(settings["iterations"]):
            machine.run_iter({}, {}, current_iter=current)
            sizes.append(os.path.getsize(log.name))
    return [len(store.get_results()), sum(sizes) / sizes[-1]], {}


def engine(lower, upper, method, settings, log=os.devnull):
    """Its `Problem` with solvers."""
    config = {
        "fo_op": None,
        "gm_op": ["NGD"],
        "na_op": method.split("+"),
        "lower_level_model": lower,
        "upper_level_model": upper,
        "lower_level_var": list(lower.parameters()),
        "upper_level_var": list(upper.parameters()),
        "lower_level_opt": torch.optim.SGD(lower.parameters(), lr=settings["rate"]),
        "upper_level_opt": torch.optim.SGD(upper.parameters(), lr=0.1),
        "lower_iters": settings.get("steps", 1),
        "GDA": {"alpha_init": 0.0, "alpha_decay": 0.5},
        "RGT": {"truncate_iter": settings.get("truncate", 0)},
        "CG": {"k": settings.get("k", 1), "tolerance": 1e-10},
        "FD": {"r": 0.01},
        "accumulate_grad": False,
        "return_grad": True,
        "copy_last_param": False,
        "device": "cpu",
        "loss_log_path": log,
    }
    losses = {
        "lower_level_loss": {"function": f"{__name__}.lower_loss"},
        "upper_level_loss": {"function": f"{__name__}.upper_loss"},
    }
    made = boat_torch.Problem(config, losses)
    made.build_ll_solver()
    made.build_ul_solver()
    return made


if __name__ == "__main__":
    serve(run, ["boat-torch", "higher", "torch", "numpy"])
