"""hypergrad: its three approximations of the inverse Hessian, called as functions."""

from __future__ import annotations

import torch
from hypergrad import approx_hypergrad
from losses import Quadratic
from serving import serve


def run(problem, method, settings):
    """Call the function of that name at the solution."""
    quad = Quadratic(problem)
    torch.manual_seed(0)
    with quad.counting() as counting:
        found = getattr(approx_hypergrad, method)(
            lambda inner, outer: quad.lower(inner[0], outer[0]),
            lambda inner, outer: quad.upper(inner[0], outer[0]),
            (quad.w.clone(),),
            (quad.x.clone(),),
            **settings,
        )
    return found[0].tolist(), quad.report(counting, quad.w)


if __name__ == "__main__":
    serve(run, ["hypergrad", "torch"])
