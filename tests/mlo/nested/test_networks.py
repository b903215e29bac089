"""A nested program of small networks with batch normalization, against full differentiation.

A learner fits examples that a weigher weighs; the weigher is judged by how the learner does on
other examples; a regularizer of both is judged by how both do on a third set. The weigher both
conditions the learner and uses its answer.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import mlo

from ..oracles import Level, Params, Values, flat, gradient, jacobian, relative, starts, unflat
from .oracles import Stacked, balanced, settled, total_gradient
from .shortened import shortened_gradient

METHODS = {
    "dense": mlo.Dense(),
    # More iterations than there are parameters, for rounding bends the directions.
    "conjugate gradients": mlo.ConjugateGradient(iterations=60, tolerance=1e-12),
}


def learner_loss(learner, weigher, regularizer, train):
    x, y = train
    weight = torch.sigmoid(weigher(torch.cat([x, y], dim=1)))
    fit = (weight * (learner(x) - y).square()).mean()
    return fit + pull(regularizer, "learner", learner)


def weigher_loss(weigher, learner, regularizer, valid):
    x, y = valid
    fit = (learner(x) - y).square().mean()
    return fit + pull(regularizer, "weigher", weigher)


def regularizer_loss(learner, weigher, regularizer, test):
    x, y = test
    fit = (learner(x) - y).square().mean()
    spread = weigher(torch.cat([x, y], dim=1)).square().mean()
    return fit + 0.1 * spread + 0.01 * regularizer["learner"].square().sum()


def pull(regularizer, name: str, network) -> Tensor:
    """Weight decay towards the start: towards zero, weights before a normalization never settle."""
    start = modules()[name].parameters()
    pairs = zip(network.parameters(), start, strict=True)
    return regularizer[name].exp() * sum((p - s.detach()).square().sum() for p, s in pairs)


LOSSES = {"learner": learner_loss, "weigher": weigher_loss, "regularizer": regularizer_loss}


def network(inputs: int, hidden: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.Tanh(), nn.Linear(hidden, 1)
    )


def batches() -> dict[str, tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    found = {}
    for name, flipped in (("train", 0.5), ("valid", 0.0), ("test", 0.0)):
        x = torch.randn(24, 2, generator=draw)
        y = torch.tanh(x[:, :1] - 2 * x[:, 1:]) + 0.1 * torch.randn(24, 1, generator=draw)
        wrong = torch.rand(24, 1, generator=draw) < flipped
        found[name] = (x, torch.where(wrong, -y, y))
    return found


class Placed:
    """A module at given parameters, in training mode, its statistics left alone."""

    def __init__(self, module: nn.Module, params: Mapping[str, Tensor]) -> None:
        self.module, self.params = module, params

    def __call__(self, x: Tensor) -> Tensor:
        buffers = {k: b.clone() for k, b in self.module.named_buffers()}
        return functional_call(self.module, {**self.params, **buffers}, (x,))

    def __getitem__(self, key: str) -> Tensor:
        return self.params[key]

    def parameters(self) -> Iterator[Tensor]:
        return iter(self.params.values())


@functools.cache
def modules() -> dict[str, nn.Module]:
    torch.manual_seed(2)
    logs = {"learner": torch.tensor(-2.0), "weigher": torch.tensor(-2.0)}
    return {
        "learner": network(2, 3),
        "weigher": network(3, 2),
        "regularizer": nn.ParameterDict({k: nn.Parameter(log) for k, log in logs.items()}),
    }


def level(name: str, loss: Callable[..., Tensor], stream: str) -> Level:
    *reads, _ = inspect.signature(loss).parameters
    batch = batches()[stream]

    def at(*params: Params) -> Tensor:
        placed = (Placed(modules()[r], p) for r, p in zip(reads, params, strict=True))
        return loss(*placed, batch)

    start = {k: p.detach() for k, p in modules()[name].named_parameters()}
    return Level(name, at, start, explicit=tuple(reads))


@functools.cache
def solved() -> tuple[list[Level], Values]:
    """The program with the learner and the weigher at their solutions."""
    names = zip(LOSSES.items(), ("train", "valid", "test"), strict=True)
    levels = [level(name, loss, stream) for (name, loss), stream in names]
    values = starts(levels)
    # Down to a valley first: Newton's method would also go to a saddle.
    w = flat(values["learner"]).clone().requires_grad_()
    descent = torch.optim.LBFGS([w], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        descent.zero_grad()
        loss = levels[0].at({**values, "learner": unflat(w, values["learner"])})
        loss.backward()
        return loss

    descent.step(closure)
    values["learner"] = unflat(w.detach(), values["learner"])
    return levels, balanced(levels, values, "regularizer")


def differentiated_in_full() -> Params:
    """Plain autograd through a Newton step of the weigher and Newton steps of the learner in it."""
    levels, values = solved()
    weigher = levels[1]
    x = flat(values["regularizer"]).requires_grad_()
    given = {**values, "regularizer": unflat(x, values["regularizer"])}

    def at(w: Tensor) -> Values:
        return settled(levels, {**given, "weigher": unflat(w, values["weigher"])}, 1)

    w = flat(values["weigher"]).requires_grad_()
    slope = gradient(weigher.at(at(w)), w)
    assert slope.abs().max() < 1e-11
    # From the solution one step has the right first derivative; its Hessian may be a constant.
    w = w - torch.linalg.solve(jacobian(slope, w), slope)
    found = gradient(levels[-1].at(at(w)), x, graph=False)
    return unflat(found, values["regularizer"])


def engine_at(values: Values, method: mlo.Hypergradient, **settings: object) -> mlo.Engine:
    problems = []
    for name, module in modules().items():
        own = copy.deepcopy(module)
        with torch.no_grad():
            for key, p in own.named_parameters():
                p.copy_(values[name][key])
        sgd = torch.optim.SGD(own.parameters(), 0.1)
        problem = mlo.Problem(
            name, module=own, loss=LOSSES[name], optimizer=sgd, hypergradient=method
        )
        problems.append(problem)
    data = {stream: [batch] for stream, batch in batches().items()}
    return mlo.Engine(problems, data=data, **settings)


def statistics(engine: mlo.Engine, name: str) -> Params:
    module = engine.problems[name].module
    assert all(part.training for part in module.modules())
    return {k: b.clone() for k, b in module.named_buffers()}


@pytest.mark.parametrize("method", METHODS)
def test_a_hypergradient_through_networks_is_that_of_full_differentiation(method):
    levels, values = solved()
    at = Stacked(levels, values)
    assert all(torch.linalg.eigvalsh(at.curvature(n)).min() > 0.1 for n in ("learner", "weigher"))
    engine = engine_at(values, METHODS[method])
    assert engine.graph.kind("weigher") == "anticipating"
    found = engine.hypergradient("regularizer")
    # The solutions are good to 1e-11, and condition numbers are below 30 at both levels.
    assert relative(found, differentiated_in_full()) < 1e-8
    assert relative(found, total_gradient(levels, values, "regularizer")) < 1e-8


@pytest.mark.parametrize("nested", ["projected", "partial"])
def test_terms_left_out_through_networks_are_those_written_out(nested):
    levels, values = solved()
    want = shortened_gradient(levels, values, "regularizer", nested)
    assert relative(want, total_gradient(levels, values, "regularizer")) > 1e-2
    found = engine_at(values, mlo.Dense(), nested=nested).hypergradient("regularizer")
    assert relative(found, want) < 1e-8


@pytest.mark.parametrize("name", ["regularizer", "weigher"])
def test_a_hypergradient_leaves_running_statistics_alone(name):
    engine = engine_at(solved()[1], METHODS["conjugate gradients"])
    before = {n: statistics(engine, n) for n in ("learner", "weigher")}
    engine.hypergradient(name)
    for n, buffers in before.items():
        assert len(buffers) == 3
        after = statistics(engine, n)
        assert all(torch.equal(buffers[k], after[k]) for k in buffers)


def test_running_statistics_are_updated_once_a_move_however_often_a_loss_is_differentiated():
    engine = engine_at(solved()[1], METHODS["conjugate gradients"])
    engine.step()
    # The weigher runs in the learner's loss alone, where its buffers are copies.
    for n, moves in (("learner", 1), ("weigher", 0)):
        assert int(statistics(engine, n)["1.num_batches_tracked"]) == moves
