"""betty-ml: hypergradients as its engine hands them to the upper problem's optimizer."""

from __future__ import annotations

import torch
from betty.configs import Config, EngineConfig
from betty.engine import Engine
from betty.problems import ImplicitProblem
from losses import Quadratic
from serving import serve


def run(problem, method, settings):
    """Build an engine whose lower levels stand still, and look at the upper gradient."""
    if problem["kind"] == "three levels":
        return three_levels(problem, method)
    if problem["kind"] == "trained":
        return trained(problem, method, settings)
    return quadratic(problem, method, dict(settings))


class Holder(torch.nn.Module):
    """Parameters that a call returns added up."""

    def __init__(self, values, frozen=False):
        super().__init__()
        self.parts = torch.nn.ParameterList([torch.nn.Parameter(v.clone()) for v in values])
        if frozen:
            self.register_parameter("spare", torch.nn.Parameter(torch.zeros(2), False))

    def forward(self):
        """The sum."""
        return sum(self.parts[1:], self.parts[0])


def quadratic(problem, method, settings):
    """One step of the engine with the lower problem at its solution, where it stays."""
    quad = Quadratic(problem)
    torch.manual_seed(0)
    optimizer = getattr(torch.optim, settings.pop("optimizer", "SGD"))
    upper = Holder(quad.parts())
    lower = Holder([quad.w], problem["frozen"])
    seen = {}

    class Lower(ImplicitProblem):
        def training_step(self, batch):
            return quad.lower(self.module(), self.upper())

    class Upper(ImplicitProblem):
        def training_step(self, batch):
            return quad.upper(self.lower(), self.module())

        def grad_callback(self):
            seen["gradient"] = [p.grad.clone() for p in self.trainable_parameters()]

    rate = settings.pop("rate", 0.0)
    config = Config(type=method, **settings)
    below = Lower("lower", config, lower, optimizer(lower.parameters(), lr=rate), None, [(0,)])
    above = Upper("upper", Config(), upper, torch.optim.SGD(upper.parameters(), 0.0), None, [(0,)])
    with quad.counting() as counting:
        launch([above, below], {"u2l": {above: [below]}, "l2u": {below: [above]}})
    return torch.cat(seen["gradient"]).tolist(), quad.report(counting, lower.parts[0])


def three_levels(problem, methods):
    """One step of three levels that stand at the nested solution."""
    _, seen = levels(problem, methods, {}, {"z": 0.0, "y": 0.0, "x": 0.0}, ticks=1)
    return [float(seen[-1])], {}


def trained(problem, methods, settings):
    """Where x ends after many steps; each level makes several steps for one of the next."""
    rates = {"z": 1.0, "y": 0.2, "x": 2.5}  # a step of these rates is one of Newton's
    unroll, ticks = {"unroll_steps": settings["steps"]}, settings["ticks"]
    start = {**problem, "y": 0.0, "z": 0.0}
    modules, _ = levels(start, methods, unroll, rates, ticks * settings["steps"] ** 2)
    return [modules["x"]().item()], {}


def levels(problem, methods, unroll, rates, ticks):
    """The three levels in an engine; returns their modules and the gradients of x."""
    kappa, seen = problem["kappa"], []

    class Lowest(ImplicitProblem):
        def training_step(self, batch):
            z = self.module()
            return z**2 / 2 + kappa / 4 * z**4 - z * (2 * self.y() + self.x())

    class Middle(ImplicitProblem):
        def training_step(self, batch):
            return (self.module() - self.x()) ** 2 / 2 + self.z() ** 2 / 2

    class Top(ImplicitProblem):
        def training_step(self, batch):
            return (self.y() - 1) ** 2 / 2 + (self.z() - 1) ** 2 / 2 + 0 * self.module()

        def grad_callback(self):
            seen.append(self.module.parts[0].grad.clone())

    modules = {name: Holder([torch.tensor(problem[name])]) for name in ("z", "y", "x")}

    def made(kind, name, config):
        optimizer = torch.optim.SGD(modules[name].parameters(), rates[name])
        return kind(name, config, modules[name], optimizer, None, [(0,)])

    lowest, middle = methods.split(", ")
    many = {"neumann_iterations": 200, "neumann_alpha": 0.1, "retain_graph": True, **unroll}
    z = made(Lowest, "z", Config(type=lowest, **many))
    y = made(Middle, "y", Config(type=middle, **many))
    x = made(Top, "x", Config(retain_graph=True))
    launch([x, y, z], {"u2l": {x: [y, z], y: [z]}, "l2u": {z: [y, x], y: [x]}}, ticks)
    return modules, seen


def launch(problems, dependencies, ticks=1):
    """Steps of the whole engine on the CPU."""
    config = EngineConfig(train_iters=ticks, valid_step=ticks + 1, strategy="cpu")
    Engine(problems=problems, config=config, dependencies=dependencies).run()


if __name__ == "__main__":
    serve(run, ["betty-ml", "torch", "numpy"])
