"""This library, asked like the others; run by the project's own interpreter."""

from __future__ import annotations

import torch
from losses import Quadratic
from serving import serve

import mlo

COUNTED = mlo.Guards(on_nonfinite="ignore", probe=False)
"""Every evaluation counts, and what is not finite is an answer."""


def run(problem, method, settings):
    """`method` names a class of mlo with `settings`; for three levels it is the `nested` mode."""
    if problem["kind"] == "curved":
        return curved(problem, method, settings)
    if problem["kind"] == "three levels":
        return three_levels(problem, method)
    if problem["kind"] == "trained":
        return trained(problem, method, settings)
    return quadratic(problem, method, dict(settings))


def quadratic(problem, method, settings):
    """The hypergradient where the lower problem stands at its solution, or at `start`.

    With `updates` the lower problem makes so many moves from there first.
    """
    quad = Quadratic(problem)
    torch.manual_seed(0)
    rate, place = settings.pop("rate", 0.1), settings.pop("from", "w")
    updates = settings.pop("updates", 0)
    optimizer = getattr(torch.optim, settings.pop("optimizer", "SGD"))
    module = torch.nn.ParameterDict({"w": getattr(quad, place).clone()})
    if problem["frozen"]:
        module["spare"] = torch.nn.Parameter(torch.zeros(2), requires_grad=False)
    lower = mlo.Problem(
        "lower",
        module=module,
        loss=lambda lower, upper: quad.lower(lower["w"], _sum(upper)),
        optimizer=optimizer([module["w"]], rate),
        hypergradient=getattr(mlo, method)(**settings),
        reads=("lower", "upper"),
    )
    upper = mlo.Problem(
        "upper",
        params={f"x{i}": part for i, part in enumerate(quad.parts())},
        loss=lambda upper, lower: quad.upper(lower["w"], _sum(upper)),
        optimizer=lambda params: torch.optim.SGD(params, 0.1),
        reads=("upper", "lower"),
        warmup=updates + 1,
    )
    engine = mlo.Engine([lower, upper], dry_run=False, guards=COUNTED)
    quad.calls = 0
    with quad.counting() as counting:
        for _ in range(updates):
            engine.step()
        found, records = engine.total_gradient("upper")
    report = quad.report(counting, module["w"])
    if place != "w":
        report.pop("moved")
    outcomes = [r.info.outcome.name for r in records]
    return torch.cat(list(found.values())).tolist(), {**report, "outcomes": outcomes}


def _sum(parts):
    return sum(list(parts.values())[1:], parts["x0"])


def curved(problem, method, settings):
    """First and second derivative of w(x)^2, by the response alone."""
    x = torch.tensor(problem["x"], requires_grad=True)
    w = mlo.solution(
        torch.tensor(problem["w"]),
        lambda w, x: w**4 / 4 - x**2 * w,
        x,
        getattr(mlo, method)(**settings),
    )
    (first,) = torch.autograd.grad(w**2, x, create_graph=True)
    (second,) = torch.autograd.grad(first, x)
    return [first.item(), second.item()], {}


def three_levels(problem, nested):
    """An engine at the nested solution."""
    once = {"z": 1, "y": 1, "x": 1}
    engine = levels(problem, nested, {"z": 0.1, "y": 0.1, "x": 0.1}, once)
    found, records = engine.total_gradient("x")
    return [float(found["v"])], {"outcomes": [r.info.outcome.name for r in records]}


def trained(problem, nested, settings):
    """Where x ends after many moves; each level makes several moves for one of the next."""
    steps = settings["steps"]
    rates = {"z": 1.0, "y": 0.2, "x": 2.5}  # a step of these rates is one of Newton's
    every = {"z": 1, "y": steps, "x": steps**2}
    engine = levels({**problem, "y": 0.0, "z": 0.0}, nested, rates, every)
    engine.run(ticks=settings["ticks"] * every["x"])
    return [engine.problems["x"].module["v"].item()], {}


def levels(problem, nested, rates, every):
    """The three levels in an engine."""
    kappa = problem["kappa"]
    losses = {
        "z": (lambda z, y, x: z**2 / 2 + kappa / 4 * z**4 - z * (2 * y + x), ("z", "y", "x")),
        "y": (lambda y, z, x: (y - x) ** 2 / 2 + z**2 / 2, ("y", "z", "x")),
        "x": (lambda y, z: (y - 1) ** 2 / 2 + (z - 1) ** 2 / 2, ("y", "z")),
    }
    problems = [
        mlo.Problem(
            name,
            params={"v": torch.tensor(problem[name])},
            loss=lambda *read, loss=loss: loss(*(r["v"] for r in read)),
            reads=reads,
            every=every[name],
            optimizer=lambda params, rate=rates[name]: torch.optim.SGD(params, rate),
            hypergradient=mlo.ConjugateGradient(tolerance=1e-12),
        )
        for name, (loss, reads) in losses.items()
    ]
    return mlo.Engine(problems, nested=nested, guards=COUNTED)


if __name__ == "__main__":
    serve(run, ["mlo-engine", "torch", "numpy"])
