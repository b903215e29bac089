"""higher: steps of optimizers differentiated by its patched modules."""

from __future__ import annotations

import higher
import torch
from losses import Quadratic
from serving import serve


class Holder(torch.nn.Module):
    """One vector."""

    def __init__(self, value):
        super().__init__()
        self.w = torch.nn.Parameter(value.clone())

    def forward(self):
        """The vector."""
        return self.w


def run(problem, method, settings):
    """Differentiate through `steps` steps of the optimizer named by `method`, from the start."""
    quad = Quadratic(problem)
    x = quad.x.clone().requires_grad_()
    lower = Holder(quad.start)
    optimizer = getattr(torch.optim, method)(lower.parameters(), lr=settings["rate"])
    inside = higher.innerloop_ctx(lower, optimizer)
    with quad.counting() as counting, inside as (patched, steps):
        for _ in range(settings["steps"]):
            steps.step(quad.lower(patched(), x))
        (gradient,) = torch.autograd.grad(quad.upper(patched(), x), x)
    return gradient.tolist(), {"costs": quad.report(counting, quad.w)["costs"]}


if __name__ == "__main__":
    serve(run, ["higher", "torch"])
