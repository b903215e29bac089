"""Learning From Mistakes on small convolutional networks, by the engine and by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

import mlo
from problems.benchmarks.timing import Step
from problems.lfm import Settings, Validator, lfm_problems, mistakes
from problems.models import conv_classifier, conv_encoder

SETTINGS = Settings()


def engine() -> Step:
    """Learning From Mistakes on small convolutional networks."""
    train, valid, learner, relearner, top = _program()
    problems = lfm_problems(learner, relearner, top, ticks=10_000, settings=SETTINGS)
    made = mlo.Engine(problems, {"train": [train], "valid": [valid]}, lookahead=True)
    return lambda: next(m.loss for m in made.step().moves if m.problem == "validator")


def loop() -> Step:
    """The same by hand; the mistakes, which both uses share, are computed once."""
    train, valid, learner, relearner, top = _program()
    problems = {
        p.name: p for p in lfm_problems(learner, relearner, top, ticks=10_000, settings=SETTINGS)
    }
    weights = dict(relearner.named_parameters())

    def descend(name: str, grads: Sequence[Tensor]) -> None:
        problem = problems[name]
        for p, g in zip(problem.module.parameters(), grads, strict=True):
            p.grad = g.detach()
        problem.optimizer.step()
        problem.scheduler.step()

    def relearn(u: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        losses = F.cross_entropy(
            functional_call(relearner, dict(params), train[0]), train[1], reduction="none"
        )
        return (top(train, valid, u) * losses).mean()

    def step() -> Tensor:
        loss = F.cross_entropy(learner(train[0]), train[1])
        descend("learner", torch.autograd.grad(loss, list(learner.parameters())))
        with torch.no_grad():
            u = mistakes(learner(valid[0]), valid[1])
        grads = torch.autograd.grad(relearn(u, weights), list(weights.values()), create_graph=True)
        group = problems["relearner"].optimizer.param_groups[0]
        moved = {}
        for (key, p), g in zip(weights.items(), grads, strict=True):
            state = problems["relearner"].optimizer.state[p]
            decayed = g.detach() + group["weight_decay"] * p.detach()
            old = state.get("momentum_buffer")
            buffer = decayed if old is None else group["momentum"] * old + decayed
            moved[key] = (p.detach() - group["lr"] * buffer).requires_grad_()
        judged = F.cross_entropy(functional_call(relearner, moved, valid[0]), valid[1])
        v = [group["lr"] * x for x in torch.autograd.grad(judged, list(moved.values()))]
        upper = torch.autograd.grad(grads, list(top.parameters()), v)
        descend("validator", [-g for g in upper])
        with torch.no_grad():
            a = top(train, valid, u)
        losses = F.cross_entropy(relearner(train[0]), train[1], reduction="none")
        descend("relearner", torch.autograd.grad((a * losses).mean(), list(weights.values())))
        return judged.detach()

    return step


def _program() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], nn.Module, nn.Module, Validator]:
    torch.manual_seed(0)
    x, y = torch.rand(200, 1, 16, 16), torch.arange(200) % 10
    index = torch.arange(100)
    train, valid = (x[:100], y[:100], index), (x[100:], y[100:], index)
    learner, relearner = conv_classifier(10), conv_classifier(10)
    return train, valid, learner, relearner, Validator(conv_encoder(), coefficients=100)
