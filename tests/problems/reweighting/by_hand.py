"""The reference: networks, batches, and SGD's step written out in plain torch."""

from __future__ import annotations

import contextlib
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from problems.models import conv_classifier
from problems.training import Training

TOLERANCE = 1e-11
"""Relative, for each tensor by its norm."""

PLAIN = Training(learning_rate=0.2, momentum=0.0, weight_decay=0.0)
HEAVY = Training(learning_rate=0.1, momentum=0.9, weight_decay=5e-3)
# A bound below the norms of nearly all gradients, which therefore are cut.
CLIPPED = Training(
    learning_rate=0.1, momentum=0.8, nesterov=True, weight_decay=1e-2, clip_norm=0.02
)
STEEP = Training(learning_rate=0.3, momentum=0.5, milestones=(0.3,), factor=0.5)


class Case(NamedTuple):
    """One shape of everything."""

    network: str
    n: int
    m: int
    classes: int
    training: Training
    unit_mean: bool = False


CASES = {
    "mlp": Case("mlp", 9, 7, 3, PLAIN),
    "mlp-momentum-unit-mean": Case("mlp", 6, 11, 5, HEAVY, unit_mean=True),
    "mlp-one-example": Case("mlp", 1, 1, 2, CLIPPED),
    "conv-clipped-nesterov": Case("conv", 8, 5, 3, CLIPPED),
    "conv-milestone-unit-mean": Case("conv", 5, 6, 4, STEEP, unit_mean=True),
}
TRAIN_SIZE, VALID_SIZE, TICKS = 30, 20, 4


def network(kind: str, classes: int, seed: int = 0) -> nn.Module:
    """A classifier: convolutions with batch normalization, or a tanh network."""
    torch.manual_seed(seed)
    if kind == "conv":
        return conv_classifier(classes, width=3, features=8, batch_norm=True)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, classes))


def batches(kind, size, classes, total, seed):
    """A batch for every tick; the index is no place in the batch."""
    draw = torch.Generator().manual_seed(seed)
    side = 8 if kind == "conv" else 4

    def batch():
        x = torch.randn(size, 1, side, side, generator=draw)
        labels = torch.randint(0, classes, (size,), generator=draw)
        return x, labels, torch.randperm(total, generator=draw)[:size]

    return [batch() for _ in range(TICKS + 1)]


def data(case: Case) -> dict:
    return {
        "train": batches(case.network, case.n, case.classes, TRAIN_SIZE, 1),
        "valid": batches(case.network, case.m, case.classes, VALID_SIZE, 2),
    }


def leaves(module: nn.Module) -> dict:
    """Copies of the parameters, to differentiate by."""
    return {k: p.detach().clone().requires_grad_() for k, p in module.named_parameters()}


def call(module: nn.Module, params, x):
    """The module at other parameters; its running statistics stay as they are."""
    buffers = {k: b.clone() for k, b in module.named_buffers()}
    return functional_call(module, {**params, **buffers}, (x,))


def losses(module, params, batch):
    """Cross-entropies, written out."""
    logits, labels = call(module, params, batch[0]), batch[1]
    return torch.logsumexp(logits, 1) - logits.gather(1, labels[:, None]).squeeze(1)


def gradient_norm(params, loss):
    grads = torch.autograd.grad(loss, list(params.values()), create_graph=True)
    return grads, torch.sqrt(sum(g.detach().square().sum() for g in grads))


def stepped(problem, params, loss):
    """Where SGD leads, with its momentum as it stands, as a function of all that is in `loss`."""
    (group,) = problem.optimizer.param_groups
    rate, mu, decay = group["lr"], group["momentum"], group["weight_decay"]
    grads, length = gradient_norm(params, loss)
    factor = 1.0
    if problem.clip_norm is not None:
        factor = min(1.0, problem.clip_norm / (float(length) + 1e-6))
    live = dict(problem.module.named_parameters())
    new = {}
    for (key, p), gradient in zip(params.items(), grads, strict=True):
        g = factor * gradient + decay * p
        if mu:
            before = problem.optimizer.state.get(live[key], {}).get("momentum_buffer")
            velocity = g if before is None else mu * before.clone() + g
            g = g + mu * velocity if group["nesterov"] else velocity
        new[key] = p - rate * g
    return new


def derivative(outer, params):
    """By every parameter; zeros where nothing depends."""
    grads = torch.autograd.grad(outer, list(params.values()), allow_unused=True)
    pairs = zip(params.items(), grads, strict=True)
    return {k: torch.zeros_like(p) if g is None else g for (k, p), g in pairs}


def error(found, want) -> float:
    """The largest of the relative errors of all tensors; what should be zero must be zero."""
    assert found.keys() == want.keys()
    worst = 0.0
    for key, value in want.items():
        length = float(value.detach().norm())
        difference = float((found[key].detach() - value.detach()).norm())
        if difference != 0:  # NaN is an infinite error, and so is anything instead of zero
            finite = length > 0 and math.isfinite(difference)
            worst = max(worst, difference / length if finite else math.inf)
    return worst


def parameters(module: nn.Module) -> dict:
    return {k: p.detach().clone() for k, p in module.named_parameters()}


@contextlib.contextmanager
def received(problem):
    """What the optimizer of a problem is handed in its next step, by the parameters' names."""
    seen: dict = {}

    def look(*_):
        assert not seen, "one step"
        for key, p in problem.module.named_parameters():
            seen[key] = torch.zeros_like(p) if p.grad is None else p.grad.clone()

    handle = problem.optimizer.register_step_pre_hook(look)
    try:
        yield seen
    finally:
        handle.remove()


def mean_loss(module, params, batch):
    return F.cross_entropy(call(module, params, batch[0]), batch[1])
